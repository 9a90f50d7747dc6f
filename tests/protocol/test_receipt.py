"""Receipts: the bytes that are signed never change, and whatever does not fit is named."""

# covers COORD-8

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from hypothesis import given

from protocol import (
    InvalidTask,
    PeerId,
    Receipt,
    Result,
    Task,
    TaskResult,
    receipt_faults,
    result_hash,
    sign_receipt,
    task_hash,
)
from protocol.codec import canonical_bytes
from tests.protocol import strategies
from tests.protocol.samples import (
    ALICE,
    BOB,
    FAILURE,
    FULL_RESULT,
    FULL_TASK,
    NOON,
    OTHER_ID,
    PLAIN_TASK,
    RECEIPT,
    RESULT,
    TASK_ID,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "receipts.md"
SIGNED = (
    "98b2706565727461736b20726563656970742031d934313244334b6f6f5752617750627850745031655a614a70756d476e79575832446355"
    "7964335251"
    "6e796472336541746f34417a37d92433663163396432652d356237612d346536302d386331642d326139623066346536643731c420ed135a48"
    "c09daf214c05129d856593162b32b7aa38e65ae334a417018ce94f6dc42047593cb424a29183100dcc1bd44a6a3d57907bbcd3c88cafe1253f"
    "3cec0aa32c02cf0000019a823c996dcf0000019a823c99e8"
)


def sign(message: bytes) -> bytes:
    """Stand for a key: anybody could do that, but it depends on every byte."""
    return hashlib.sha512(message).digest()


def verify(peer_id: PeerId, message: bytes, signature: bytes) -> bool:
    """Check what `sign` made."""
    del peer_id
    return signature == sign(message)


def signed(task: Task = PLAIN_TASK, result: TaskResult = RESULT) -> Receipt:
    """Return the receipt of Bob, who needed two attempts."""
    return sign_receipt(task, result, executor=BOB, attempt=2, completed_at=NOON + 1_000, sign=sign)


def test_the_bytes_that_are_signed_never_change() -> None:
    """The receipts of all versions and of all implementations are checked by the same bytes."""
    assert RECEIPT.message.hex() == SIGNED


def test_the_reference_shows_a_receipt_and_its_bytes() -> None:
    """Whoever writes another implementation tries it on them."""
    page = REFERENCE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```json\n(\{\n.*?\n\})\n```$", page, re.DOTALL | re.MULTILINE)
    (signed_bytes,) = re.findall(r"^```\n([0-9a-f\n]+)\n```$", page, re.MULTILINE)
    assert Receipt.from_json(shown) == RECEIPT
    assert signed_bytes.replace("\n", "") == SIGNED


def test_what_is_signed_is_a_list_that_any_msgpack_reads() -> None:
    """The fields stand in their order, the hashes as bytes."""
    tag, executor, task_id, task, result, *numbers = msgpack.unpackb(RECEIPT.message)
    assert (tag, executor, task_id) == ("peertask receipt 1", RECEIPT.executor, TASK_ID)
    assert (task.hex(), result.hex()) == (RECEIPT.task_hash, RECEIPT.result_hash)
    assert numbers == [2, NOON + 877, NOON + 1_000]


def test_the_hashes_of_a_task_and_a_result_never_change() -> None:
    """They stand in receipts and logs that are older than this version; empty fields do not count."""
    assert task_hash(PLAIN_TASK) == "ed135a48c09daf214c05129d856593162b32b7aa38e65ae334a417018ce94f6d"
    assert task_hash(FULL_TASK) == "62ac3786436c0a423cec8ce8adea2c02c083db7d0a33f30d3799d80a06f1a674"
    assert result_hash(RESULT) == "47593cb424a29183100dcc1bd44a6a3d57907bbcd3c88cafe1253f3cec0aa32c"
    assert result_hash(FULL_RESULT) == "91979ade73d73430d9cd99c3f116aff5e6909c7c01e2d07b94a6825ca59105c3"


@given(strategies.tasks)
def test_a_task_has_one_hash_in_whatever_order_its_keys_come(task: Task) -> None:
    """JSON objects have no order, so a store or a client may change it."""
    turned = replace(task, params=dict(reversed(task.params.items())), metadata=dict(reversed(task.metadata.items())))
    assert task_hash(turned) == task_hash(task)
    assert Task.from_dict(msgpack.unpackb(canonical_bytes(task))) == task


def test_a_receipt_says_when_the_attempt_began() -> None:
    """Its length is that of the result; a clock that was set back does not lead before the epoch."""
    assert (signed().started_at, signed().completed_at) == (NOON + 877, NOON + 1_000)
    early = sign_receipt(PLAIN_TASK, RESULT, executor=BOB, attempt=1, completed_at=5, sign=sign)
    assert early.started_at == 0


def test_a_receipt_that_fits_has_no_faults() -> None:
    """Nothing is wrong with what was signed, whether or not one has the task and the result."""
    assert receipt_faults(signed(), verify) == []
    assert receipt_faults(signed(), verify, executor=BOB, task=PLAIN_TASK, result=RESULT) == []


CHANGED = {
    "executor": ALICE,
    "task_id": OTHER_ID,
    "task_hash": "0" * 64,
    "result_hash": "0" * 64,
    "attempt": 3,
    "started_at": NOON,
    "completed_at": NOON,
    "signature": "00" * 64,
}


@pytest.mark.parametrize("field", CHANGED)
def test_a_receipt_with_a_changed_field_is_not_signed(field: str) -> None:
    """Every field is covered by the signature."""
    (fault,) = receipt_faults(replace(signed(), **{field: CHANGED[field]}), verify)  # type: ignore[arg-type]
    assert "is not signed" in fault


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"executor": ALICE}, "and not"),
        ({"task": replace(PLAIN_TASK, id=OTHER_ID)}, "and not for"),
        ({"task": replace(PLAIN_TASK, prompt="Bye")}, "another one than this: a field"),
        ({"result": replace(RESULT, task_id=OTHER_ID)}, "the result belongs to"),
        ({"result": replace(RESULT, result="no")}, "another one than this: its text"),
        ({"result": replace(RESULT, duration_ms=1)}, "its duration"),
    ],
)
def test_what_does_not_belong_to_a_receipt_is_named(others: dict[str, object], words: str) -> None:
    """A receipt of something else proves nothing about this."""
    (fault,) = receipt_faults(signed(), verify, **others)  # type: ignore[arg-type]
    assert words in fault


@given(strategies.receipts)
def test_a_receipt_survives_its_json(receipt: Receipt) -> None:
    """It is read back from a file as it was written."""
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert Receipt.from_dict(receipt.to_dict()) == receipt


@pytest.mark.parametrize(
    ("field", "value"),
    [("task_hash", "0" * 63), ("signature", "0"), ("attempt", 0), ("completed_at", -1), ("executor", "")],
)
def test_a_malformed_receipt_is_refused_by_its_field(field: str, value: object) -> None:
    """What cannot be a receipt does not get as far as the signature."""
    with pytest.raises(InvalidTask, match=field):
        Receipt.from_dict({**RECEIPT.to_dict(), field: value})
    with pytest.raises(InvalidTask, match="JSON"):
        Receipt.from_json("{")


def test_a_failure_has_no_receipt() -> None:
    """Nobody signs for what did not come."""
    with pytest.raises(ValueError, match="no receipt"):
        Result(task_id=TASK_ID, seq=1, failure=FAILURE, receipt=RECEIPT)
