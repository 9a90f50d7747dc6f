"""The loop while facts wait for the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.testing import (
    Hang,
    HeldStore,
    MemoryHub,
    Raise,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    PeerId,
    PeertaskError,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskId,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Scene, scene_of, started_again
from tests.node.memory_node import MemoryNode

# What a store says of a task that another program has.
TAKEN = PeertaskError("another process has changed the task", code=ErrorCode.CONFLICT)


@asynccontextmanager
async def slow_scene(hub: MemoryHub) -> AsyncIterator[tuple[Scene, HeldStore]]:
    """A scene whose store commits when the test says so."""
    store = HeldStore()
    async with scene_of(hub, store=store) as scene:
        store.hold()
        yield scene, store
        store.release()


async def commit_all(store: HeldStore) -> None:
    """Commit one change after the other, and let the node do what follows, until nothing waits."""
    await wait_all_tasks_blocked()
    while store.held:
        store.commit()
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Return("done"), TaskStatus.COMPLETE),
        (Raise(ValueError("no")), TaskStatus.FAILED),
        (Raise(PeertaskError("no", code=ErrorCode.STORE_FAILED)), TaskStatus.COMPLETE),
        (Raise(PeertaskError("no", code=ErrorCode.BUSY)), TaskStatus.COMPLETE),
    ],
)
async def test_an_execution_may_end_before_its_start_is_saved(
    autojump_clock: MockClock, hub: MemoryHub, script: Return | Raise, expected: TaskStatus
) -> None:
    """Nothing waits for the disk, and nothing is lost for it: the end is recorded behind the start."""
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(script)
        task_id = scene.submit(retry=RetryPolicy(backoff_ms=0))
        store.commit()
        await scene.executor.wait_until_ended(1)
        assert scene.record(task_id).status is TaskStatus.PENDING
        for _ in range(3):
            await commit_all(store)
            await trio.sleep(1)
        assert scene.record(task_id).status is expected
        facts = scene.facts(task_id)
        assert facts[:3] == [Submitted, Claimed, Started]


async def test_a_task_begins_while_it_is_being_saved_and_nobody_is_told(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What a crash could take back is not seen: neither the task nor its result."""
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(Return("done"))
        await wait_all_tasks_blocked()
        task_id = scene.submit()
        await scene.executor.wait_until_ended(1)
        assert scene.node.manager.find_task(task_id) is None
        assert scene.facts(task_id) == []
        await commit_all(store)
        assert scene.facts(task_id) == [Submitted, Claimed, Started, Completed]
        assert len(scene.executor.seen) == 1
        assert (scene.node.dispatcher.waiting, scene.node.dispatcher.local_load) == (0, 0)


