"""The time of a node: it starts at the wall clock and then runs by itself."""

from __future__ import annotations

import time

from node.interfaces import Clock

_NS_PER_MS = 1_000_000


class SystemClock(Clock):
    """Takes the wall clock once, when it is made, and goes on with the monotonic clock from there.

    So nothing that moves the wall clock (NTP, a person, daylight saving) makes a lease lapse or a fact come before its
    cause. The price: it does not follow a correction, and on most systems it does not count the time that the machine
    was suspended.
    """

    __slots__ = ("_epoch_ns",)

    def __init__(self) -> None:
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """Return milliseconds since the epoch."""
        return (self._epoch_ns + time.monotonic_ns()) // _NS_PER_MS
