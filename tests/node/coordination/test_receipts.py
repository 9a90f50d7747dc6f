"""Which results carry a receipt, by mode, length and wish."""

# covers COORD-8

import pytest

from node.coordination.receipts import RECEIPT_AFTER_MS, Notary, ReceiptMode, result_of
from protocol import (
    Claimed,
    Completed,
    IllegalTransition,
    PeerId,
    Started,
    Submitted,
    Task,
    TaskRecord,
    TaskResult,
    advance,
    begin,
)

OWN, OTHER = PeerId("own"), PeerId("other")
TASK = Task.new("a prompt", OTHER, timestamp=1)


def notary(mode: ReceiptMode = "auto") -> Notary:
    """A notary whose signature is the same for everything."""
    return Notary(OWN, lambda _: b"signed", lambda peer, _, signature: (peer, signature) == (OWN, b"signed"), mode)


def record(duration_ms: int | None, holder: PeerId = OWN) -> TaskRecord:
    """A task that took so long; None for one that has not ended."""
    found = advance(begin(Submitted(TASK, 1, OTHER)), Claimed(TASK.id, 2, 1, holder, 3))
    if duration_ms is None:
        return found
    found = advance(found, Started(TASK.id, 3, 1))
    return advance(found, Completed(TASK.id, 5_000, 1, TaskResult(TASK.id, "done", duration_ms)))


@pytest.mark.parametrize(
    ("mode", "duration_ms", "asked", "carried"),
    [
        ("auto", RECEIPT_AFTER_MS - 1, False, False),
        ("auto", RECEIPT_AFTER_MS, False, True),
        ("auto", 0, True, True),
        ("always", 0, False, True),
        ("asked", 60_000, False, False),
        ("asked", 0, True, True),
        ("always", None, True, False),
    ],
)
def test_a_result_carries_a_receipt_as_the_mode_says(
    mode: ReceiptMode, duration_ms: int | None, *, asked: bool, carried: bool
) -> None:
    """Long executions pay for it by themselves, and whoever asks gets one."""
    assert (notary(mode).with_result(record(duration_ms), asked=asked) is not None) is carried


def test_only_a_node_that_always_wants_receipts_asks_for_them() -> None:
    """A question costs the worker a signature, however quick the task is."""
    modes: tuple[ReceiptMode, ...] = ("auto", "always", "asked")
    assert [notary(mode).asks for mode in modes] == [False, True, False]


def test_a_receipt_names_this_node_and_the_times_of_the_attempt() -> None:
    """The record alone makes it, so nothing is kept for it."""
    receipt = notary().at_hand(record(150))
    assert receipt is not None
    assert (receipt.executor, receipt.attempt, receipt.started_at, receipt.completed_at) == (OWN, 1, 4_850, 5_000)
    assert notary().faults(receipt, OWN, TASK, TaskResult(TASK.id, "done", 150)) == []
    assert notary().faults(receipt, OTHER, TASK, TaskResult(TASK.id, "done", 150)) != []


def test_nobody_signs_for_what_somebody_else_has_done() -> None:
    """A node that only knows of a result has not seen how it came."""
    assert notary("always").with_result(record(150, OTHER), asked=True) is None
    assert notary().at_hand(record(150, OTHER)) is None


def test_a_task_that_is_not_complete_has_no_receipt() -> None:
    """The error says how it stands."""
    with pytest.raises(IllegalTransition, match="is claimed, and only"):
        result_of(record(None))
