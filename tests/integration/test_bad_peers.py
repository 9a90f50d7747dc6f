"""What a hostile or broken peer does to a node: nothing, beyond the end of its own session."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import pytest
import structlog
import trio

from node import Node, NodeConfig, open_node
from node.interfaces import Execution
from node.net.host import MAX_STREAMS_PER_CONNECTION
from node.testing import Hang, Return, ScriptedExecutor, Until, make_task
from protocol import (
    Accept,
    Attach,
    Bye,
    Cancel,
    Chunk,
    Decline,
    ErrorCode,
    Frame,
    Heartbeat,
    Hello,
    Limits,
    Offer,
    PeerAdvert,
    Progress,
    Reject,
    Result,
    Submit,
    Task,
    TaskResult,
    TaskStatus,
    encode_frame,
    new_task_id,
)
from tests.integration.bad_peers import BadPeer, RawStream, bad_peer
from tests.integration.host_process import resident_bytes
from tests.integration.hosts import becomes_true

MEGABYTE = 1_000_000


@asynccontextmanager
async def victim(
    executor: ScriptedExecutor | None = None, config: NodeConfig | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    """A node, and an honest one that has a session with it; at the end they still work together on it."""
    async with open_node(config, [executor] if executor else ()) as node, open_node() as honest:
        await honest.connect(node.addresses[0])
        sessions = session_of(honest, node)
        yield node, honest
        assert (await honest.submit("still here", to=node.peer_id, kind="echo")).result == "still here"
        assert session_of(honest, node) is sessions


def session_of(node: Node, peer: Node) -> object:
    """The session of a node with another."""
    session = node._network.channel(peer.peer_id)  # noqa: SLF001 - a program has no use for it, a test compares it
    assert session is not None
    return session


def task_of(peer: BadPeer, prompt: str = "x", **fields: object) -> Task:
    """A task that a peer may submit, unless the test says otherwise."""
    return make_task(prompt, **{"sender": peer.peer_id, "kind": "echo", **fields})


async def answers(stream: RawStream, count: int) -> list[Frame]:
    """The next frames that are not heartbeats."""
    frames: list[Frame] = []
    while len(frames) < count and (frame := await stream.hear()) is not None:
        if not isinstance(frame, Heartbeat):
            frames.append(frame)
    return frames


# --- Not the protocol ------------------------------------------------------------------------------------------------

GARBAGE: dict[str, tuple[bytes, str]] = {
    "text": (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n" * 20, "msgpack"),
    "a frame of four gigabytes": (b"\xff\xff\xff\xff\x0f" + bytes(1000), "4,294,967,295 bytes"),
    "an endless length": (b"\xff" * 100, "length"),
    "an empty frame": (b"\x00", "0 bytes"),
    "an unknown type": (b"\x0d\x81\xa4type\xa6submix", "unknown type"),
    "chunks without end": (encode_frame(Chunk(bytes(200_000)))[0] * 100, "limit of 16,777,216 bytes"),
    "a nesting bomb": (b"\x80\x40" + b"\x91" * 8192, "msgpack"),
}


@pytest.mark.parametrize("greeting", [(), (Hello(),)], ids=["simple client", "node"])
@pytest.mark.parametrize(("data", "words"), GARBAGE.values(), ids=GARBAGE.keys())
async def test_bytes_that_are_not_the_protocol_end_that_session_with_the_reason(
    data: bytes, words: str, greeting: tuple[Hello, ...]
) -> None:
    """The peer is told what was wrong, its connection ends, and others notice nothing."""
    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.say(*greeting)
            await stream.stream.write(data)
            bye = await stream.hear_bye()
            assert bye.code is ErrorCode.PROTOCOL
            assert words in bye.message
            await stream.stream.close()
            await peer.foreign.connection.event_closed.wait()


ILLEGAL: dict[str, list[Frame]] = {
    "two Hellos": [Hello(), Hello()],
    "a Hello after a Heartbeat": [Heartbeat(), Hello()],
    "an Accept for nothing": [Hello(), Accept(new_task_id())],
    "a Result for nothing": [Result(task_id=(one := new_task_id()), seq=1, result=TaskResult(one, "x", 1))],
    "Progress for nothing": [Hello(), Progress(task_id=new_task_id(), seq=1, fraction=0.5)],
    "a task submitted twice at once": [Submit(same := make_task(kind="mock")), Submit(same)],
    "an Attach to what it waits for": [Submit(again := make_task(kind="mock")), Attach(again.id)],
}


@pytest.mark.parametrize("frames", ILLEGAL.values(), ids=ILLEGAL.keys())
async def test_frames_that_are_illegal_now_end_that_session_with_the_reason(frames: list[Frame]) -> None:
    """However well-formed they are."""
    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.say(*(own(peer, frame) for frame in frames))
            bye = await stream.hear_bye()
            assert bye.code is ErrorCode.PROTOCOL
            assert bye.message


def own(peer: BadPeer, frame: Frame) -> Frame:
    """A frame as the peer itself would send it."""
    return Submit(replace(frame.task, sender=peer.peer_id)) if isinstance(frame, Submit) else frame


async def test_a_peer_that_says_bye_and_goes_on_talking_is_not_heard() -> None:
    """Nothing follows a Bye."""
    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.say(Hello(), Bye(ErrorCode.DRAINING), Submit(task_of(peer)))
            while await stream.hear() is not None:
                pass
            assert [task for task in node.list_tasks() if task.requester == peer.peer_id] == []


# --- Lies ------------------------------------------------------------------------------------------------------------


async def test_a_task_in_the_name_of_another_peer_is_refused_and_not_recorded() -> None:
    """The sender must be the peer of the connection; the session goes on."""
    with trio.fail_after(30):
        async with victim() as (node, honest), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            lie = task_of(peer, sender=honest.peer_id)
            await stream.say(Hello(), Submit(lie), Submit(true := task_of(peer)))
            _, reject, *rest = await answers(stream, 4)
            assert isinstance(reject, Reject)
            assert (reject.task_id, reject.code) == (lie.id, ErrorCode.FORBIDDEN)
            assert "Name your own peer id" in reject.message
            assert [type(frame) for frame in rest] == [Accept, Result]
            assert [task.id for task in node.list_tasks()] == [true.id]


async def test_the_tasks_of_others_are_neither_told_nor_stopped() -> None:
    """Attach is answered as for a task that does not exist, and Cancel does nothing."""
    executor = ScriptedExecutor("work").on("secret", Hang())
    with trio.fail_after(30):
        async with victim(executor) as (node, honest), bad_peer(node.addresses[0]) as peer:
            task_id = await honest.enqueue("secret", to=node.peer_id, kind="work")
            await executor.wait_until_begun(1)
            stream = await peer.open()
            await stream.say(Hello(), Cancel(task_id), Attach(task_id), Attach(unknown := new_task_id()))
            _, about_secret, about_unknown = await answers(stream, 3)
            assert isinstance(about_secret, Reject)
            assert isinstance(about_unknown, Reject)
            assert about_secret.code is about_unknown.code is ErrorCode.NOT_FOUND
            assert about_secret.message.replace(task_id, "…") == about_unknown.message.replace(unknown, "…")
            assert node.get_task(task_id).status is TaskStatus.EXECUTING
            # To take the task over under its UUID is refused as well.
            await stream.say(Submit(task_of(peer, "mine", id=task_id)))
            (taken,) = await answers(stream, 1)
            assert isinstance(taken, Reject)
            assert taken.code is ErrorCode.CONFLICT
            assert executor.running == 1
            honest.cancel(task_id)


async def test_a_peer_that_lies_about_its_load_and_offers_harms_nobody() -> None:
    """What it says of itself is only believed of itself."""
    with trio.fail_after(30):
        async with victim() as (node, honest), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            advert = PeerAdvert(kinds=("echo", "mock"), slots=1, load=0)
            await stream.say(Hello(advert=advert, addresses=honest.addresses, agent="x" * 256))
            await stream.say(*(Heartbeat(load=number * 10**15, pong=2**40) for number in range(50)))
            await stream.say(*(Offer(slots=0, kinds=(f"kind-{number}",)) for number in range(50)))
            await stream.say(Heartbeat(ping=7))
            while (frame := await stream.hear()) != Heartbeat(pong=7, load=0):
                assert frame is not None
            info = next(info for info in node.peers() if info.peer_id == peer.peer_id)
            assert info.connected
            assert info.addresses == ()


@pytest.mark.parametrize("greeting", [(), (Hello(),)], ids=["simple client", "node"])
async def test_a_flood_of_offers_gets_one_answer_and_no_work(greeting: tuple[Frame, ...]) -> None:
    """A stranger is told what to do; a client that has not greeted is told to."""
    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            waiting = await node.enqueue("x", kind="wanted")
            stream = await peer.open()
            await stream.say(*greeting, *(Offer(slots=1_000_000, kinds=("wanted",), pull=True) for _ in range(1_000)))
            await stream.say(Heartbeat(ping=7))
            heard = []
            while (frame := await stream.hear()) != Heartbeat(pong=7, load=1):
                assert frame is not None
                heard += [frame] if not isinstance(frame, Hello | Heartbeat) else []
            (decline,) = heard
            assert isinstance(decline, Decline)
            assert ("--worker" if greeting else "Hello") in decline.message
            assert node.get_task(waiting).attempt == 0


async def test_a_peer_with_tiny_limits_cannot_break_what_is_told_to_it() -> None:
    """What it does not take is not sent to it; the executor and everybody else do not notice."""
    go_on = trio.Event()

    async def chatty(execution: Execution) -> str:
        execution.progress(0.5, "é" * 3_000)
        await go_on.wait()
        return "done"

    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            node.task("chatty", safe=True)(chatty)
            stream = await peer.open()
            await stream.say(Hello(limits=Limits(frame=1024, chunk=1024, payload=1024)))
            await stream.say(Submit(task := task_of(peer, kind="chatty")))
            await becomes_true(lambda: any(record.id == task.id and record.progress for record in node.list_tasks()))
            go_on.set()
            while not isinstance(frame := await stream.hear(), Result):
                assert frame is not None
            assert frame.result is not None
            assert frame.result.result == "done"


# --- Floods ----------------------------------------------------------------------------------------------------------


async def test_a_flood_of_tasks_beyond_the_quota_is_busy_and_nothing_is_lost() -> None:
    """Each task gets one answer: as many as the quota are accepted and done, the others say when to come again."""
    done = trio.Event()
    executor = ScriptedExecutor("work", slots=8).on("x", Until(done), Return("done"))
    flood = 2_000
    with trio.fail_after(60):
        async with victim(executor, NodeConfig(max_in_flight=100)) as (node, _), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.say(Hello())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit_many, stream, peer, flood)
                first = [frame for frame in await answers(stream, flood + 1) if not isinstance(frame, Hello)]
            assert Counter(map(type, first)) == {Accept: 100, Reject: flood - 100}
            for frame in first:
                if isinstance(frame, Reject):
                    assert (frame.code, frame.retry_after_ms) == (ErrorCode.BUSY, 100)
                    assert "100 is the limit" in frame.message
            done.set()
            results = await answers(stream, 100)
            assert Counter(map(type, results)) == {Result: 100}
            accepted = {frame.task_id for frame in first if isinstance(frame, Accept)}
            assert {frame.task_id for frame in results if isinstance(frame, Result)} == accepted
            assert len(node.list_tasks()) == 100
            assert len(executor.seen) == 100


async def submit_many(stream: RawStream, peer: BadPeer, count: int) -> None:
    """Submit without waiting for an answer."""
    for _ in range(count // 50):
        await stream.say(*(Submit(task_of(peer, kind="work")) for _ in range(50)))


async def test_one_peer_that_floods_does_not_starve_another() -> None:
    """With all slots taken and a long queue, the honest peer's task is among the next to start."""
    gate = trio.Event()
    executor = ScriptedExecutor("work", slots=2).on("x", Until(gate), Return("done"))
    with trio.fail_after(30):
        async with victim(executor) as (node, honest), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.say(Hello(), *(Submit(task_of(peer, kind="work")) for _ in range(200)))
            await executor.wait_until_begun(2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: honest.submit("x", to=node.peer_id, kind="work"))
                await becomes_true(lambda: any(task.requester == honest.peer_id for task in node.list_tasks()))
                gate.set()
            order = [seen.task.sender for seen in executor.seen]
            assert order.index(honest.peer_id) <= 4


