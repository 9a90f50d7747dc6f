"""What came of attempts, as facts: how a task ended, that it is to be tried again, or that it is given back."""

from __future__ import annotations

import random

import structlog
from pydantic import ValidationError

from node.coordination.plan import Backlog
from node.coordination.retries import after_failure
from node.dispatcher.attempt import Attempt
from node.dispatcher.roll import Roll
from node.interfaces import Clock, Outcome, Output, Receipted
from node.manager import TaskManager
from protocol import (
    Cancelled,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    IllegalTransition,
    PeerId,
    PeertaskError,
    Released,
    StaleAttempt,
    TaskFailed,
    TaskNotFound,
    TaskRecord,
    TaskResult,
    TaskStatus,
    Transition,
    describe_invalid,
)

log = structlog.get_logger(__name__)


class Recorder:
    """Records facts, and drops those that come too late.

    Args:
        manager: the map that is told.
        clock: tells the time.
        rng: draws the jitter of retries.
        backlog: knows where a task may run, and who has refused it.
        roll: knows who else is there.
        own_id: this node.
    """

    def __init__(
        self, manager: TaskManager, clock: Clock, rng: random.Random, backlog: Backlog, roll: Roll, own_id: PeerId
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._rng = rng
        self._backlog = backlog
        self._roll = roll
        self._own_id = own_id

    def record(self, fact: Transition) -> None:
        """Record a fact, unless the task has ended since: with a store that takes time, its end may be on its way."""
        try:
            self._manager.apply(fact)
        except (IllegalTransition, StaleAttempt, TaskNotFound) as error:
            log.debug("late fact dropped", task_id=fact.task_id, fact=type(fact).__name__, reason=str(error))

    def conclude(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record what came of an attempt, unless it comes too late."""
        try:
            if isinstance(outcome, PeertaskError):
                self._fail(attempt, outcome)
            else:
                self._complete(attempt, outcome)
        except (IllegalTransition, StaleAttempt, TaskNotFound) as error:
            log.info("late outcome dropped", task_id=attempt.task.id, attempt=attempt.attempt, reason=str(error))

    def _complete(self, attempt: Attempt, outcome: TaskResult | Receipted | Output) -> None:
        now = self._clock.now()
        task_id = attempt.task.id
        receipt = None
        if isinstance(outcome, Output):
            try:
                outcome = TaskResult(task_id, outcome.text, now - attempt.begun_at, outcome.artifacts)
            except ValidationError as error:
                problem = f"the executor returned what cannot be a result: {describe_invalid(error)}"
                self._fail(attempt, PeertaskError(problem, code=ErrorCode.EXECUTION_FAILED))
                return
        elif isinstance(outcome, Receipted):
            outcome, receipt = outcome
        attempt.record_end(Completed(task_id, now, attempt.attempt, outcome, receipt))

    def _fail(self, attempt: Attempt, error: PeertaskError) -> None:
        failure = error.failure if isinstance(error, TaskFailed) else Failure.from_error(error)
        record = self._manager.latest(attempt.task.id)
        told_by_peer = isinstance(error, TaskFailed) and attempt.holder != self._own_id and not attempt.worker.agent
        fact = after_failure(
            record,
            failure,
            now=self._clock.now(),
            rng=self._rng,
            retry_after_ms=error.retry_after_ms,
            final=told_by_peer,
            others=self._others_are_left(record, attempt),
        )
        if told_by_peer and isinstance(fact, Failed):
            attempt.record_end(fact)
        else:
            self._manager.apply(fact)
        log.info(
            "attempt ended without a result",
            task_id=record.id,
            attempt=attempt.attempt,
            peer_id=attempt.holder,
            code=failure.code.value,
            reason=failure.message,
            then=type(fact).__name__,
        )

    def _others_are_left(self, record: TaskRecord, attempt: Attempt) -> bool | None:
        """Whether somebody may have the task who has not refused it; None when nobody but its worker ever may."""
        place = self._backlog.place(record)
        if place.target is not None:
            return None
        left = self._roll.last().willing(place._replace(without=place.without | {attempt.holder}))
        return bool(left) or (None if attempt.holder == self._own_id else False)

    def release(self, attempt: Attempt) -> None:
        """Give back what was running when this node stopped."""
        attempt.over = True
        try:
            record = self._manager.latest(attempt.task.id)
        except TaskNotFound:  # it was taken from this node
            return
        now = self._clock.now()
        if record.status is TaskStatus.CANCELLING:
            self._manager.apply(Cancelled(record.id, now))
        elif record.attempt == attempt.attempt and not record.terminal and record.status is not TaskStatus.PENDING:
            self._manager.apply(
                Released(record.id, now, record.attempt, ErrorCode.DRAINING, "this node was stopped", 0)
            )
