"""Functions that are not async, each in a worker thread.

Theory of operation. A thread cannot be stopped from outside. It can look: `trio.from_thread.check_cancelled` raises as
soon as the task is cancelled. One that looks is gone before `run` ends. One that does not is left behind after a grace,
so that the requester hears of a timeout when it happens; it keeps its seat until it really ends, and what it returns is
dropped. When all seats are taken by such threads, the executor is busy: it never runs more threads than it has slots.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import structlog
import trio

from node.executors.binding import Arguments, Binding, Source
from node.executors.outcome import output_of, told_error
from node.interfaces import Execution, Output
from node.personas import Persona
from protocol import ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

# A loop that looks whether it is cancelled does so many times a second; whoever has not looked by now is not going to.
CANCEL_GRACE_S = 2.0
# Threads that were left behind end when they end; asking once a second costs the node nothing.
BUSY_RETRY_MS = 1_000


class ThreadRunner:
    """Calls one function in worker threads.

    Args:
        kind: what it is registered under.
        function: what to call.
        binding: its parameters.
        slots: how many threads there are at the most.
    """

    def __init__(self, kind: str, function: Callable[..., object], binding: Binding, slots: int) -> None:
        self._kind = kind
        self._function = function
        self._binding = binding
        self._seats = trio.CapacityLimiter(slots)

    async def run(self, execution: Execution) -> Output:
        """Call the function in a thread and return its output.

        Cancellation is told to the thread, and waits 2 s for it to end.

        Raises:
            PeertaskError: the function failed; code BUSY, when threads that were left behind have all the seats.
        """
        if not self._seats.available_tokens:
            raise self._busy()
        arguments = self._binding.bind(self._thread_safe(execution))
        seat = _Seat(self._seats)
        try:
            return await trio.to_thread.run_sync(
                partial(self._call, arguments, execution),
                thread_name=self._kind,
                abandon_on_cancel=True,
                # trio documents that anything with these two methods will do.
                limiter=cast("trio.CapacityLimiter", seat),
            )
        except trio.Cancelled:
            if seat.taken:
                await self._see_off(seat, execution)
            raise

    def _call(self, arguments: Arguments, execution: Execution) -> Output:
        try:
            return output_of(self._function(*arguments.args, **arguments.kwargs))
        except PeertaskError:
            raise
        except (Exception, SystemExit) as error:
            raise told_error(error, self._kind, execution) from error

    def _thread_safe(self, execution: Execution) -> Execution:
        return ThreadExecution(execution) if self._binding.takes(Source.EXECUTION) else execution

    async def _see_off(self, seat: _Seat, execution: Execution) -> None:
        with trio.move_on_after(CANCEL_GRACE_S, shield=True):
            await seat.left.wait()
            return
        seat.abandoned = log.bind(kind=self._kind, task_id=execution.task.id, attempt=execution.attempt)
        seat.abandoned.warning(
            "function does not look whether it is cancelled; its thread keeps a slot until it ends",
            grace_s=CANCEL_GRACE_S,
            slots_left=self._seats.available_tokens,
        )

    def _busy(self) -> PeertaskError:
        return PeertaskError(
            f"all {self._seats.total_tokens:.0f} threads of kind {self._kind} are taken",
            code=ErrorCode.BUSY,
            remedy="Let the function call trio.from_thread.check_cancelled() now and then, so that it can be cancelled",
            retry_after_ms=BUSY_RETRY_MS,
        )


class ThreadExecution(Execution):
    """An execution as a thread may use it: what it reports is handed to the event loop, and nothing waits."""

    def __init__(self, execution: Execution) -> None:
        self.task = execution.task
        self.attempt = execution.attempt
        self.holder = execution.holder
        self._execution = execution
        self._loop = trio.lowlevel.current_trio_token()

    @property
    def persona(self) -> Persona | None:
        """Who does the task."""
        return self._execution.persona

    def remaining_ms(self) -> int | None:
        """Return how long the requester still cares."""
        return self._execution.remaining_ms()

    def started(self) -> None:
        """Tell that the execution has begun."""
        self._loop.run_sync_soon(self._execution.started)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the execution is."""
        self._loop.run_sync_soon(self._execution.progress, fraction, message)


class _Seat:
    """One thread's place among the slots.

    trio takes it before the thread begins and gives it back when the thread ends, both on the event loop; also when
    nobody waits for the thread any more.
    """

    def __init__(self, seats: trio.CapacityLimiter) -> None:
        self._seats = seats
        self.taken = False
        self.left = trio.Event()
        self.abandoned: structlog.typing.FilteringBoundLogger | None = None

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._seats.acquire_on_behalf_of(borrower)
        self.taken = True

    def release_on_behalf_of(self, borrower: object) -> None:
        self._seats.release_on_behalf_of(borrower)
        self.left.set()
        if self.abandoned is not None:
            self.abandoned.warning("cancelled function has ended at last; what it returned is dropped")