async def test_a_thousand_streams_of_one_peer_are_cut_down_to_the_limit() -> None:
    """Those within it are served, the others are reset, and none of them hurts anybody."""
    opened: list[RawStream] = []

    async def open_one(peer: BadPeer) -> None:
        with suppress(Exception):  # libp2p fails in several ways when a stream is reset under its negotiation
            stream = await peer.open()
            await stream.say(Submit(task_of(peer, kind="work")))
            if isinstance(await stream.hear(), Accept):
                opened.append(stream)

    executor = ScriptedExecutor("work", slots=1).on("x", Hang())
    with trio.fail_after(60):
        async with victim(executor) as (node, honest), bad_peer(node.addresses[0]) as peer:
            peer.foreign.connection.stream_backlog_semaphore = trio.Semaphore(1_000)
            async with trio.open_nursery() as nursery:
                for _ in range(1_000):
                    nursery.start_soon(open_one, peer)
                await becomes_true(lambda: len(opened) >= MAX_STREAMS_PER_CONNECTION // 2)
                assert (await honest.submit("meanwhile", to=node.peer_id, kind="echo")).result == "meanwhile"
                nursery.cancel_scope.cancel()
            assert len(opened) <= MAX_STREAMS_PER_CONNECTION + 1
            assert len(node.list_tasks()) <= MAX_STREAMS_PER_CONNECTION + 2


async def test_a_simple_client_with_many_streams_gets_its_results_on_each() -> None:
    """Every stream is a conversation of its own."""
    with trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            results: list[str] = []

            async def ask(number: int) -> None:
                stream = await peer.open()
                await stream.say(Submit(task_of(peer, f"prompt {number}")))
                await stream.stream.close()
                accept, result, end = await stream.hear(), await stream.hear(), await stream.hear()
                assert isinstance(accept, Accept)
                assert isinstance(result, Result)
                assert result.result is not None
                assert end is None
                results.append(result.result.result)

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(ask, number)
            assert sorted(results) == sorted(f"prompt {number}" for number in range(50))
            assert len(node.peers()) == 1


# --- Slow and vanishing peers ----------------------------------------------------------------------------------------


@contextmanager
def tracing_memory() -> Iterator[Callable[[], int]]:
    """Count the bytes that Python holds; what the process holds also depends on how its allocator cuts them up."""
    tracemalloc.start()

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    try:
        yield held
    finally:
        tracemalloc.stop()


async def test_a_peer_that_never_reads_its_results_costs_a_bounded_amount_of_memory() -> None:
    """It is cut off after some seconds, what waited for it is dropped, and others are served all the while."""
    text = "x" * MEGABYTE
    executor = ScriptedExecutor("big", slots=64).on("x", Return(text))
    with trio.fail_after(60), tracing_memory() as held:
        async with victim(executor, NodeConfig(retention_records=10)) as (node, honest):
            before = held()
            async with bad_peer(node.addresses[0]) as peer:
                stream = await peer.open()
                await stream.say(Hello(), *(Submit(task_of(peer, kind="big")) for _ in range(200)))
                await executor.wait_until_ended(64)
                await becomes_true(lambda: executor.running == 0)
                peak = held()
                began = trio.current_time()
                assert (await honest.submit("hi", to=node.peer_id, kind="echo")).result == "hi"
                assert trio.current_time() - began < 3
                await becomes_true(lambda: not connected(node, peer))
            assert peak - before < 250 * MEGABYTE
            await becomes_true(lambda: held() - before < 15 * MEGABYTE)


def connected(node: Node, peer: BadPeer) -> bool:
    """Whether a node has a session with a peer."""
    return any(info.connected for info in node.peers() if info.peer_id == peer.peer_id)


async def test_a_peer_that_vanishes_with_tasks_under_way_leaves_them_to_run() -> None:
    """It may come back for the results; its session ends at once, and its slots when the work is done."""
    done = trio.Event()
    executor = ScriptedExecutor("work", slots=4).on("x", Until(done), Return("done"))
    with trio.fail_after(30):
        async with victim(executor) as (node, honest):
            async with bad_peer(node.addresses[0]) as peer:
                stream = await peer.open()
                await stream.say(Hello(), *(Submit(task_of(peer, kind="work")) for _ in range(20)))
                await executor.wait_until_begun(4)
            await becomes_true(lambda: not connected(node, peer))
            done.set()
            await executor.wait_until_ended(20)
            assert (await honest.submit("y", to=node.peer_id, kind="work")).result == "y"
            statuses = Counter(task.status for task in node.list_tasks() if task.requester == peer.peer_id)
            assert statuses == {TaskStatus.COMPLETE: 20}


async def test_peers_that_come_and_vanish_leave_nothing_behind() -> None:
    """Sessions, tasks of trio and memory return to what they were."""
    with trio.fail_after(60):
        async with victim() as (node, honest):

            async def visit() -> None:
                async with bad_peer(node.addresses[0]) as peer:
                    stream = await peer.open()
                    await stream.say(Hello(), Submit(task_of(peer)))
                    assert isinstance(await stream.hear(), Hello)

            for _ in range(20):
                await visit()
            await becomes_true(lambda: sum(info.connected for info in node.peers()) == 1)
            gc.collect()
            before, tasks = resident_bytes(), trio.lowlevel.current_statistics().tasks_living
            for _ in range(100):
                await visit()
            await becomes_true(lambda: sum(info.connected for info in node.peers()) == 1)
            await becomes_true(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
            assert resident_bytes() - before < 5 * MEGABYTE
            assert next(info.peer_id for info in node.peers()) == honest.peer_id


async def test_a_refused_session_is_logged_with_the_peer_and_the_reason() -> None:
    """So that an operator can tell who sends garbage."""
    with structlog.testing.capture_logs() as records, trio.fail_after(30):
        async with victim() as (node, _), bad_peer(node.addresses[0]) as peer:
            stream = await peer.open()
            await stream.stream.write(b"\x00")
            await stream.hear_bye()
            (record,) = [record for record in records if record["event"] == "session ended by this node"]
            assert record["peer_id"] == peer.peer_id
            assert record["code"] == "PROTOCOL"
            assert "0 bytes" in record["reason"]
