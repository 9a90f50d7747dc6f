"""What gateways ask of a node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple

from node.coordination.dead_letters import retry_of
from node.interfaces.storage import Change
from protocol import PeerId, Task, TaskId, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which records to list; None leaves a field open.

    Attributes:
        statuses: any of these.
        project: this one.
        requester: asked by this peer.
        session_id: of this conversation.
        before: taken in earlier than this, in milliseconds since the epoch.
        codes: ended without a result, with any of these error codes.
        retry_of: repeats this task.
        unretried: whether to leave out what its requester has had done again.
        limit: at most so many, the newest first.
    """

    statuses: frozenset[str] | None = None
    project: str | None = None
    requester: PeerId | None = None
    session_id: str | None = None
    before: int | None = None
    codes: frozenset[str] | None = None
    retry_of: TaskId | None = None
    unretried: bool = False
    limit: int | None = None

    def matches(self, record: TaskRecord) -> bool:
        """Whether a record is one of those asked for; `limit` and `unretried`, which look at others, play no part."""
        return (
            (self.statuses is None or record.status in self.statuses)
            and (self.project is None or record.task.project == self.project)
            and (self.requester is None or record.requester == self.requester)
            and (self.session_id is None or record.task.session_id == self.session_id)
            and (self.before is None or record.created_at < self.before)
            and (self.codes is None or (record.failure is not None and record.failure.code in self.codes))
            and (self.retry_of is None or retry_of(record.task) == self.retry_of)
        )


@dataclass(frozen=True, slots=True)
class Lagged:
    """Stands in a watch for facts that the watcher was too slow to take, or that are no longer kept.

    Attributes:
        missed: how many facts are missing here.
    """

    missed: int


class GraphTask(NamedTuple):
    """One of the tasks that are submitted together.

    Attributes:
        task: what to do.
        target: who shall do it; None when the node may choose.
        deadline: when the requester stops caring, in milliseconds since the epoch.
    """

    task: Task
    target: PeerId | None = None
    deadline: int | None = None


class TaskService(ABC):
    """What gateways ask of a node."""

    @abstractmethod
    def submit(
        self, task: Task, *, requester: PeerId, target: PeerId | None, deadline: int | None = None, fresh: bool = False
    ) -> TaskRecord:
        """Take a task in, or return the record of the task that has this UUID already.

        The caller may tell others that the task is accepted only when the feed has published a fact of it.

        Args:
            task: what to do.
            requester: the authenticated peer that asks.
            target: who shall do it; None when the node may choose.
            deadline: when the requester stops caring, in milliseconds since the epoch.
            fresh: whether the UUID was drawn for this call, so that after a crash nobody can ask for it again: then the
                task may be passed on to a peer while it is being saved. What is asked for again is a little different,
                and a peer would take it for another task.

        Raises:
            InvalidTask: it depends on a task that is not here, or has such a parent.
            PeertaskError: code BUSY with `retry_after_ms` when the queue is full; DRAINING when the node is stopping;
                CONFLICT when the UUID belongs to another task or requester; CANCELLED when its parent is cancelled.
        """

    @abstractmethod
    def submit_graph(self, graph: Sequence[GraphTask], *, requester: PeerId) -> list[TaskRecord]:
        """Take tasks that depend on each other in, all or none; or return the records of those that came before.

        They are saved together, and none begins before that.

        Args:
            graph: the tasks, in any order; they may also depend on earlier ones of the same requester.
            requester: the authenticated peer that asks.

        Returns:
            Their records, in the order of the tasks.

        Raises:
            InvalidTask: a task names one that is not here, or they have a cycle; see `check_graph`.
            TooLarge: there are more tasks or dependencies than a graph, or this node, may have.
            PeertaskError: as for `submit`; CONFLICT also when some of the tasks are here already, and some are not.
        """

    @abstractmethod
    def awaited(self, record: TaskRecord) -> list[tuple[TaskId, TaskRecord | None]]:
        """Return what an open task still waits for: the ids of tasks, with their records when they are kept."""

    @abstractmethod
    def is_blocked(self, record: TaskRecord) -> bool:
        """Whether a task waits for others."""

    @abstractmethod
    def children(self, task_id: TaskId) -> list[TaskRecord]:
        """Return the records of the tasks that are kept and name this one as their parent."""

    @abstractmethod
    def find_task(self, task_id: TaskId) -> TaskRecord | None:
        """Return the record of a task as it is saved; None when the node does not know it."""

    @abstractmethod
    def get_task(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task.

        Raises:
            TaskNotFound: the node does not know it.
        """

    @abstractmethod
    def latest(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task as it will be when all its facts are saved; not to be told to anybody.

        Raises:
            TaskNotFound: the node does not know it.
        """

    @abstractmethod
    def list_tasks(self, task_filter: TaskFilter | None = None) -> list[TaskRecord]:
        """Return the records that match, the newest first."""

    @abstractmethod
    def unsaved_tasks(self) -> list[TaskRecord]:
        """Return the records, as `latest` does, of the tasks with facts that wait to be saved; in no order."""

    @abstractmethod
    def cancel_task(self, task_id: TaskId, *, requester: PeerId | None = None) -> TaskRecord:
        """Ask for a task and its children to be stopped, and return its record; what has ended stays as it is.

        Args:
            task_id: which task; one that is not saved yet is stopped too.
            requester: the peer that asks, when only its own tasks are meant; None for any.

        Raises:
            TaskNotFound: the node does not know it, or it is another requester's.
        """

    @abstractmethod
    def watch(
        self, task_id: TaskId | None = None, after_seq: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Change | Lagged]]:
        """Watch the facts of one task, ending with its last, or of all tasks, without end.

        Args:
            task_id: which task; None for all.
            after_seq: the last fact that the watcher knows; what is kept of the later ones comes first.

        Raises:
            TaskNotFound: the node does not know the task.
        """
