"""One attempt at a task: what its executor, its agent or its peer says of it becomes facts."""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

from node.coordination.roster import Worker
from node.interfaces import Clock, Outcome
from node.manager import TaskManager
from node.persona_library import PersonaLibrary
from node.personas import Persona
from node.runners import LocalAttempt
from protocol import (
    MAX_MESSAGE_CHARS,
    Completed,
    ErrorCode,
    Failed,
    IllegalTransition,
    PeertaskError,
    Progressed,
    StaleAttempt,
    Started,
    Task,
    TaskNotFound,
    TaskRecord,
    TaskStatus,
)

log = structlog.get_logger(__name__)

# Ten reports a second are as many as a person or a progress bar can follow; each one is a fact, and a frame to a peer.
PROGRESS_INTERVAL_MS = 100


class AttemptOwner(Protocol):
    """What an attempt needs of the dispatcher.

    Attributes:
        personas: whom the node acts as; None when it does not look at personas.
        lease_ms: the length of a lease, in milliseconds.
    """

    personas: PersonaLibrary | None
    lease_ms: int

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of the end of an attempt; called once for each."""


class Attempt(LocalAttempt):
    """One attempt that the dispatcher runs, here, at an agent or at a peer.

    Attributes:
        worker: whose slot it takes.
        deadline: when the requester stops caring, in milliseconds since the epoch; None for never.
        begun_at: when it was claimed, in milliseconds since the epoch.
        has_started: whether its start is recorded.
        cancel_requested: whether the requester asked for it to be stopped.
        over: whether it has ended.
        scope: cancels it, when it runs here.
    """

    __slots__ = (
        "_clock",
        "_manager",
        "_owner",
        "_reported_at",
        "attempt",
        "begun_at",
        "cancel_requested",
        "deadline",
        "has_started",
        "holder",
        "task",
        "worker",
    )

    def __init__(
        self, owner: AttemptOwner, manager: TaskManager, clock: Clock, record: TaskRecord, worker: Worker, now: int
    ) -> None:
        self.task: Task = record.task
        self.attempt = record.attempt + 1
        self.holder = worker.peer_id
        self.worker = worker
        self.deadline = record.deadline
        self.begun_at = now
        self.has_started = False
        self.cancel_requested = False
        self.over = False
        self.scope: trio.CancelScope | None = None
        self._owner = owner
        self._manager = manager
        self._clock = clock
        self._reported_at = 0

    @property
    def persona(self) -> Persona | None:
        """Who does the task; None when it names nobody, or this node does not look at personas."""
        library, wanted = self._owner.personas, self.task.persona
        return None if library is None or wanted is None else library.role(wanted)

    def remaining_ms(self) -> int | None:
        """Return how long the requester still cares, in milliseconds; None for as long as it takes."""
        return None if self.deadline is None else max(0, self.deadline - self._clock.now())

    def limit_ms(self) -> int | None:
        """Return how long an execution at this node may take, in milliseconds; None for as long as it takes."""
        if self.deadline is None:
            return self.task.timeout_ms
        limits = (self.remaining_ms(), self.task.timeout_ms)
        return min((limit for limit in limits if limit is not None), default=None)

    def finish(self, outcome: Outcome) -> None:
        """Tell the dispatcher what came of this attempt; only the first call counts."""
        if not self.over:
            self.over = True
            self._owner.ended(self, outcome)

    def started(self) -> None:
        """Record that the execution has begun, unless that is known."""
        if not self.has_started:
            self.has_started = True
            self._apply(Started(self.task.id, self._clock.now(), self.attempt))

    def record_end(self, end: Completed | Failed) -> None:
        """Record the end of the task, and its start with it when nothing has told of that before: the end says both.

        Raises:
            IllegalTransition: the task has ended already, or was given up.
            StaleAttempt: a newer attempt has been claimed since.
            TaskNotFound: the task is not this node's any more.
        """
        if not self.has_started and self._manager.latest(self.task.id).status is TaskStatus.CLAIMED:
            self._manager.apply(Started(self.task.id, end.at, self.attempt), end)
        else:  # a task that is to be cancelled does not start any more, but may end
            self._manager.apply(end)

    def progress(self, fraction: float, message: str = "") -> None:
        """Record how far the execution is; reports that come too fast are skipped."""
        now = self._clock.now()
        if now - self._reported_at < PROGRESS_INTERVAL_MS:
            return
        self._reported_at = now
        done = min(1.0, max(0.0, fraction))
        text = message.encode("utf-8", "replace").decode()[:MAX_MESSAGE_CHARS]
        self._apply(Progressed(self.task.id, now, self.attempt, done, text, now + self._owner.lease_ms))

    def why_stopped(self) -> PeertaskError:
        """Return why the scope of this attempt was cancelled."""
        if self.cancel_requested:
            return PeertaskError("the requester cancelled the task", code=ErrorCode.CANCELLED)
        if self.remaining_ms() == 0:
            return PeertaskError("the deadline of the task passed while it ran", code=ErrorCode.DEADLINE_EXCEEDED)
        return PeertaskError(
            f"the execution took longer than its timeout of {self.task.timeout_ms} ms",
            code=ErrorCode.TIMEOUT,
            remedy="Give the task a larger timeout_ms, or cut it into smaller ones",
        )

    def _apply(self, fact: Started | Progressed) -> None:
        try:
            self._manager.apply(fact)
        except (IllegalTransition, StaleAttempt, TaskNotFound) as error:
            log.debug("report of an attempt dropped", task_id=self.task.id, attempt=self.attempt, reason=str(error))
