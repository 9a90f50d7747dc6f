"""Decides which results carry a receipt, and makes and checks them with the keys of peers."""

from __future__ import annotations

from typing import Final, Literal

from protocol import (
    IllegalTransition,
    PeerId,
    Receipt,
    Sign,
    Task,
    TaskRecord,
    TaskResult,
    Verify,
    receipt_faults,
    sign_receipt,
)

# To make a receipt takes some 45 us and to check one 110 us: a six-hundredth of an execution of this length, and more
# than all the rest of a no-op.
RECEIPT_AFTER_MS: Final = 100

ReceiptMode = Literal["auto", "always", "asked"]
"""When a result carries a receipt: when its execution took `RECEIPT_AFTER_MS` or somebody asked, always, or only when
somebody asked."""


class Notary:
    """Makes the receipts of what this node completes, and checks those of others.

    Args:
        own_id: this node.
        sign: signs with its key.
        verify: checks the signature of any peer.
        mode: which results carry a receipt.

    Attributes:
        own_id: the same.
        asks: whether this node asks for a receipt with each result.
    """

    def __init__(self, own_id: PeerId, sign: Sign, verify: Verify, mode: ReceiptMode = "auto") -> None:
        self.own_id = own_id
        self.asks = mode == "always"
        self._sign = sign
        self._verify = verify
        self._after_ms = {"auto": RECEIPT_AFTER_MS, "always": 0, "asked": None}[mode]

    def with_result(self, record: TaskRecord, *, asked: bool) -> Receipt | None:
        """Return the receipt that goes with the outcome of a task, which this node carried out; None for none."""
        result = record.result
        if result is None or not (asked or (self._after_ms is not None and result.duration_ms >= self._after_ms)):
            return None
        return self.at_hand(record)

    def at_hand(self, record: TaskRecord) -> Receipt | None:
        """Return the receipt of a complete task, the same each time; None when somebody else carried it out.

        Raises:
            IllegalTransition: the task is not complete.
        """
        result = result_of(record)
        if record.holder != self.own_id:
            return None
        return sign_receipt(
            record.task,
            result,
            executor=self.own_id,
            attempt=record.attempt,
            completed_at=record.updated_at,
            sign=self._sign,
        )

    def faults(self, receipt: Receipt, executor: PeerId, task: Task, result: TaskResult) -> list[str]:
        """Return what does not fit in a receipt that came with a result; empty when it proves the result."""
        return receipt_faults(receipt, self._verify, executor=executor, task=task, result=result)


def result_of(record: TaskRecord) -> TaskResult:
    """Return the result of a task that is complete.

    Raises:
        IllegalTransition: the task is not complete.
    """
    if record.result is None:
        raise IllegalTransition(
            f"task {record.id} is {record.status}, and only a task that is complete has a receipt",
            remedy="Wait for its result" if not record.terminal else "",
        )
    return record.result
