"""Time that costs nothing: it stands still while anything can run, and then jumps to whatever is due next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import trio

from node.interfaces import Clock
from node.testing.clocks import START_MS

# So often does the loop look at the clock in a busy hour; at one moment it means that something spins.
MAX_LOOKS_AT_A_MOMENT = 1_000_000


class Timeline:
    """What is going to happen, in the order of time; things of one moment in the order in which they were planned.

    They happen in `run`, when no other task can do anything at that moment.
    """

    def __init__(self) -> None:
        self._plan: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._runner: trio.lowlevel.Task | None = None

    @property
    def next(self) -> float:
        """When the next thing happens, in seconds since the beginning; infinity for never."""
        return self._plan[0][0] if self._plan and self._runner is not None else float("inf")

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Call `action` at a time, in seconds since the beginning; one that has passed means soon."""
        heapq.heappush(self._plan, (time, next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Call `action` when so many seconds have gone by."""
        self.at(trio.current_time() + seconds, action)

    async def run(self) -> None:
        """Let it happen, until cancelled; under a `VirtualClock` only."""
        while True:
            self._runner = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
            while self._plan and self._plan[0][0] <= trio.current_time():
                heapq.heappop(self._plan)[2]()

    def wake(self) -> None:
        """Let happen what is due; the clock calls this when it has come to `next`."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            trio.lowlevel.reschedule(runner)

    def _leave(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._runner = None
        return trio.lowlevel.Abort.SUCCEEDED


class VirtualClock(trio.abc.Clock):
    """A clock for `trio.run` that jumps to whatever is due next as soon as no task can run.

    What waits for anything else than this clock (a thread, a socket) does not hold it up. `trio.testing.MockClock` with
    an autojump threshold of 0 does the same for deadlines, at several times the cost.

    Args:
        timeline: what else is due, beside the deadlines of trio.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._now = 0.0
        self._looks = 0

    def start_clock(self) -> None:
        """Begin at 0."""

    def current_time(self) -> float:
        """Return the seconds since the beginning.

        Raises:
            RuntimeError: time stands still, because something runs without ever waiting.
        """
        self._looks += 1
        if self._looks > MAX_LOOKS_AT_A_MOMENT:
            self._looks = 0
            raise RuntimeError(f"time stands still at {self._now:.3f} s: something runs again and again without a wait")
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Jump to what is due next; trio asks when nothing can run."""
        due = min(deadline, self._timeline.next)
        if due == float("inf"):
            return due
        self._looks = 0
        self._now = max(self._now, due)
        if self._timeline.next <= self._now:
            self._timeline.wake()
        return 0.0


class NodeClock(Clock):
    """What a node takes for the time: wrong by an offset, and fast or slow.

    Args:
        offset_ms: how far it was ahead at the beginning.
        rate: how much it says has gone by when a second has.
    """

    def __init__(self, offset_ms: int = 0, rate: float = 1.0) -> None:
        self._start_ms = START_MS + offset_ms
        self._rate = rate * 1000

    def jump(self, ms: int) -> None:
        """Be so much further ahead from now on, as when somebody sets a clock; less than 0 sets it back."""
        self._start_ms += ms

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return self._start_ms + int(trio.current_time() * self._rate)
