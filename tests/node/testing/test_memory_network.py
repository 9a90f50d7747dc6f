"""Networks in memory: sessions, and faults on request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.testing import (
    MAX_QUEUED_FRAMES,
    MemoryHub,
    MemoryNetwork,
    check_channels,
    check_network,
    make_task,
    open_memory_hub,
)
from node.testing.network_sides import Side, connect
from protocol import (
    DEFAULT_LIMITS,
    Accept,
    Attach,
    ErrorCode,
    Frame,
    Hello,
    Limits,
    PeertaskError,
    Progress,
    Result,
    Submit,
    TaskResult,
    TooLarge,
)


@asynccontextmanager
async def pair_of_networks() -> AsyncIterator[tuple[MemoryNetwork, MemoryNetwork]]:
    """Two nodes of one hub."""
    async with open_memory_hub() as hub:
        yield MemoryNetwork(hub, "ann"), MemoryNetwork(hub, "ben")


@pytest.fixture
async def ann(hub: MemoryHub) -> AsyncIterator[Side]:
    """One node, which runs."""
    async with (side := Side(MemoryNetwork(hub, "ann"))).running():
        yield side


@pytest.fixture
async def ben(hub: MemoryHub) -> AsyncIterator[Side]:
    """Another node, which runs."""
    async with (side := Side(MemoryNetwork(hub, "ben"))).running():
        yield side


async def test_it_keeps_the_contract_of_networks(autojump_clock: MockClock) -> None:
    """The double passes the checker that the real network passes."""
    await check_network(pair_of_networks)


async def test_its_channels_keep_the_contract_of_channels() -> None:
    """The double passes the checker that the real sessions pass: frames are really encoded, decoded and judged."""
    await check_channels(pair_of_networks)


async def test_two_nodes_of_a_hub_cannot_have_one_id(hub: MemoryHub, ann: Side) -> None:
    """A peer id says who somebody is."""
    with pytest.raises(ValueError, match="has a node ann already"):
        MemoryNetwork(hub, ann.peer_id)


async def test_a_node_that_is_away_is_dialled_when_it_comes(hub: MemoryHub, ann: Side) -> None:
    """A peer that is kept gets its session as soon as it runs, and again when it runs again."""
    ben = Side(MemoryNetwork(hub, "ben"))
    ann.network.keep("/memory/ben/p2p/ben")
    await wait_all_tasks_blocked()
    assert ann.network.channels() == []
    for _ in range(2):
        async with ben.running():
            await ann.wait_until(lambda: ann.network.channel(ben.peer_id) is not None)
        await ann.wait_until(lambda: not ann.network.channels())
    assert ann.network.peers()[0].last_error == "the node is stopping"


async def test_a_cut_ends_the_session_without_a_word(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """Both ends are told at once, what was on its way is lost, and nobody can be dialled until the link is healed."""
    channel, back = await connect(ann, ben)
    channel.send(Submit(make_task("lost on the way")))
    hub.cut(ann.peer_id, ben.peer_id, "somebody tripped over the cable")
    assert channel.closed
    assert back.closed
    for side, peer in ((ann, ben), (ben, ann)):
        for handler in side.handlers:
            assert handler.endings == [(peer.peer_id, "somebody tripped over the cable")]
    with pytest.raises(PeertaskError, match="the link is cut") as unreachable:
        await ann.network.connect(ben.address)
    assert unreachable.value.code is ErrorCode.PEER_UNREACHABLE
    hub.heal(ben.peer_id, ann.peer_id)
    await ann.wait_until(lambda: ann.network.channel(ben.peer_id) is not None)
    ann.channel_to(ben).send(Submit(task := make_task("after the repair")))
    assert await ben.worker.wait_for_frames(1) == [Submit(task)]


async def test_a_cut_while_a_session_opens_fails_the_dial(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """A dial that is under way ends in words too."""
    errors = []

    async def dial() -> None:
        with pytest.raises(PeertaskError, match="no session with ben came about: the link was cut") as error:
            await ann.network.connect(ben.address)
        errors.append(error.value.code)

    hub.drop_next(ann.peer_id, ben.peer_id, Hello)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        await wait_all_tasks_blocked()
        hub.cut(ann.peer_id, ben.peer_id)
    assert errors == [ErrorCode.PEER_LOST]


async def test_a_frozen_peer_does_not_answer_a_dial(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """A node that was frozen before there was a session cannot be reached until it goes on."""
    hub.pause(ben.peer_id)
    with pytest.raises(PeertaskError, match="ben does not answer") as unreachable:
        await ann.network.connect(ben.address)
    assert unreachable.value.code is ErrorCode.PEER_UNREACHABLE
    hub.resume(ben.peer_id)
    await connect(ann, ben)


async def test_a_paused_node_neither_hears_nor_speaks(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """A frozen peer keeps its sessions; what is sent meanwhile, by it or to it, arrives in order when it goes on."""
    channel, back = await connect(ann, ben)
    tasks = [make_task(f"task {number}") for number in range(3)]
    hub.pause(ben.peer_id)
    for task in tasks:
        channel.send(Submit(task))
    back.send(Submit(tasks[0]))
    await wait_all_tasks_blocked()
    assert ben.worker.frames == []
    assert ann.worker.frames == []
    assert not channel.closed
    hub.resume(ben.peer_id)
    assert await ben.worker.wait_for_frames(3) == [Submit(task) for task in tasks]
    assert await ann.worker.wait_for_frames(1) == [Submit(tasks[0])]


async def test_a_frame_can_be_lost(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """The next frame, of any type or of one, from one node to another never arrives; others do."""
    channel, back = await connect(ann, ben)
    first, second = make_task(), make_task()
    hub.drop_next(ann.peer_id, ben.peer_id)
    channel.send(Submit(first))
    channel.send(Submit(second))
    assert await ben.worker.wait_for_frames(1) == [Submit(second)]
    hub.drop_next(ben.peer_id, ann.peer_id, Result)
    back.send(Accept(second.id))
    back.send(Result(task_id=second.id, seq=3, result=TaskResult(second.id, "lost", 1)))
    channel.send(Submit(third := make_task()))
    await ben.worker.wait_for_frames(2)
    back.send(Accept(third.id))
    assert await ann.requester.wait_for_frames(2) == [Accept(second.id), Accept(third.id)]


async def test_a_peer_that_breaks_the_protocol_is_told_and_left(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """After a frame that the conversation forbids, both ends know the reason."""
    channel, back = await connect(ann, ben)
    channel.send(Submit(task := make_task()))
    await ben.worker.wait_for_frames(1)
    hub.drop_next(ben.peer_id, ann.peer_id, Accept)
    back.send(Accept(task.id))
    back.send(Progress(task_id=task.id, seq=2, fraction=0.5))
    await ben.wait_until(lambda: back.closed)
    assert channel.closed
    assert ann.requester.frames == []
    for side in (ann, ben):
        ((_, reason),) = side.worker.endings
        assert f"Progress for task {task.id}" in reason


async def test_a_full_queue_takes_no_more_submissions(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """BUSY comes for Submit only, and goes when the frames have arrived."""
    channel, _ = await connect(ann, ben)
    hub.pause(ben.peer_id)
    for number in range(MAX_QUEUED_FRAMES):
        channel.send(Submit(make_task(f"task {number}")))
    with pytest.raises(PeertaskError, match="frames wait for ben") as busy:
        channel.send(Submit(make_task()))
    assert busy.value.code is ErrorCode.BUSY
    channel.send(Attach(make_task().id))
    hub.resume(ben.peer_id)
    await ben.worker.wait_for_frames(MAX_QUEUED_FRAMES + 1)
    channel.send(Submit(make_task()))


async def test_the_limits_of_a_node_hold_for_its_peers(hub: MemoryHub, ben: Side) -> None:
    """What a node announces in Hello is what its peers may send it."""
    limits = Limits(frame=4096, chunk=2048, payload=8192, in_flight=7)
    small = Side(MemoryNetwork(hub, "small", limits=limits))
    async with small.running():
        channel, back = await connect(ben, small)
        assert (channel.in_flight, channel.local_in_flight) == (7, DEFAULT_LIMITS.in_flight)
        assert (back.in_flight, back.local_in_flight) == (DEFAULT_LIMITS.in_flight, 7)
        with pytest.raises(TooLarge, match="8,192 bytes"):
            channel.send(Submit(make_task("x" * 20_000)))
        channel.send(Submit(task := make_task("x" * 6_000)))
        assert await small.worker.wait_for_frames(1) == [Submit(task)]


async def test_a_heartbeat_tells_how_busy_a_node_is(ann: Side, ben: Side) -> None:
    """Heartbeats are sent when the test says so, and change the advert that the peer sees."""
    channel, _ = await connect(ann, ben)
    assert isinstance(ben.network, MemoryNetwork)
    ben.advert = replace(ben.advert, load=41)
    ben.network.beat()
    await ann.wait_until(lambda: channel.advert == ben.advert)


async def test_a_peer_may_be_named_by_its_id(ann: Side, ben: Side) -> None:
    """In one process every node is known; one that is not there cannot be reached."""
    assert await ann.network.connect(ben.peer_id) == ben.peer_id
    with pytest.raises(PeertaskError, match="nobody is not running"):
        await ann.network.connect("nobody")


async def test_a_recording_handler_tells_who_sent_what() -> None:
    """Arrivals name the peer, and a test can wait for a condition on them."""
    async with open_memory_hub() as hub:
        one, other = Side(MemoryNetwork(hub, "one")), Side(MemoryNetwork(hub, "other"))
        async with one.running(), other.running():
            channel, _ = await connect(one, other)
            channel.send(Submit(task := make_task()))
            await other.worker.wait_until(lambda: bool(other.worker.arrivals))
            assert other.worker.arrivals == [(one.peer_id, Submit(task))]


async def test_frames_arrive_in_the_order_of_sending_across_nodes(hub: MemoryHub, ann: Side, ben: Side) -> None:
    """One task delivers everything, so a run can be repeated: who sends first is heard first."""
    async with (carl := Side(MemoryNetwork(hub, "carl"))).running():
        from_ann, _ = await connect(ann, carl)
        from_ben, _ = await connect(ben, carl)
        for number in range(20):
            (from_ann if number % 3 else from_ben).send(Submit(make_task(f"task {number}")))
        frames: list[Frame] = await carl.worker.wait_for_frames(20)
        prompts = [frame.task.prompt for frame in frames if isinstance(frame, Submit)]
        assert prompts == [f"task {number}" for number in range(20)]
