"""Nodes that ask for work over a session that they opened, and tasks that move on from who would not have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.coordination.explain import Verdict
from node.coordination.hindrances import Wait
from node.coordination.retries import REFUSED_RETRY_MS
from node.testing import (
    Hang,
    MemoryHub,
    MemoryNetwork,
    Raise,
    RecordingHandler,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import Decline, ErrorCode, Offer, PeerAdvert, PeerId, PeertaskError, TaskId, TaskRecord, TaskStatus
from tests.node.memory_node import MemoryNode

OWNER = PeerId("owner")


class Pulling:
    """An owner of tasks, and a worker that dials it and asks for some; nobody dials the worker."""

    def __init__(self, hub: MemoryHub, slots: int) -> None:
        self.executor = ScriptedExecutor()
        self.owner = MemoryNode(hub, OWNER)
        self.worker = MemoryNode(hub, "worker", [self.executor])
        self.worker.work_for(OWNER, slots)

    def submit(self, prompt: str = "a prompt", **fields: Any) -> TaskId:
        """Let the owner have a task that names nobody."""
        return self.owner.submit(prompt, **{"kind": "scripted", **fields})


@asynccontextmanager
async def pulling_on(
    hub: MemoryHub, *, slots: int = 1, trusts: Callable[[PeerId], bool] = lambda _: True
) -> AsyncIterator[Pulling]:
    """Both run, connected by the worker."""
    pulling = Pulling(hub, slots)
    pulling.owner.trusts = trusts
    async with pulling.owner.running(), pulling.worker.running():
        await pulling.worker.connect(pulling.owner)
        await wait_all_tasks_blocked()
        yield pulling


def verdicts(node: MemoryNode, task_id: TaskId) -> dict[PeerId, Verdict]:
    """What the node says of who could do a task."""
    explanation = node.dispatcher.explain(node.manager.get_task(task_id), ())
    return {candidate.peer_id: candidate.verdict for candidate in explanation.candidates}


def wait_of(node: MemoryNode, task_id: TaskId) -> Wait:
    """What a task waits for."""
    (reason,) = node.dispatcher.explain(node.manager.get_task(task_id), ()).waits_for
    return reason.wait


# --- work over a session that the worker opened ----------------------------------------------------------------------


async def test_a_node_that_nobody_dials_does_the_tasks_of_the_one_it_works_for(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """They come over the session that it opened, and the result goes back over it."""
    async with pulling_on(hub) as pulling:
        record = await pulling.owner.run(kind="scripted")
        assert (record.status, record.holder) == (TaskStatus.COMPLETE, pulling.worker.peer_id)


async def test_the_owner_never_gives_more_than_was_offered(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Two slots and ten tasks: two are there at a time, and the others wait at the owner."""
    async with pulling_on(hub, slots=2) as pulling:
        goes_on = trio.Event()
        for _ in range(10):
            pulling.executor.then((Until(goes_on), Return("done")))
        tasks = [pulling.submit(f"prompt {number}") for number in range(10)]
        await pulling.executor.wait_until_begun(2)
        await wait_all_tasks_blocked()
        assert len(pulling.worker.tasks_of(pulling.owner)) == 2
        assert wait_of(pulling.owner, tasks[-1]) is Wait.SLOT
        goes_on.set()
        records = [await pulling.owner.wait(task_id) for task_id in tasks]
        assert {record.status for record in records} == {TaskStatus.COMPLETE}
        assert max(record.attempt for record in records) == 1


