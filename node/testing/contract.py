"""How a contract checker says that a promise is broken."""

from __future__ import annotations


class ContractViolation(AssertionError):
    """An implementation breaks a promise of its contract in `node.interfaces`; the message names the promise."""


def promise(kept: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence: promise(x == y, "...")
    """Insist on a promise.

    Raises:
        ContractViolation: it is not kept.
    """
    if not kept:
        raise ContractViolation(text)
