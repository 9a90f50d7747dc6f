"""Goals, parents and children."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from node.retention import Capacity
from node.stores.sqlite import SqliteStore
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    Return,
    ScriptedExecutor,
)
from protocol import (
    TaskStatus,
    new_task_id,
)
from tests.node.graphs.scenes import submit, task
from tests.node.memory_node import MemoryNode


async def test_a_goal_is_a_task_that_depends_on_its_children(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """It ends when they have; until then it shows how far they are."""
    executor.on("slow", Delay(500), Return("late"))
    goal = new_task_id()
    parts = [task(node, "quick", parent_id=goal), task(node, "slow", parent_id=goal)]
    submit(node, task(node, "a goal", *(part.id for part in parts), id=goal, kind="echo"), *parts)
    await node.wait(parts[0].id)
    assert [record.status for record in node.manager.children(goal)] == [TaskStatus.COMPLETE, TaskStatus.EXECUTING]
    record = await node.wait(goal)
    assert record.result is not None
    assert record.result.result == "a goal"


async def test_cancelling_a_parent_cancels_its_descendants(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Those that run, those that wait and those of children that have ended; none fails because another was first."""
    executor.on("hang", Hang())
    goal, planner = new_task_id(), task(node, "planner")
    submit(node, planner)
    await node.wait(planner.id)
    hanging = task(node, "hang", parent_id=planner.id)
    next_one = task(node, "next", hanging.id, parent_id=planner.id)
    submit(node, hanging, next_one)
    part = task(node, "part", next_one.id, parent_id=next_one.id)
    submit(node, part, task(node, "a goal", part.id, id=goal, parent_id=planner.id))
    await executor.wait_until_begun(2)
    assert node.manager.cancel_task(planner.id).status is TaskStatus.COMPLETE
    for one in (goal, part.id, next_one.id, hanging.id):
        assert (await node.wait(one)).status is TaskStatus.CANCELLED
    assert node.manager.open_tasks == 0


@pytest.mark.parametrize("saved", [1, 2])
async def test_a_crash_amid_the_cancels_of_a_family_leaves_none_of_it_running(
    autojump_clock: MockClock, hub: MemoryHub, saved: int
) -> None:
    """That of the parent was saved, and not those of all its children: after the restart they are cancelled too."""
    executor = ScriptedExecutor().on("hang", Hang())
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        goal, hanging = task(former, "hang"), new_task_id()
        child = task(former, "hang", id=hanging, parent_id=goal.id)
        next_one = task(former, "next", hanging, parent_id=goal.id)
        submit(former, goal, child, next_one)
        await executor.wait_until_begun(2)
        store.hold()
        former.manager.cancel_task(goal.id)
        store.lose(but=saved)
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        for one in (goal.id, hanging, next_one.id):
            assert (await node.wait(one)).status is TaskStatus.CANCELLED
        assert node.manager.open_tasks == 0
    assert len(executor.seen) == 2


async def test_children_are_known_after_a_restart_until_they_are_forgotten(tmp_path: Any, hub: MemoryHub) -> None:
    """Finished ones too."""
    path = tmp_path / "tasks.db"
    former = MemoryNode(hub, "ann", store=SqliteStore(path))
    async with former.running():
        goal = (await former.run("goal")).id
        child = (await former.run("child", parent_id=goal)).id
    capacity = Capacity(finished_records=2)
    async with MemoryNode(hub, "ann", store=SqliteStore(path), former=former, capacity=capacity).running() as node:
        assert [record.id for record in node.manager.children(goal)] == [child]
        await node.run("one")
        await node.run("two")
        assert node.manager.children(goal) == []