async def test_a_stranger_that_offers_itself_is_declined_in_words_and_gets_nothing(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The words say what the operator can do; the session goes on."""
    async with pulling_on(hub, trusts=lambda _: False) as pulling:
        task_id = pulling.submit()
        offering = pulling.worker.offering
        assert offering is not None
        await offering.declined()
        assert offering.refusal is not None
        assert offering.refusal.code is ErrorCode.FORBIDDEN
        assert "peertask node --worker worker" in str(offering.refusal)
        await trio.sleep(60)
        assert not pulling.executor.seen
        assert verdicts(pulling.owner, task_id)[pulling.worker.peer_id] is Verdict.NOT_TRUSTED
        assert pulling.owner.network.channel(pulling.worker.peer_id) is not None


async def test_a_worker_offers_itself_again_after_a_lost_session_and_goes_on_with_what_it_had(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The task is attached to by its UUID: it runs once, and its slot counts."""
    async with pulling_on(hub) as pulling:
        goes_on = trio.Event()
        pulling.executor.then((Until(goes_on), Return("done")))
        task_id = pulling.submit()
        await pulling.executor.wait_until_begun(1)
        hub.cut(OWNER, pulling.worker.peer_id)
        await wait_all_tasks_blocked()
        assert wait_of(pulling.owner, task_id) is Wait.WORKER
        hub.heal(OWNER, pulling.worker.peer_id)
        await trio.sleep(5)
        waiting = pulling.submit("another")
        await trio.sleep(1)
        assert wait_of(pulling.owner, waiting) is Wait.SLOT
        goes_on.set()
        assert (await pulling.owner.wait(task_id)).status is TaskStatus.COMPLETE
        assert (await pulling.owner.wait(waiting)).status is TaskStatus.COMPLETE
        assert len(pulling.executor.seen) == 2


async def test_an_offer_that_is_withdrawn_ends_with_what_was_accepted(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A worker that stops gets nothing new, and its last result still arrives."""
    async with pulling_on(hub, slots=2) as pulling:
        goes_on = trio.Event()
        pulling.executor.then((Until(goes_on), Return("done")))
        last = pulling.submit()
        await pulling.executor.wait_until_begun(1)
        assert pulling.worker.offering is not None
        pulling.worker.offering.withdraw()
        await wait_all_tasks_blocked()
        waiting = pulling.submit("too late")
        goes_on.set()
        assert (await pulling.owner.wait(last)).status is TaskStatus.COMPLETE
        await trio.sleep(60)
        assert wait_of(pulling.owner, waiting) is Wait.WORKER
        assert verdicts(pulling.owner, waiting)[pulling.worker.peer_id] is Verdict.FULL
        assert len(pulling.executor.seen) == 1


async def test_a_new_kind_is_offered_at_once(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """What the node can do has changed, and it says so."""
    async with pulling_on(hub) as pulling:
        task_id = pulling.submit(kind="new")
        await trio.sleep(1)
        assert verdicts(pulling.owner, task_id)[pulling.worker.peer_id] is Verdict.OTHER_KIND
        pulling.worker.executors["new"] = ScriptedExecutor(kind="new")
        pulling.worker.dispatcher.wake()
        assert pulling.worker.offering is not None
        pulling.worker.offering.renew()
        assert (await pulling.owner.wait(task_id)).status is TaskStatus.COMPLETE


async def test_a_worker_takes_tasks_from_nobody_else(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Not even of the harmless kinds; the refusal says for whom it works."""
    async with pulling_on(hub) as pulling, MemoryNode(hub, "another").running() as another:
        await another.connect(pulling.worker)
        record = await another.run(kind="echo", to=pulling.worker)
        assert record.failure is not None
        assert record.failure.code is ErrorCode.FORBIDDEN
        assert "works for peer owner alone" in record.failure.message


async def test_no_offer_is_made_to_others_or_after_the_session(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A peer that connects to the worker hears nothing, and an offer without a session is none."""
    async with pulling_on(hub) as pulling:
        handler = RecordingHandler()
        other = MemoryNetwork(hub, "other")
        async with other.running(RecordingHandler(), handler, lambda _: PeerAdvert()):
            await other.connect(pulling.worker.network.addresses[0])
            await wait_all_tasks_blocked()
            assert handler.frames == []
            channel = other.channel(pulling.worker.peer_id)
            assert channel is not None
            channel.send(Decline(ErrorCode.FORBIDDEN, "nobody asked you"))
            await wait_all_tasks_blocked()
        offering = pulling.worker.offering
        assert offering is not None
        assert offering.refusal is None
        former = pulling.worker.network.channel(OWNER)
        assert former is not None
        hub.cut(OWNER, pulling.worker.peer_id)
        offering.renew()
        offering.make(former)


async def test_a_node_that_has_offered_nothing_is_not_troubled_by_a_decline(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It is logged, and the session goes on."""
    other = MemoryNetwork(hub, "other")
    async with (
        MemoryNode(hub, OWNER).running() as node,
        other.running(RecordingHandler(), RecordingHandler(), lambda _: PeerAdvert()),
    ):
        await other.connect(node.network.addresses[0])
        channel = other.channel(OWNER)
        assert channel is not None
        channel.send(Decline(ErrorCode.FORBIDDEN))
        await wait_all_tasks_blocked()
        assert not channel.closed


@pytest.mark.parametrize("slots", [0, 1])
async def test_only_an_offer_of_slots_is_declined(autojump_clock: MockClock, hub: MemoryHub, slots: int) -> None:
    """Whoever asks for nothing more needs no answer, and whoever asks again has had one."""
    handler, other = RecordingHandler(), MemoryNetwork(hub, "other")
    owner = MemoryNode(hub, OWNER)
    owner.trusts = lambda _: False
    async with (
        owner.running() as node,
        other.running(handler, RecordingHandler(), lambda _: PeerAdvert()),
    ):
        await other.connect(node.network.addresses[0])
        channel = other.channel(OWNER)
        assert channel is not None
        for _ in range(3):
            channel.send(Offer(slots=slots, pull=True))
        channel.send(Offer(slots=slots))
        await wait_all_tasks_blocked()
        assert [type(frame) for frame in handler.frames] == [Decline] * slots


# --- moving on -------------------------------------------------------------------------------------------------------


class Three:
    """A node with tasks, and two peers that may do them."""

    def __init__(self, hub: MemoryHub) -> None:
        self.executors = ScriptedExecutor(), ScriptedExecutor()
        self.ann = MemoryNode(hub, "ann")
        self.ben = MemoryNode(hub, "ben", [self.executors[0]])
        self.cat = MemoryNode(hub, "cat", [self.executors[1]])
        for executor in self.executors:
            executor.safe = True

    async def until(self, task_id: TaskId, attempt: int) -> TaskRecord:
        """Return the record of a task when it waits after an attempt."""
        while True:
            record = self.ann.manager.latest(task_id)
            if record.attempt == attempt and record.status is TaskStatus.PENDING:
                return record
            await trio.sleep(0.01)


@pytest.fixture
async def three(hub: MemoryHub) -> AsyncIterator[Three]:
    """Three nodes, connected."""
    nodes = Three(hub)
    async with nodes.ann.running(), nodes.ben.running(), nodes.cat.running():
        await nodes.ann.connect(nodes.ben)
        await nodes.ann.connect(nodes.cat)
        yield nodes


async def test_a_task_for_anybody_moves_on_from_a_peer_that_refuses_it(autojump_clock: MockClock, three: Three) -> None:
    """At once, it costs none of its attempts, and the peer that refused it is not asked again."""
    # covers COORD-24
    three.executors[0].safe = False
    began = trio.current_time()
    tasks = [three.ann.submit(f"prompt {number}", kind="scripted") for number in range(40)]
    records = [await three.ann.wait(task_id) for task_id in tasks]
    assert {record.holder for record in records} == {three.cat.peer_id}
    assert max(record.attempt for record in records) == 2
    assert {record.failures for record in records} == {0}
    assert trio.current_time() - began < 1


async def test_a_task_that_everybody_refuses_waits_and_asks_again(autojump_clock: MockClock, three: Three) -> None:
    """The operator of one of them allows it in the meantime."""
    for executor in three.executors:
        executor.safe = False
    task_id = three.ann.submit(kind="scripted")
    record = await three.until(task_id, 2)
    assert record.not_before >= three.ann.clock.now() + REFUSED_RETRY_MS - 100
    assert wait_of(three.ann, task_id) is Wait.BACKOFF
    assert sorted(verdicts(three.ann, task_id).items()) == [
        ("ann", Verdict.OTHER_KIND),
        ("ben", Verdict.REFUSED),
        ("cat", Verdict.REFUSED),
    ]
    for executor in three.executors:
        executor.safe = True
    assert (await three.ann.wait(task_id)).status is TaskStatus.COMPLETE


async def test_a_task_that_names_its_peer_still_fails_when_that_refuses(
    autojump_clock: MockClock, three: Three
) -> None:
    """Somebody has decided who does it."""
    three.executors[0].safe = False
    record = await three.ann.run(kind="scripted", to=three.ben)
    assert record.failure is not None
    assert record.failure.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("code", "status"), [(ErrorCode.BUSY, TaskStatus.COMPLETE), (ErrorCode.FORBIDDEN, TaskStatus.FAILED)]
)
async def test_this_node_too_may_refuse_a_task_that_others_can_do(
    autojump_clock: MockClock, hub: MemoryHub, code: ErrorCode, status: TaskStatus
) -> None:
    """Alone, a busy executor is asked again; one that refuses for good ends the task."""
    executor = ScriptedExecutor()
    async with MemoryNode(hub, "ann", [executor]).running() as ann:
        executor.then(Raise(PeertaskError("no", code=code)), Return("done"))
        assert (await ann.run(kind="scripted")).status is status
        async with MemoryNode(hub, "ben", [ScriptedExecutor()]).running() as ben:
            await ann.connect(ben)
            executor.on("other", Raise(PeertaskError("no", code=code)))
            for _ in range(10):
                record = await ann.run("other", kind="scripted")
                assert (record.status, record.holder) == (TaskStatus.COMPLETE, ben.peer_id)


async def test_a_peer_that_hangs_keeps_its_share_and_no_more(autojump_clock: MockClock, three: Three) -> None:
    """What it was given counts although it says that it has nothing to do: the others do the rest."""
    three.executors[0].then(*[(Hang(),)] * 1_000)
    tasks = []
    for number in range(200):
        tasks.append(three.ann.submit(f"prompt {number}", kind="scripted"))
        await trio.sleep(0.01)
    ended = [three.ann.manager.get_task(task_id).terminal for task_id in tasks]
    assert ended.count(True) > 190
