"""A quick task over real hosts: its Result is the answer to the Submit."""

from __future__ import annotations

from pathlib import Path

import trio

from node import Node, open_node
from node.interfaces import Change
from node.stores.sqlite import SqliteStore
from node.testing import HeldStore, make_task
from protocol import (
    Attach,
    Claimed,
    Completed,
    Fact,
    Frame,
    Heartbeat,
    Hello,
    Result,
    Started,
    Submit,
    Submitted,
    TaskStatus,
)
from tests.integration.bad_peers import RawStream, bad_peer
from tests.integration.hosts import becomes_true
from tests.integration.nodes import has_ended

PING = 7


async def answers_to(stream: RawStream, frame: Frame) -> list[Frame]:
    """Say something, and return all that is heard up to the answer to a heartbeat behind it."""
    await stream.say(frame, Heartbeat(ping=PING))
    heard: list[Frame] = []
    while not isinstance(frame := await next_of(stream), Heartbeat) or frame.pong != PING:
        if not isinstance(frame, Heartbeat | Hello):
            heard.append(frame)
    return heard


async def next_of(stream: RawStream) -> Frame:
    """The next frame of a stream that goes on."""
    frame = await stream.hear()
    assert frame is not None
    return frame


async def commit_with_its_end(store: HeldStore) -> None:
    """Save all that waits with one write, once the end of a task is among it."""
    await becomes_true(lambda: any(change.record.terminal for change in store.held))
    store.commit_together(len(store.held))


async def facts_of(node: Node, task_id: str) -> list[type[Fact]]:
    """What has happened to a task that ends."""
    async with node.watch(task_id) as changes:
        return [type(change.fact) async for change in changes if isinstance(change, Change)]


async def test_a_peer_hears_one_frame_of_a_task_that_is_saved_with_its_end() -> None:
    """And one when it asks again, by either way."""
    store = HeldStore()
    with trio.fail_after(30):
        async with open_node(store=store) as works, bad_peer(works.addresses[0]) as peer:
            stream = await peer.open()
            store.hold()
            task = make_task("hello", sender=peer.peer_id, kind="echo")
            assert await answers_to(stream, Submit(task)) == []
            await commit_with_its_end(store)
            result = await next_of(stream)
            while isinstance(result, Hello | Heartbeat):
                result = await next_of(stream)
            assert isinstance(result, Result)
            assert result.result is not None
            assert result.result.result == "hello"
            for again in (Submit(task), Attach(task.id)):
                assert await answers_to(stream, again) == [result]


async def test_both_nodes_have_the_whole_history_of_a_task_whose_result_came_alone() -> None:
    """The requester has its start although no Accept told of it."""
    store = HeldStore()
    with trio.fail_after(30):
        async with open_node(store=store) as works, open_node() as asks:
            await asks.connect(works.addresses[0])
            store.hold()
            task_id = await asks.enqueue("hello", to=works.peer_id, kind="echo")
            seen: dict[str, list[type[Fact]]] = {}

            async def watch() -> None:
                seen[task_id] = await facts_of(asks, task_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await becomes_true(lambda: any(change.record.terminal for change in store.held))
                assert asks.get_task(task_id).status is TaskStatus.CLAIMED
                await commit_with_its_end(store)
            assert (await asks.result(task_id)).result == "hello"
            assert seen[task_id] == [Submitted, Claimed, Started, Completed]
            assert (await has_ended(works, task_id)).seq == asks.get_task(task_id).seq == 4


async def test_quick_tasks_between_durable_nodes_end_the_same_at_both(tmp_path: Path) -> None:
    """Whether the disk was quicker than the execution, or not."""
    stores = [SqliteStore(tmp_path / f"{name}.sqlite") for name in ("works", "asks")]
    with trio.fail_after(60):
        async with open_node(store=stores[0]) as works, open_node(store=stores[1]) as asks:
            await asks.connect(works.addresses[0])
            prompts = [str(number) for number in range(100)]
            ended = [item async for item in asks.map(prompts, to=works.peer_id, kind="echo", concurrency=10)]
            assert sorted(item.result.result for item in ended if item.result is not None) == sorted(prompts)
            for record in asks.list_tasks():
                assert (record.status, record.seq) == (TaskStatus.COMPLETE, 4)
                assert works.get_task(record.id).status is TaskStatus.COMPLETE
