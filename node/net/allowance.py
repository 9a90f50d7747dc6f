"""How much one peer may ask for in a time. Pure; the clock is a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Rate(NamedTuple):
    """A rate with room for bursts.

    Attributes:
        per_second: in the long run.
        burst: at once, after a quiet time.
    """

    per_second: float
    burst: int


@dataclass(slots=True)
class _Account:
    left: float
    counted_at: float


class Allowances:
    """What each of many peers may still ask for.

    Remembers those only that have not got back all that they used.

    Args:
        rate: what each may have.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._accounts: dict[str, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def take(self, who: str, wanted: int, now: float) -> int:
        """Take up to so many, and return how many there were; `now` is in seconds."""
        account = self._accounts.setdefault(who, _Account(self._rate.burst, now))
        self._refill(account, now)
        granted = min(wanted, int(account.left))
        account.left -= granted
        return granted

    def forget_idle(self, now: float) -> None:
        """Drop what is kept for those who have all of it back."""
        for who, account in list(self._accounts.items()):
            self._refill(account, now)
            if account.left >= self._rate.burst:
                del self._accounts[who]

    def _refill(self, account: _Account, now: float) -> None:
        earned = (now - account.counted_at) * self._rate.per_second
        account.left = min(self._rate.burst, account.left + earned)
        account.counted_at = now
