"""Makes receipts and checks them; whoever holds a key signs and verifies for it.

A hash is the SHA-256 of the msgpack of a task or a result as it stands in a Submit or a Result, with the keys of every
map sorted by their code points. A field that has its default is left out there, so that a field that a later version
adds does not change the hash of what does not use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from protocol.codec import canonical_bytes
from protocol.receipt import Receipt
from protocol.result import TaskResult
from protocol.task import PeerId, Task

Sign = Callable[[bytes], bytes]
"""Signs with the key of this node."""

Verify = Callable[[PeerId, bytes, bytes], bool]
"""Tells whether a message (second) has the signature (third) of a peer (first); never raises, whatever it is given."""


def task_hash(task: Task) -> str:
    """Return what stands for a task in a receipt and in an audit log: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(task)).hexdigest()


def result_hash(result: TaskResult) -> str:
    """Return what stands for a result in a receipt and in an audit log: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(result)).hexdigest()


def sign_receipt(
    task: Task, result: TaskResult, *, executor: PeerId, attempt: int, completed_at: int, sign: Sign
) -> Receipt:
    """Make the receipt of a task that is complete; the same again gives the same, because Ed25519 draws nothing.

    Args:
        task: what was asked.
        result: what came of it; says how long it took.
        executor: this node.
        attempt: which attempt it was here.
        completed_at: when, in milliseconds since the epoch.
        sign: signs with the key of `executor`.
    """
    unsigned = Receipt(
        executor=executor,
        task_id=task.id,
        task_hash=task_hash(task),
        result_hash=result_hash(result),
        attempt=attempt,
        started_at=max(0, completed_at - result.duration_ms),
        completed_at=completed_at,
    )
    return replace(unsigned, signature=sign(unsigned.message).hex())


def receipt_faults(
    receipt: Receipt,
    verify: Verify,
    *,
    executor: PeerId | None = None,
    task: Task | None = None,
    result: TaskResult | None = None,
) -> list[str]:
    """Return what does not fit, a sentence each; empty when the receipt proves what it says.

    Args:
        receipt: what is to be checked.
        verify: checks a signature.
        executor: who must have signed it; None for whoever it names.
        task: what must have been asked; None when that is not known.
        result: what must have come of it; None when that is not known.
    """
    return list(_faults(receipt, verify, executor, task, result))


def _faults(
    receipt: Receipt, verify: Verify, executor: PeerId | None, task: Task | None, result: TaskResult | None
) -> Iterator[str]:
    if executor is not None and receipt.executor != executor:
        yield f"it names {receipt.executor} as the executor, and not {executor}"
    if not verify(receipt.executor, receipt.message, bytes.fromhex(receipt.signature)):
        yield f"it is not signed with the key of {receipt.executor}, or was changed after it was signed"
    if task is not None and receipt.task_id != task.id:
        yield f"it is for task {receipt.task_id}, and not for {task.id}"
    elif task is not None and receipt.task_hash != task_hash(task):
        yield "the task that was signed for is another one than this: a field of it differs"
    if result is not None and receipt.task_id != result.task_id:
        yield f"it is for task {receipt.task_id}, and the result belongs to {result.task_id}"
    elif result is not None and receipt.result_hash != result_hash(result):
        yield "the result that was signed is another one than this: its text, its duration or an artifact differs"
