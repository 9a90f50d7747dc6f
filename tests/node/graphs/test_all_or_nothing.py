"""A graph is taken in as a whole or not at all."""

from __future__ import annotations

from contextlib import suppress

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from node.retention import Capacity
from node.testing import (
    Hang,
    HeldStore,
    MemoryHub,
    ScriptedExecutor,
)
from protocol import (
    ErrorCode,
    InvalidTask,
    PeertaskError,
    TooLarge,
    new_task_id,
)
from tests.node.graphs.scenes import submit, task
from tests.node.manager.bench import code_of
from tests.node.memory_node import MemoryNode


async def test_of_a_faulty_graph_nothing_is_taken_in(autojump_clock: MockClock, node: MemoryNode) -> None:
    """Whatever is wrong with whichever task."""
    good = task(node, "good")
    other = task(node, "other")
    for bad in (
        [task(node, "bad", new_task_id())],
        [task(node, "bad", parent_id=new_task_id())],
        [task(node, "one", good.id, id=other.id), task(node, "two", other.id, id=good.id)],
    ):
        with pytest.raises(InvalidTask):
            submit(node, *bad, *([] if len(bad) > 1 else [good]))
    assert node.manager.open_tasks == 0
    assert node.manager.list_tasks() == []
    assert (await node.run("free")).result is not None


async def test_the_same_graph_again_is_the_one_that_is_there(autojump_clock: MockClock, node: MemoryNode) -> None:
    """A client whose answer was lost repeats it; a part of it, or another task under its ids, is a conflict."""
    first = task(node, "first")
    graph = [first, task(node, "last", first.id)]
    submit(node, *graph)
    assert [record.id for record in submit(node, *graph)] == [one.id for one in graph]
    assert submit(node) == []
    assert code_of(lambda: submit(node, *graph, task(node, "more"))) is ErrorCode.CONFLICT
    assert code_of(lambda: submit(node, task(node, "else", id=first.id))) is ErrorCode.CONFLICT


async def test_a_graph_needs_room_for_all_of_its_tasks(
    autojump_clock: MockClock, hub: MemoryHub, executor: ScriptedExecutor
) -> None:
    """BUSY when others are in the way, TOO_LARGE when it would never fit; one that is stopping takes none."""
    executor.on("hang", Hang())
    async with MemoryNode(hub, "ann", [executor], capacity=Capacity(open_tasks=3)).running() as node:
        hanging = submit(node, task(node, "hang"))[0]
        three = [task(node, f"{number}") for number in range(3)]
        assert code_of(lambda: submit(node, *three)) is ErrorCode.BUSY
        with pytest.raises(TooLarge, match="4 tasks, and this node may have 3 open"):
            submit(node, *three, task(node, "4"))
        assert node.manager.open_tasks == 1
        node.manager.cancel_task(hanging.id)
        await node.wait(hanging.id)
        submit(node, *three)
        node.manager.draining = True
        assert code_of(lambda: submit(node, task(node, "late"))) is ErrorCode.DRAINING


async def test_nothing_of_a_graph_begins_before_it_is_saved_and_a_crash_leaves_none_of_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The store loses what waits: after the restart nothing is there, and the same graph can be submitted."""
    executor = ScriptedExecutor()
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    first = task(former, "first")
    graph = [first, task(former, "last", first.id)]
    async with former.running():
        store.hold()
        submit(former, *graph)
        await wait_all_tasks_blocked()
        assert (executor.seen, former.manager.list_tasks()) == ([], [])
        store.lose()
    store.release()
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        assert node.manager.list_tasks() == []
        submit(node, *graph)
        assert (await node.wait(graph[1].id)).result is not None
        with suppress(PeertaskError):
            node.manager.cancel_task(first.id)


async def test_a_store_that_refuses_a_graph_leaves_nothing_behind(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """What was counted is taken back."""
    store = HeldStore()
    async with MemoryNode(hub, "ann", store=store).running() as node:
        known = node.submit("known")
        await node.wait(known)
        node.manager._forget([known])  # noqa: SLF001 - so that only the store knows it
        store._last_seqs[known] = 4  # noqa: SLF001
        parent = task(node, "parent")
        graph = [parent, task(node, "last", parent.id, id=known, parent_id=parent.id)]
        assert code_of(lambda: submit(node, *graph)) is ErrorCode.CONFLICT
        assert node.manager.open_tasks == 0
        assert parent.id not in node.manager.dependencies.awaited
        assert node.manager.children(parent.id) == []
