"""The chain of entries: each line holds the hash of the line before it, so none can change without all that follow.

A line is one JSON object::

    {"n":12,"at":1795834432816,"prev":"5f0c…","fact":"Claimed","task_id":"…","seq":2,"attempt":1,…}

`n` numbers the entries from 1 without a gap, over all files; `at` is in milliseconds since the epoch; `prev` is the
SHA-256 of the line before, without its end, and 64 zeros in the first. The name of the fact and its fields follow.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, NamedTuple, Self

from protocol import PeerId, Sign, Verify

FIRST_PREV: Final = "0" * 64
SEAL_TAG: Final = "peertask audit seal 1"
HEAD_TAG: Final = "peertask audit head 1"
SEALED: Final = "Sealed"
PRUNED: Final = "Pruned"
GAP: Final = "Gap"
_RESERVED: Final = frozenset({"n", "at", "prev", "fact"})

to_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


class Head(NamedTuple):
    """The last entry of a log: its number, and the hash of its line."""

    number: int = 0
    digest: str = FIRST_PREV

    def link(self, at: int, body: str) -> tuple[bytes, Head]:
        """Return the line of the next entry, with its end, and the head after it.

        Args:
            at: when it happened, in milliseconds since the epoch.
            body: ``"fact":…`` and the fields, as they stand in the object.
        """
        line = f'{{"n":{self.number + 1},"at":{at},"prev":"{self.digest}",{body}}}'.encode()
        return line + b"\n", Head(self.number + 1, digest_of(line))


class SignedHead(NamedTuple):
    """The head of a log with the signature of its node; kept beside the log, it shows when the end is cut off."""

    head: Head
    node: PeerId
    signature: str

    @classmethod
    def of(cls, head: Head, node: PeerId, sign: Sign) -> Self:
        """Sign a head."""
        return cls(head, node, sign(_signed(HEAD_TAG, node, head)).hex())

    def to_json(self) -> bytes:
        """Return it as it is kept in its file."""
        head = {"n": self.head.number, "digest": self.head.digest}
        return (to_json({**head, "node": self.node, "signature": self.signature}) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what `to_json` gave; raises ValueError, KeyError or TypeError when it is something else."""
        shape = json.loads(text)
        return cls(Head(int(shape["n"]), str(shape["digest"])), PeerId(shape["node"]), str(shape["signature"]))

    def is_signed(self, verify: Verify) -> bool:
        """Whether its node has signed it."""
        return _is_signed(verify, self.node, HEAD_TAG, self.head, self.signature)


def seal_body(head: Head, node: PeerId, sign: Sign) -> str:
    """Return the body of an entry by which a node signs everything before it."""
    return body_of(SEALED, {"node": node, "signature": sign(_signed(SEAL_TAG, node, head)).hex()})


def is_seal_signed(verify: Verify, node: PeerId, head: Head, signature: str) -> bool:
    """Whether a node has signed everything up to a head."""
    return _is_signed(verify, node, SEAL_TAG, head, signature)


def body_of(fact: str, fields: dict[str, Any]) -> str:
    """Return the body of an entry.

    Raises:
        ValueError: a field has a name that every entry has, or a value that JSON cannot carry.
        TypeError: likewise.
    """
    if not _RESERVED.isdisjoint(fields):
        raise ValueError(f"every entry has the fields {', '.join(sorted(_RESERVED))} already")
    return to_json({"fact": fact, **fields})[1:-1]


def digest_of(line: bytes) -> str:
    """Return the hash of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def _signed(tag: str, node: PeerId, head: Head) -> bytes:
    return "\n".join((tag, node, str(head.number), head.digest)).encode()


def _is_signed(verify: Verify, node: PeerId, tag: str, head: Head, signature: str) -> bool:
    try:
        return verify(node, _signed(tag, node, head), bytes.fromhex(signature))
    except ValueError:  # no hexadecimal digits
        return False
