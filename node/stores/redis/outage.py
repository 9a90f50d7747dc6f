"""When a server counts as away, and how long to wait before the next try."""

from __future__ import annotations

from typing import Final

import structlog

from node.stores.redis.connection import RedisFailure

log = structlog.get_logger(__name__)

# Before the second try; each further one waits twice as long. A server that is restarted needs some tenths of a second.
FIRST_PAUSE_S: Final = 0.05
# A server that is back is found in this time, and one that is away is not bothered more often.
LONGEST_PAUSE_S: Final = 2.0
_MAX_DOUBLINGS: Final = 10


class Outage:
    """Counts the tries since the server last did what it was asked.

    Args:
        retries: how many failures are tried again before the server counts as away.
        patience_s: how long one may take before it does.

    Attributes:
        failure: why nothing can be saved; None while the server does not count as away.
    """

    def __init__(self, retries: int, patience_s: float) -> None:
        self.failure: RedisFailure | None = None
        self._retries = retries
        self._patience_s = patience_s
        self._failures = 0
        self._since = 0.0

    def begin(self, now_s: float) -> None:
        """Note that the server is asked something."""
        if not self._failures:
            self._since = now_s

    def fail(self, error: RedisFailure, now_s: float, *, for_good: bool = False) -> None:
        """Note that it failed; logs when the server begins to count as away."""
        self._failures += 1
        if self.failure is None:
            if not (for_good or self._failures > self._retries or now_s - self._since >= self._patience_s):
                return
            log.error("nothing can be saved", why=error.message, remedy=error.remedy)
        self.failure = error

    def end(self) -> None:
        """Note that the server did what it was asked; logs when it counted as away."""
        if self.failure is not None:
            log.info("changes are saved again")
            self.failure = None
        self._failures = 0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next try, in seconds."""
        doublings: int = min(max(0, self._failures - 1), _MAX_DOUBLINGS)
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * (1 << doublings))
