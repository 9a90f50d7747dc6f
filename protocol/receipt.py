"""A receipt: what an executor signs about a task that it completed, so that anybody can check it, without asking.

What is signed is the msgpack of a list of eight values, always in this order and each in its shortest form::

    ["peertask receipt 1", executor, task_id, task_hash, result_hash, attempt, started_at, completed_at]

The first three are text, the hashes are 32 bytes each (msgpack's *bin*), and the rest are integers. How the hashes are
made stands in `protocol.signing`. The peer id of an Ed25519 key holds the key, so nothing but the receipt is needed to
check its signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

import msgpack
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocol.errors import InvalidTask
from protocol.json_value import JsonObject
from protocol.task import MAX_INT64, Milliseconds, PeerIdField, TaskIdField, describe_invalid

RECEIPT_TAG: Final = "peertask receipt 1"
"""Stands first in what is signed, so that the signature can be taken for nothing else that the key ever signs."""

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
# An Ed25519 signature has 64 bytes; other keys of libp2p sign with up to 512.
Signature = Annotated[str, Field(pattern="^([0-9a-f]{2}){0,512}$", strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An executor's signed word that it completed a task, with a result.

    Attributes:
        executor: who signed it.
        task_id: which task.
        task_hash: `task_hash` of the task, 64 hexadecimal digits.
        result_hash: `result_hash` of the result, likewise.
        attempt: which attempt it was at the executor, from 1; a requester that asked others before counts more.
        started_at: when the attempt began, in milliseconds since the epoch, on the clock of the executor.
        completed_at: when it was complete.
        signature: over `message`, in hexadecimal digits; empty while it is not signed.
    """

    executor: PeerIdField
    task_id: TaskIdField
    task_hash: Hash
    result_hash: Hash
    attempt: Annotated[int, Field(ge=1, le=MAX_INT64, strict=True)]
    started_at: Milliseconds
    completed_at: Milliseconds
    signature: Signature = ""

    @property
    def message(self) -> bytes:
        """What is signed."""
        hashes = (bytes.fromhex(self.task_hash), bytes.fromhex(self.result_hash))
        times = (self.attempt, self.started_at, self.completed_at)
        message: bytes = msgpack.packb([RECEIPT_TAG, self.executor, self.task_id, *hashes, *times])
        return message

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check the shape of a receipt, not its signature; raises `InvalidTask` naming the field."""
        try:
            return _RECEIPT.validate_python(data)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a receipt from JSON text; raises `InvalidTask` naming the field."""
        try:
            return _RECEIPT.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    def to_dict(self) -> JsonObject:
        """Return the JSON shape."""
        return _RECEIPT.dump_python(self, mode="json")  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Return the compact JSON text."""
        return _RECEIPT.dump_json(self).decode()


_RECEIPT: TypeAdapter[Receipt] = TypeAdapter(Receipt)
