"""Asks the peer that carried a task out for its receipt."""

from __future__ import annotations

import trio

from node.coordination.receipts import result_of
from node.executors.remote import RemoteDelegate
from node.interfaces import Delegation, Outcome, Receipted
from protocol import ErrorCode, PeerId, PeertaskError, Receipt, Task, TaskRecord

# A peer answers from memory; it is frozen, or busy beyond use, when that takes longer.
ANSWER_S = 10.0


async def request_receipt(remote: RemoteDelegate, record: TaskRecord, task: Task | None = None) -> Receipt:
    """Ask the holder of a task that is complete for its receipt, and return it when it fits the task and the result.

    Args:
        remote: the way to the holder.
        record: of the task.
        task: as the holder got it, when that is not as it was submitted.

    Raises:
        IllegalTransition: the task is not complete.
        PeertaskError: PEER_UNREACHABLE, when there is no session with the holder; NOT_FOUND, when it has forgotten the
            task; BUSY, when somebody else is asking; PROTOCOL, when what it answers does not fit; TIMEOUT.
    """
    result = result_of(record)
    request = _Request(record, task or record.task)
    with trio.move_on_after(ANSWER_S):
        remote.attach(request)
        await request.answered.wait()
    if request.outcome is None:
        remote.forget(request)
        raise PeertaskError(
            f"peer {record.holder} has not sent the receipt of task {record.id} within {ANSWER_S:g} s",
            code=ErrorCode.TIMEOUT,
        )
    outcome = request.outcome
    if isinstance(outcome, PeertaskError):
        raise outcome
    if not isinstance(outcome, Receipted) or outcome.result != result:
        raise PeertaskError(
            f"peer {record.holder} gives no valid receipt for the result of task {record.id} that this node has",
            code=ErrorCode.PROTOCOL,
            remedy="It may run a version without receipts, or does not stand by its result; this node's log says more",
        )
    return outcome.receipt


class _Request(Delegation):
    """Stands for a task that is complete, as long as its receipt is asked for."""

    __slots__ = ("answered", "attempt", "holder", "outcome", "task")

    def __init__(self, record: TaskRecord, task: Task) -> None:
        self.task = task
        self.attempt = record.attempt
        self.holder = record.holder or PeerId("")
        self.answered = trio.Event()
        self.outcome: Outcome | None = None

    def remaining_ms(self) -> None:
        """Return None: the task is over."""

    def started(self) -> None:
        """Nothing begins."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Nothing gets on."""

    def finish(self, outcome: Outcome) -> None:
        """Take what the peer answers."""
        self.outcome = outcome
        self.answered.set()
