"""A graph whose node starts again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from node.coordination.dependencies import INPUTS
from node.interfaces import Store
from node.testing import (
    Delay,
    FakeSqliteDatabase,
    Hang,
    HeldStore,
    MemoryHub,
    Raise,
    Return,
    ScriptedExecutor,
)
from tests.node.graphs.scenes import prompts, submit, task
from tests.node.memory_node import MemoryNode


@pytest.mark.parametrize("store", [HeldStore, FakeSqliteDatabase])
async def test_a_restart_goes_on_with_a_graph(hub: MemoryHub, store: Callable[[], Store]) -> None:
    """What was complete is not done again, its results are there, and who waits is known anew."""
    executor = ScriptedExecutor().on("hang", Hang())
    kept = store()
    former = MemoryNode(hub, "ann", [executor], store=kept)
    async with former.running():
        first, hanging = task(former, "first"), task(former, "hang")
        last = task(former, "last", first.id, hanging.id)
        submit(former, first, hanging, last)
        await executor.wait_until_begun(2)
        await former.wait(first.id)
    again = ScriptedExecutor().on("hang", Delay(20), Return("at last"))
    async with MemoryNode(hub, "ann", [again], store=kept, former=former).running() as node:
        await again.wait_until_begun(1)
        assert node.manager.is_blocked(node.manager.get_task(last.id))
        assert (await node.wait(last.id)).result is not None
        assert again.seen[-1].task.params == {INPUTS: {first.id: "first", hanging.id: "at last"}}
    assert prompts(again) == ["hang", "last"]


async def test_a_failure_that_was_not_passed_on_before_a_crash_is_after_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The store has the failure, and not yet those that follow from it."""
    executor = ScriptedExecutor().on("bad", Raise(OSError("no disk")))
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        bad = task(former, "bad")
        middle = task(former, "middle", bad.id)
        last = task(former, "last", middle.id)
        submit(former, last, middle, bad)
        await wait_all_tasks_blocked()
        store.lose()
    # Only what came before the crash is kept; here the failures of the two that follow.
    store.hold()
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        store.release()
        for one in (middle, last):
            record = await node.wait(one.id)
            assert record.failure is not None


async def test_a_dependency_that_the_store_has_lost_fails_those_that_wait_for_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Somebody deleted its file: nothing would ever let them go."""
    executor = ScriptedExecutor().on("hang", Hang())
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        hanging = former.submit("hang", kind="scripted")
        waiting = former.submit("next", kind="scripted", depends_on=(hanging,))
        await executor.wait_until_begun(1)
    store.forget([hanging])
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        record = await node.wait(waiting)
        assert record.failure is not None
        assert record.failure.message.endswith("is not kept here any more")
