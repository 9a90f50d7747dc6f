"""The times at which attempts of others are ended, whatever those who have them do."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from node.dispatcher.attempt import Attempt

# Limits of attempts that have ended are swept out when they outnumber those that run by so many.
SWEEP_SLACK = 64


class TimeLimits:
    """Limits of attempts that run, the earliest first; an attempt may have several."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Attempt]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, attempt: Attempt, at: int, *, running: int) -> None:
        """Set a limit.

        Args:
            attempt: what is to end.
            at: when, in milliseconds since the epoch.
            running: how many attempts run now.
        """
        if len(self._heap) > 2 * running + SWEEP_SLACK:
            self._heap = [limit for limit in self._heap if not limit[2].over]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (at, next(self._numbers), attempt))

    def overdue(self, now: int) -> Iterator[Attempt]:
        """Yield the attempts whose limit has passed and that still run, and drop their limits."""
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].over):
            _, _, attempt = heapq.heappop(self._heap)
            if not attempt.over:
                yield attempt

    @property
    def next_at(self) -> int | None:
        """When the next limit passes, in milliseconds since the epoch; None when there is none."""
        return self._heap[0][0] if self._heap else None
