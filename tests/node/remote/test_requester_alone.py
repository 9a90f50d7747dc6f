"""The delegate of a requester, with a peer that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from node.executors.remote import MAX_OWED_CANCELS, RemoteDelegate
from node.interfaces import Delegation, Outcome
from node.testing import (
    FakeExecution,
    MemoryHub,
    MemoryNetwork,
    RecordingHandler,
    make_task,
)
from protocol import (
    Accept,
    Cancel,
    ErrorCode,
    Failure,
    Frame,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Reject,
    Result,
    Submit,
    TaskFailed,
    TaskResult,
)
from tests.node.memory_node import MemoryNode
from tests.node.remote.pairs import code_of, say, until


class Delegated(FakeExecution, Delegation):
    """A delegation that remembers how it was finished."""

    def __init__(self, holder: PeerId, **fields: Any) -> None:
        super().__init__(make_task(sender="ann", **fields), holder=holder)
        self.outcomes: list[Outcome] = []

    def finish(self, outcome: Outcome) -> None:
        """Note the outcome."""
        self.outcomes.append(outcome)

    @property
    def code(self) -> ErrorCode:
        """Of the error that it was finished with."""
        (outcome,) = self.outcomes
        assert isinstance(outcome, PeertaskError)
        return outcome.code


class Asking:
    """A delegate, and a peer that says what the test lets it say."""

    def __init__(self, hub: MemoryHub) -> None:
        self.hub = hub
        self.network = MemoryNetwork(hub, "ann")
        self.peer = MemoryNetwork(hub, "ben")
        self.delegate = RemoteDelegate(self.network, lambda _: True)
        self.asked = RecordingHandler()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Asking]:
        """Run both, connected."""
        nobody = RecordingHandler()
        async with (
            self.network.running(nobody, self.delegate, lambda _peer: PeerAdvert()),
            self.peer.running(self.asked, nobody, lambda _peer: PeerAdvert()),
        ):
            await self.network.connect(self.peer.addresses[0])
            yield self

    async def begin(self, **fields: Any) -> Delegated:
        """Hand a task over, and wait until the peer has it."""
        delegation = Delegated(self.peer.peer_id, **fields)
        count = len(self.asked.frames)
        self.delegate.begin(delegation)
        await self.asked.wait_for_frames(count + 1)
        return delegation

    async def answer(self, *frames: Frame) -> None:
        """Let the peer say something, and wait until it has arrived."""
        await say(self.peer, self.network.peer_id, *frames)


@pytest.fixture
async def asking(hub: MemoryHub) -> AsyncIterator[Asking]:
    """A delegate and its peer, connected."""
    async with Asking(hub).running() as asking:
        yield asking


@pytest.mark.parametrize("code", ErrorCode)
async def test_a_refusal_passes_through_with_its_code(
    autojump_clock: MockClock, asking: Asking, code: ErrorCode
) -> None:
    """And its message, who said it, and when to come back."""
    delegation = await asking.begin()
    await asking.answer(Reject(task_id=delegation.task.id, code=code, message="because", retry_after_ms=70))
    (outcome,) = delegation.outcomes
    assert isinstance(outcome, PeertaskError)
    assert (outcome.code, outcome.retry_after_ms) == (code, 70)
    assert "ben" in outcome.message
    assert "because" in outcome.message
    assert delegation.starts == 0


async def test_a_failure_passes_through_as_the_worker_recorded_it(autojump_clock: MockClock, asking: Asking) -> None:
    """A failure of the task is told apart from a failure to ask."""
    delegation = await asking.begin()
    failure = Failure.of(ErrorCode.EXECUTION_FAILED, "no disk")
    await asking.answer(Accept(delegation.task.id), Result(task_id=delegation.task.id, seq=4, failure=failure))
    (outcome,) = delegation.outcomes
    assert isinstance(outcome, TaskFailed)
    assert outcome.failure == failure
    assert delegation.starts == 1


async def test_without_a_session_a_peer_is_unreachable(autojump_clock: MockClock, asking: Asking) -> None:
    """The delegation is over at once, and says who was meant."""
    delegation = Delegated(PeerId("nobody"))
    asking.delegate.begin(delegation)
    assert delegation.code is ErrorCode.PEER_UNREACHABLE


async def test_a_session_that_ends_loses_what_was_under_way_on_it(autojump_clock: MockClock, asking: Asking) -> None:
    """Each with the reason, in words; and only once."""
    delegations = [await asking.begin() for _ in range(3)]
    asking.hub.cut(asking.network.peer_id, asking.peer.peer_id, "somebody tripped")
    for delegation in delegations:
        assert delegation.code is ErrorCode.PEER_LOST
        assert "somebody tripped" in str(delegation.outcomes[0])


async def test_a_cancel_is_owed_to_the_peer_that_was_lost_and_to_no_other(
    autojump_clock: MockClock, asking: Asking
) -> None:
    """That another one has the task now, and answers, settles nothing."""
    task = make_task(sender="ann")
    asking.delegate.abandon(task.id, PeerId("lost"))
    delegation = await asking.begin(id=task.id)
    asking.delegate.abandon(task.id, PeerId("lost too"))
    await asking.answer(Accept(task.id), Result(task_id=task.id, seq=4, result=TaskResult(task.id, "done", 1)))
    assert delegation.outcomes == [TaskResult(task.id, "done", 1)]
    lost = MemoryNetwork(asking.hub, "lost")
    told = RecordingHandler()
    async with lost.running(told, RecordingHandler(), lambda _peer: PeerAdvert()):
        await asking.network.connect(lost.addresses[0])
        await told.wait_for_frames(1)
        assert told.frames == [Cancel(task.id)]


async def test_the_cancels_that_are_owed_are_bounded(autojump_clock: MockClock, asking: Asking) -> None:
    """A node that was cut off for long tells the peer of the latest thousand, once."""
    asking.hub.cut(asking.network.peer_id, asking.peer.peer_id)
    tasks = [make_task().id for _ in range(MAX_OWED_CANCELS + 50)]
    for task_id in tasks:
        asking.delegate.abandon(task_id, asking.peer.peer_id)
    asking.delegate.abandon(make_task().id, PeerId("another peer"))
    for _ in range(2):
        asking.hub.heal(asking.network.peer_id, asking.peer.peer_id)
        await until(lambda: asking.network.channel(asking.peer.peer_id) is not None)
        await wait_all_tasks_blocked()
        asking.hub.cut(asking.network.peer_id, asking.peer.peer_id)
    told = [frame.task_id for frame in asking.asked.frames if isinstance(frame, Cancel)]
    assert len(told) == len(set(told)) <= MAX_OWED_CANCELS
    assert told[-1] == tasks[-1]


async def test_answers_to_tasks_that_were_given_up_are_dropped(autojump_clock: MockClock, asking: Asking) -> None:
    """A frame that nobody waits for, and one that no requester gets, harm nobody."""
    channel = asking.network.channel(asking.peer.peer_id)
    assert channel is not None
    unknown = make_task().id
    for frame in (
        Accept(unknown),
        Result(task_id=unknown, seq=1, failure=Failure.of(ErrorCode.CANCELLED, "")),
        Reject(task_id=unknown, code=ErrorCode.BUSY),
        Submit(make_task()),
    ):
        asking.delegate.received(channel, frame)
    delegation = await asking.begin()
    await asking.answer(Reject(task_id=delegation.task.id, code=ErrorCode.NOT_FOUND))
    assert delegation.code is ErrorCode.NOT_FOUND


async def test_a_peer_that_answers_every_request_with_a_lost_lease_does_not_spin_the_node(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A worker's failure is final whatever its code says: one request, one answer."""
    peer, asked = MemoryNetwork(hub, "mallory"), RecordingHandler()
    ann = MemoryNode(hub, "ann")
    async with ann.running(), peer.running(asked, RecordingHandler(), lambda _peer: PeerAdvert()):
        await ann.network.connect(peer.addresses[0])
        task = make_task(sender="ann")
        ann.manager.submit(task, requester=ann.peer_id, target=peer.peer_id)
        await asked.wait_for_frames(1)
        channel = peer.channel(ann.peer_id)
        assert channel is not None
        channel.send(Accept(task.id))
        channel.send(Result(task_id=task.id, seq=3, failure=Failure.of(ErrorCode.PEER_LOST, "so they say")))
        assert code_of(await ann.wait(task.id)) is ErrorCode.PEER_LOST
        assert len(asked.frames) == 1
