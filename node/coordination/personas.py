"""Who may do a task that names a persona."""

from __future__ import annotations

from collections.abc import Collection


def fits(wanted: str | None, declared: Collection[str] | None) -> bool:
    """Whether a worker may do a task, as far as the persona goes.

    Args:
        wanted: who should do the task; None for anyone.
        declared: whom the worker can act as; None when it does not look at personas, and does what it is given.
    """
    return wanted is None or declared is None or wanted in declared
