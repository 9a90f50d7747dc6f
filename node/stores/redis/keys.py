"""The names of the keys in the server; docs/reference/redis.md describes what stands under each."""

from __future__ import annotations

from dataclasses import dataclass

from protocol import PeerId, TaskId


def task_key(instance: str, task_id: str) -> str:
    """Where the context of a task stands, for whoever looks it up."""
    return f"{instance}task:{task_id}"


def session_key(instance: str, session_id: str) -> str:
    """Where the ids of the tasks of a conversation stand."""
    return f"{instance}session:{session_id}"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys that one node writes.

    Attributes:
        instance: what all keys begin with.
        node: whose they are.
    """

    instance: str
    node: PeerId

    @property
    def writer(self) -> str:
        """Which process writes for the node; all others are refused."""
        return f"{self.instance}node:{self.node}:writer"

    @property
    def index(self) -> str:
        """The ids of the node's tasks, the oldest first."""
        return f"{self.instance}node:{self.node}:tasks"

    def places(self, task_id: TaskId) -> tuple[str, str, str]:
        """Where the context of a task may stand, shared and aside, and where its facts stand.

        It stands aside where the shared key belongs to another node: both halves of a delegated task may be kept in one
        server.
        """
        shared = task_key(self.instance, task_id)
        return shared, f"{shared}@{self.node}", f"{self.instance}node:{self.node}:facts:{task_id}"

    def unreadable(self, task_id: TaskId) -> str:
        """Where a value that could not be read is set aside."""
        return f"{self.instance}node:{self.node}:unreadable:{task_id}"