async def test_a_task_that_had_begun_when_a_crash_took_it_back_is_done_when_it_is_asked_for_again(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It was promised to nobody."""
    store = HeldStore()
    async with scene_of(hub, store=store) as scene:
        store.hold()
        await wait_all_tasks_blocked()
        scene.executor.then(Return("lost"))
        task = scene.node.manager.latest(scene.submit()).task
        await scene.executor.wait_until_ended(1)
        store.lose()
    async with started_again(store) as again:
        assert again.node.manager.list_tasks() == []
        again.node.manager.submit(task, requester=PeerId(task.sender), target=PeerId(task.sender))
        assert (await again.node.wait(task.id)).status is TaskStatus.COMPLETE


@pytest.mark.parametrize("script", [Return("done"), Raise(ValueError("no"))])
async def test_a_cancel_and_an_end_may_wait_for_the_disk_together(
    autojump_clock: MockClock, hub: MemoryHub, script: Return | Raise
) -> None:
    """Whatever was recorded last is the end; the loop goes on."""
    async with slow_scene(hub) as (scene, store):
        gate = trio.Event()
        scene.executor.then((Until(gate), script))
        task_id = scene.submit()
        await commit_all(store)
        await scene.executor.wait_until_begun(1)
        scene.node.manager.cancel_task(task_id)
        gate.set()
        await scene.executor.wait_until_ended(1)
        await commit_all(store)
        assert scene.record(task_id).terminal
        store.release()
        assert (await scene.run()).status is TaskStatus.COMPLETE


async def test_a_cancel_may_be_on_its_way_to_the_disk_when_a_deadline_passes(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A task that nobody can start is cancelled, and expires, at once."""
    async with slow_scene(hub) as (scene, store):
        task_id = scene.submit(kind="nobody", timeout_s=1.0)
        await commit_all(store)
        scene.node.manager.cancel_task(task_id)
        await trio.sleep(2)
        await commit_all(store)
        assert scene.record(task_id).status is TaskStatus.CANCELLED
        store.release()
        assert (await scene.run()).status is TaskStatus.COMPLETE


async def test_a_cancel_may_be_on_its_way_to_the_disk_when_the_plan_starts_the_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The task does not run, and its slot stays free."""
    async with slow_scene(hub) as (scene, store):
        task_id = scene.submit()
        store.commit()
        scene.node.manager.cancel_task(task_id)
        await wait_all_tasks_blocked()
        assert scene.executor.seen == []
        await commit_all(store)
        assert scene.record(task_id).status is TaskStatus.CANCELLED
        assert scene.node.dispatcher.local_load == 0


async def test_a_node_may_stop_while_a_claim_is_on_its_way_to_the_disk(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The task is given back behind its claim, so that the next run finds it waiting."""
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(Hang())
        task_id = scene.submit()
        store.commit()
        await scene.executor.wait_until_begun(1)
    assert scene.facts(task_id) == [Submitted, Claimed, Started, Released]


async def test_an_attempt_at_a_task_that_the_store_gives_up_is_dropped(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What another program has taken is not carried out here any more, and its slot is free."""
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(Hang())
        task_id = scene.submit()
        store.commit()
        await wait_all_tasks_blocked()
        assert scene.node.dispatcher.executing == 1
        store.refuse(TAKEN)
        await wait_all_tasks_blocked()
        assert scene.node.dispatcher.executing == 0
        assert scene.facts(task_id) == [Submitted, Failed]
        assert scene.node.manager.find_task(task_id) is None
        assert scene.node.dispatcher.waiting == 0


async def test_a_node_may_stop_while_an_attempt_at_a_task_that_was_given_up_ends(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Nothing is recorded of a task that is not this node's any more."""
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(Hang())
        scene.submit()
        store.commit()
        await wait_all_tasks_blocked()
        store.refuse(TAKEN)
    assert scene.node.manager.list_tasks() == []


async def crashed_with_a_task(hub: MemoryHub) -> tuple[HeldStore, TaskId]:
    """What a node has saved that crashed while it ran a task; from now on the store commits when the test says so."""
    store = HeldStore()
    async with scene_of(hub, store=store) as scene:
        scene.executor.then(Hang())
        task_id = scene.submit()
        await scene.executor.wait_until_begun(1)
        store.lose()
    store.hold()
    return store, task_id


async def test_a_task_that_is_given_up_at_a_start_is_planned_once_that_is_saved(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What was under way when the node crashed runs once more, and once only, however long the disk takes."""
    store, task_id = await crashed_with_a_task(hub)
    async with started_again(store) as again:
        gate = trio.Event()
        again.executor.then((Until(gate), Return("done")))
        await wait_all_tasks_blocked()
        assert again.executor.seen == []
        await commit_all(store)
        gate.set()
        await commit_all(store)
        assert again.record(task_id).status is TaskStatus.COMPLETE
        assert again.facts(task_id) == [Released, Claimed, Started, Completed]
        assert len(again.executor.seen) == 1
        assert again.node.dispatcher.executing == 0


async def test_a_cancel_may_come_before_a_node_has_begun_to_go_on(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A task that was under way when the node crashed is cancelled, and the loop goes on."""
    store, task_id = await crashed_with_a_task(hub)
    async with started_again(store) as again:
        again.node.manager.cancel_task(task_id)
        await commit_all(store)
        assert again.record(task_id).status is TaskStatus.CANCELLED
        store.release()
        assert (await again.run()).status is TaskStatus.COMPLETE


async def test_tasks_that_ended_long_before_their_deadline_are_not_held_on_to(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Behind one that goes on, a thousand tasks for a peer, each with an hour's time, are done: none is kept."""
    ann, ben = MemoryNode(hub, "ann"), MemoryNode(hub, "ben", [ScriptedExecutor().on("goes on", Hang())])
    async with ann.running(), ben.running():
        await ann.connect(ben)
        ann.submit("goes on", to=ben, kind="scripted", timeout_s=1_800.0)
        for _ in range(40):
            tasks = [ann.submit(to=ben, timeout_s=3_600.0) for _ in range(25)]
            for task_id in tasks:
                await ann.wait(task_id)
        assert len(ann.dispatcher._limits) < 200  # noqa: SLF001 - what is held on to shows nowhere else
