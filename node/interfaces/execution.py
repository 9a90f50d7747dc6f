"""Carrying tasks out: here, or by handing them to others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from node.personas import Persona
from protocol import Artifact, PeerId, PeertaskError, Receipt, Task, TaskId, TaskResult


@dataclass(frozen=True, slots=True)
class Output:
    """What an executor returns.

    Attributes:
        text: the result.
        artifacts: named output beside it.
    """

    text: str
    artifacts: tuple[Artifact, ...] = ()


class Receipted(NamedTuple):
    """A result that came with the word of the peer that has it, and the receipt fits."""

    result: TaskResult
    receipt: Receipt


Outcome = TaskResult | Receipted | Output | PeertaskError
"""How an attempt ended: a result that somebody else has timed, what an executor returned, or an error."""


class Execution(ABC):
    """One attempt at a task, as its executor sees it.

    Attributes:
        task: what to do.
        attempt: which attempt this is, from 1.
        holder: the peer that carries it out.
    """

    __slots__ = ()

    task: Task
    attempt: int
    holder: PeerId

    @property
    def persona(self) -> Persona | None:
        """Who does the task, with the definition that this node has; None when the task names nobody."""
        return None

    @abstractmethod
    def remaining_ms(self) -> int | None:
        """Return how long the requester still cares, in milliseconds, 0 at the least; None for as long as it takes."""

    @abstractmethod
    def started(self) -> None:
        """Tell that the execution has begun; without effect when that is known. Never blocks."""

    @abstractmethod
    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the execution is, 0 to 1. Never blocks; an execution that is over ignores it."""


class Delegation(Execution):
    """One attempt at a task that somebody else carries out."""

    __slots__ = ()

    @abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """Tell what came of it; only the first call counts. Never blocks.

        The code of an error decides what happens next, as for `Executor.execute`.
        """


class Executor(ABC):
    """Carries tasks of one kind out.

    Attributes:
        kind: the name that tasks ask for.
        slots: how many it carries out at once.
        safe: whether any authenticated peer may use it; otherwise the operator lists the peers that may.
    """

    kind: str
    slots: int
    safe: bool = False

    @abstractmethod
    async def execute(self, execution: Execution) -> Output:
        """Carry a task out and return what came of it.

        Cancellation means stop: whatever was started for the task (threads that can be told, processes and their
        groups, requests) is gone when this ends. A result that was there first may be returned in spite of it.

        Raises:
            PeertaskError: its code decides what happens next: BUSY, DRAINING, PEER_UNREACHABLE, PEER_LOST and
                LEASE_LOST release the task for another attempt; other codes fail it, or spend one of its retries when
                retryable.
            Exception: anything else fails the task with EXECUTION_FAILED and the message, without the traceback.
        """


class Delegate(ABC):
    """Hands tasks to others, who say themselves what comes of them.

    So a task that waits for its peer costs no task of trio. All methods are called on the event loop, must be quick,
    and must not raise.
    """

    @abstractmethod
    def begin(self, delegation: Delegation) -> None:
        """Hand a task to its `holder`; `started`, `progress` and in the end `finish` follow, perhaps at once."""

    @abstractmethod
    def stop(self, delegation: Delegation) -> None:
        """Ask the holder to stop; `finish` follows as it would have, with a result that was there first, or without."""

    @abstractmethod
    def abandon(self, task_id: TaskId, holder: PeerId) -> None:
        """Tell a former holder, now or when it is back, to stop if it still works on a task that nobody wants."""

    @abstractmethod
    def forget(self, delegation: Delegation) -> None:
        """Drop what is kept for a task that was ended without an answer of its holder."""
