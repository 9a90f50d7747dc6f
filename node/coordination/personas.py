"""Who may do a task that names a persona.

A worker gets the tasks that name a persona that it has declared, and those that name none; one that declares none gets
only these. So it is for this node, for peers and for agents alike. The one exception is a node that its operator told
not to coordinate: it does what it is given.
"""

from __future__ import annotations

from collections.abc import Collection

from protocol import ErrorCode, InvalidTask, TaskRejected


def fits(wanted: str | None, declared: Collection[str] | None) -> bool:
    """Whether a worker may do a task, as far as the persona goes.

    Args:
        wanted: who should do the task; None for anyone.
        declared: whom the worker can act as; None for a node that does not coordinate, and does what it is given.
    """
    return wanted is None or declared is None or wanted in declared


def declared_by(persona: str | None) -> frozenset[str]:
    """Return whom a worker can act as that declares one persona, or none."""
    return frozenset() if persona is None else frozenset({persona})


def check_known(wanted: str, known: Collection[str]) -> None:
    """Refuse a persona that is not among those that are known: its task would wait for ever.

    Raises:
        InvalidTask: names them.
    """
    if wanted not in known:
        raise InvalidTask(
            f"field persona: nobody here has heard of {wanted!r}",
            remedy=f"The personas that are known: {', '.join(sorted(known))}",
        )


def check_declared(wanted: str, declared: Collection[str]) -> None:
    """Refuse a task for a persona that this node does not act as.

    Raises:
        TaskRejected: code NO_EXECUTOR; names those that it acts as.
    """
    if wanted not in declared:
        raise TaskRejected(
            f"this node does not act as persona {wanted!r}",
            code=ErrorCode.NO_EXECUTOR,
            remedy=f"It acts as: {', '.join(sorted(declared)) or 'none'}; its operator can add one with --persona",
        )
