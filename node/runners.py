"""Runs the attempts of one executor: as many at once as it has slots, without a task of trio for each.

A runner is a task that takes one attempt after the other, so attempts that end at once cost no scheduling at all. A
runner that is woken and leaves attempts waiting wakes two more: a burst of attempts that block has all its runners
within a few passes of the scheduler, and a burst of attempts that do not block is over before the second runner looks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

import structlog
import trio

from node.interfaces import Delegation, Executor, Outcome, Output
from node.telemetry import bind_task, execution_span
from protocol import ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

# Attempts that end at once must not keep the event loop from everything else: what they want sent goes out between.
ATTEMPTS_A_PASS = 64
# A hundred runners are up after seven passes.
WOKEN_BY_EACH = 2


class LocalAttempt(Delegation):
    """An attempt that runs at this node.

    Attributes:
        scope: cancelling it stops the attempt; None when it does not run.
        over: whether it has ended; then it is not run any more.
    """

    __slots__ = ("over", "scope")

    scope: trio.CancelScope | None
    over: bool

    @abstractmethod
    def limit_ms(self) -> int | None:
        """Return how long it may take, in milliseconds; None for as long as it takes."""

    @abstractmethod
    def why_stopped(self) -> PeertaskError:
        """Return why its scope was cancelled."""


class RunnerPool:
    """The runners of one executor.

    Args:
        executor: what they run.
        nursery: where they live. When it is cancelled, whoever gave them attempts sees to those that have not finished.
    """

    def __init__(self, executor: Executor, nursery: trio.Nursery) -> None:
        self.executor = executor
        self._nursery = nursery
        self._ready: deque[LocalAttempt] = deque()
        self._idle: list[trio.Event] = []
        self._runners = 0
        self._retired = False

    def __repr__(self) -> str:
        return (
            f"<RunnerPool {self.executor.kind} runners={self._runners} idle={len(self._idle)} ready={len(self._ready)}>"
        )

    def run_soon(self, attempt: LocalAttempt) -> None:
        """Run an attempt as soon as a runner is free; the caller keeps within the slots of the executor."""
        self._ready.append(attempt)
        if len(self._ready) == 1:
            self._bring_runner()

    def retire(self) -> None:
        """Take no more attempts: runners that have nothing to do end, the others when they have finished."""
        self._retired = True
        while self._idle:
            self._idle.pop().set()

    def _bring_runner(self) -> None:
        if self._idle:
            self._idle.pop().set()
        elif self._runners < self.executor.slots:
            self._runners += 1
            self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        while self._ready or not self._retired:
            under_way: list[LocalAttempt] = []
            with trio.CancelScope() as scope:
                await self._work(scope, under_way)
            # An attempt that was cancelled took the scope with it; the runner goes on with a new one.
            for attempt in under_way:
                attempt.scope = None
                attempt.finish(attempt.why_stopped())

    async def _work(self, scope: trio.CancelScope, under_way: list[LocalAttempt]) -> None:
        """Run attempts until the scope is used up; `under_way` holds the one that is running."""
        in_a_row = 0
        while not scope.cancel_called:
            while not self._ready:
                if self._retired:
                    return
                in_a_row = 0
                await self._wait()
            if in_a_row == ATTEMPTS_A_PASS:
                in_a_row = 0
                await trio.lowlevel.checkpoint()
                continue
            attempt = self._ready.popleft()
            # Only the first time: whoever comes finds the rest, and waking one in vain costs a tenth of a no-op task.
            if self._ready and not in_a_row:
                for _ in range(WOKEN_BY_EACH):
                    self._bring_runner()
            in_a_row += 1
            under_way.append(attempt)
            outcome = attempt.why_stopped() if attempt.over else await self._execute(attempt, scope)
            under_way.clear()
            attempt.finish(outcome)

    async def _wait(self) -> None:
        woken = trio.Event()
        self._idle.append(woken)
        await woken.wait()

    async def _execute(self, attempt: LocalAttempt, scope: trio.CancelScope) -> Outcome:
        limit = attempt.limit_ms()
        if limit is not None:
            scope.deadline = trio.current_time() + limit / 1000
        attempt.scope = scope
        task, number = attempt.task, attempt.attempt
        try:
            with bind_task(task.id, attempt=number), execution_span(task, number):
                return _checked(await self.executor.execute(attempt))
        except PeertaskError as error:
            # What an execution raises because it is stopped is not why it ended.
            await trio.lowlevel.checkpoint_if_cancelled()
            return error
        except Exception as error:
            log.warning("execution failed", task_id=task.id, attempt=number, exc_info=True)
            await trio.lowlevel.checkpoint_if_cancelled()
            return PeertaskError(f"{type(error).__name__}: {error}", code=ErrorCode.EXECUTION_FAILED)
        except BaseExceptionGroup as group:
            log.warning("execution failed while it was stopped", task_id=task.id, attempt=number, exc_info=True)
            raise _cancellation_in(group) from None
        finally:
            attempt.scope = None
            if limit is not None and not scope.cancel_called:
                scope.deadline = float("inf")


def _checked(output: object) -> Outcome:
    """Return what an executor returned, unless it has another type: executors come from programs that may not check."""
    if isinstance(output, Output):
        return output
    return PeertaskError(
        f"the executor returned a {type(output).__name__}, which is not an Output", code=ErrorCode.EXECUTION_FAILED
    )


def _cancellation_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return only the cancellation of a group, so that what else went wrong in the execution does not end the node."""
    cancelled, rest = group.split(trio.Cancelled)
    return cancelled if cancelled is not None and isinstance(rest, Exception | None) else group
