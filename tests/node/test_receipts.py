"""Receipts between nodes: they come with the result or when they are asked for, and a wrong one proves nothing."""

# covers COORD-8

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from node.coordination.receipts import RECEIPT_AFTER_MS, Notary, ReceiptMode
from node.executors.receipts import request_receipt
from node.interfaces import Execution, Executor, Output
from node.testing import MemoryHub
from protocol import ErrorCode, PeerId, PeertaskError, Receipt, TaskRecord, TaskResult, TaskStatus
from tests.node.memory_node import MemoryNode


class Slow(Executor):
    """Takes as long as pays for a receipt."""

    kind = "slow"
    slots = 8
    safe = True

    async def execute(self, execution: Execution) -> Output:
        """Sleep, and say so."""
        del execution
        await trio.sleep(RECEIPT_AFTER_MS / 1000 + 0.01)
        return Output("rested")


def sign_as(peer_id: PeerId, message: bytes) -> bytes:
    """Stand for the key of a peer whose id is a name."""
    return hashlib.sha512(peer_id.encode() + message).digest()


def verify(peer_id: PeerId, message: bytes, signature: bytes) -> bool:
    """Check what `sign_as` made."""
    return signature == sign_as(peer_id, message)


class SigningNode(MemoryNode):
    """A node that knows receipts, unless it has no mode."""

    def __init__(self, hub: MemoryHub, name: str, mode: ReceiptMode | None, *executors: Executor) -> None:
        self.mode = mode
        self.forges = False
        self.notary: Notary | None = None
        super().__init__(hub, name, executors)

    def make_notary(self) -> Notary | None:
        """Return one that signs with the name of this node."""
        if self.mode is not None:
            self.notary = Notary(self.peer_id, self.sign, verify, self.mode)
        return self.notary

    def sign(self, message: bytes) -> bytes:
        """Sign, or not."""
        return b"no signature" if self.forges else sign_as(self.peer_id, message)


@asynccontextmanager
async def pair(
    hub: MemoryHub, asking: ReceiptMode | None = "auto", working: ReceiptMode | None = "auto"
) -> AsyncIterator[tuple[SigningNode, SigningNode]]:
    """A requester and a worker, connected."""
    ann, ben = SigningNode(hub, "ann", asking), SigningNode(hub, "ben", working, Slow())
    async with ann.running(), ben.running():
        await ann.connect(ben)
        yield ann, ben


@pytest.mark.parametrize(
    ("asking", "working", "kind", "comes"),
    [
        ("auto", "auto", "echo", False),
        ("auto", "auto", "slow", True),
        ("auto", "asked", "slow", False),
        ("auto", "always", "echo", True),
        ("always", "asked", "echo", True),
        ("always", None, "echo", False),
        (None, "always", "echo", False),
    ],
)
async def test_a_receipt_comes_with_the_result_as_both_sides_want_it(
    autojump_clock: MockClock,
    hub: MemoryHub,
    asking: ReceiptMode | None,
    working: ReceiptMode | None,
    kind: str,
    *,
    comes: bool,
) -> None:
    """Either side may insist; one that knows no receipts works with one that does."""
    async with pair(hub, asking, working) as (ann, ben):
        record = await ann.run(to=ben, kind=kind)
        assert record.status is TaskStatus.COMPLETE
        assert (record.receipt is not None) is comes
        if record.receipt is not None:
            assert record.receipt.executor == ben.peer_id


async def test_the_receipt_of_a_quick_task_is_had_for_the_asking(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """It fits the task and the result that the requester has, and is the same each time."""
    async with pair(hub) as (ann, ben):
        record = await ann.run(to=ben)
        receipt = await request_receipt(ann.remote, record)
        assert ann.notary is not None
        assert ann.notary.faults(receipt, ben.peer_id, record.task, result_in(record)) == []
        assert await request_receipt(ann.remote, record) == receipt


def result_in(record: TaskRecord) -> TaskResult:
    """Return the result that a record must have."""
    assert record.result is not None
    return record.result


async def test_a_forged_receipt_is_dropped_and_the_result_kept(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The session says whose the result is; the receipt would have said so to others."""
    async with pair(hub, working="always") as (ann, ben):
        ben.forges = True
        with capture_logs() as logs:
            record = await ann.run(to=ben)
        assert (record.status, record.receipt) == (TaskStatus.COMPLETE, None)
        assert "receipt dropped" in [entry["event"] for entry in logs]
        assert await refusal(ann, record) is ErrorCode.PROTOCOL


async def test_a_worker_that_has_another_result_is_found_out(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """What it signs now must be what it answered then."""
    async with pair(hub) as (ann, ben):
        record = await ann.run(to=ben)
        record.result = replace(result_in(record), result="something else")
        assert await refusal(ann, record) is ErrorCode.PROTOCOL


async def test_why_there_is_no_receipt_is_told(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A task that goes on, a holder that has forgotten it, one that knows no receipts, and one that is away."""
    async with pair(hub, working=None) as (ann, ben):
        running = ann.submit(to=ben, kind="slow")
        assert await refusal(ann, ann.manager.latest(running)) is ErrorCode.ILLEGAL_TRANSITION
        record = await ann.run(to=ben)
        assert await refusal(ann, record) is ErrorCode.PROTOCOL
        ben.manager._forget([record.id])  # noqa: SLF001 - as after a day
        assert await refusal(ann, record) is ErrorCode.NOT_FOUND
        await ann.network.disconnect(ben.peer_id)
        assert await refusal(ann, record) is ErrorCode.PEER_UNREACHABLE


async def test_two_that_ask_at_once_are_told_apart(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A conversation has room for one question about a task."""
    async with pair(hub) as (ann, ben):
        record = await ann.run(to=ben)
        answers: list[ErrorCode | Receipt] = []

        async def ask() -> None:
            try:
                answers.append(await request_receipt(ann.remote, record))
            except PeertaskError as error:
                answers.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert ErrorCode.BUSY in answers
        (receipt,) = (answer for answer in answers if isinstance(answer, Receipt))
        assert verify(ben.peer_id, receipt.message, bytes.fromhex(receipt.signature))


async def test_a_frozen_holder_is_not_waited_for(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The question has an end; as long as its answer may come, it is not asked again."""
    async with pair(hub) as (ann, ben):
        record = await ann.run(to=ben)
        ben.gateway.received = lambda *_: None  # type: ignore[method-assign]
        assert await refusal(ann, record) is ErrorCode.TIMEOUT
        assert await refusal(ann, record) is ErrorCode.BUSY


async def refusal(node: MemoryNode, record: TaskRecord) -> ErrorCode:
    """Return why a node gets no receipt."""
    with pytest.raises(PeertaskError) as caught:
        await request_receipt(node.remote, record)
    return caught.value.code
