"""Telling the time."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Clock(ABC):
    """Tells the time. Nothing in a node asks the system directly, so a test can own it."""

    @abstractmethod
    def now(self) -> int:
        """Return milliseconds since the epoch; never less than an earlier answer of the same clock."""
