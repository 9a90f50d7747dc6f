"""Clocks for tests: one that stands still until it is told to go on, and one that follows trio's."""

from __future__ import annotations

import trio

from node.interfaces import Clock

# Any moment will do; this one is easy to recognise in a failure.
START_MS = 1_800_000_000_000


class FakeClock(Clock):
    """Stands still until `advance`.

    Args:
        start_ms: what it says at first, in milliseconds since the epoch.
    """

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now = start_ms

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return self._now

    def advance(self, ms: int) -> None:
        """Go on by so many milliseconds.

        Raises:
            ValueError: `ms` is negative; no clock of a node goes back.
        """
        if ms < 0:
            raise ValueError(f"a clock never goes back, but it was told to go on by {ms} ms")
        self._now += ms


class TrioClock(Clock):
    """Goes with the clock of the trio run that it is used in.

    Under `trio.testing.MockClock` the node's time and its sleeps are one then, and waiting costs nothing.

    Args:
        start_ms: what it says when trio's clock says 0, in milliseconds since the epoch.
    """

    def __init__(self, start_ms: int = START_MS) -> None:
        self._start_ms = start_ms

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return self._start_ms + int(trio.current_time() * 1000)
