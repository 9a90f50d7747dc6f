"""A node that stops and starts again, with tasks under way."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.checkpoints import Checkpoint
from node.stores.memory import MemoryStore
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    ScriptedExecutor,
)
from protocol import (
    ErrorCode,
    PeertaskError,
    Released,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Scene, scene_of, started_again


async def test_a_node_that_stops_gives_back_what_runs(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Executions are stopped, their tasks wait for the next run, which completes them; no retry is used up."""
    store = MemoryStore()
    async with scene_of(hub, ScriptedExecutor(slots=2), store=store) as scene:
        scene.executor.on("a prompt", Hang())
        tasks = [scene.submit() for _ in range(4)]
        await scene.executor.wait_until_begun(2)
        scene.node.manager.cancel_task(tasks[0])
    assert scene.executor.running == 0
    assert scene.record(tasks[0]).status is TaskStatus.CANCELLED
    assert [scene.record(task_id).status for task_id in tasks[1:]] == [TaskStatus.PENDING] * 3
    released = [change.fact for change in scene.told if isinstance(change.fact, Released)]
    assert [fact.reason for fact in released] == [ErrorCode.DRAINING]
    async with started_again(store) as again:
        for task_id in tasks[1:]:
            record = await again.node.wait(task_id)
            assert (record.status, record.failures, record.lost_leases) == (TaskStatus.COMPLETE, 0, 0)


async def test_a_node_that_crashed_goes_on_where_it_was(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """What was waiting, claimed or executing runs again, what was to stop has stopped, what had ended stays."""
    store = HeldStore()
    async with scene_of(hub, store=store) as scene:
        scene.executor.on("hang", Hang())
        done = scene.submit("done")
        executing, stopping = scene.submit("hang"), scene.submit("hang")
        await scene.node.wait(done)
        store.hold()
        scene.node.manager.cancel_task(stopping)
        store.commit(1)
        waiting = scene.submit("waiting")
        store.commit(len(store.held))
        store.lose()
    async with started_again(store) as again:
        ends = {name: await again.node.wait(task_id) for name, task_id in (("e", executing), ("s", stopping))}
        assert (ends["e"].status, ends["e"].attempt, ends["e"].lost_leases) == (TaskStatus.COMPLETE, 2, 1)
        assert ends["s"].status is TaskStatus.CANCELLED
        assert (await again.node.wait(waiting)).status is TaskStatus.COMPLETE
        assert sorted(seen.task.prompt for seen in again.executor.seen) == ["hang", "waiting"]


async def test_draining_starts_nothing_and_waits_for_what_runs(autojump_clock: MockClock, scene: Scene) -> None:
    """What waits keeps waiting; nothing new is taken in."""
    scene.executor.on("a prompt", Delay(5_000)).on("waits", Delay(1))
    scene.executor.slots = 1
    scene.node.dispatcher.wake()
    running = scene.submit()
    await scene.executor.wait_until_begun(1)
    waiting = scene.submit("waits")
    scene.node.manager.draining = True
    begin = trio.current_time()
    await scene.node.dispatcher.drain()
    assert trio.current_time() - begin == pytest.approx(5.0, abs=0.01)
    assert scene.record(running).status is TaskStatus.COMPLETE
    assert scene.record(waiting).status is TaskStatus.PENDING
    with pytest.raises(PeertaskError) as refused:
        scene.submit()
    assert refused.value.code is ErrorCode.DRAINING
    await scene.node.dispatcher.drain()


async def test_a_task_that_comes_with_its_history_is_not_started_again(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What a checkpoint brings back has happened; only what is left of it is done."""
    async with scene_of(hub) as scene:
        done = scene.submit()
        record = await scene.node.wait(done)
        facts = [change.fact for change in scene.told if change.record.id == done]
    async with scene_of(hub, former=scene.node) as scene:
        scene.node.manager.restore(Checkpoint(record, facts))
        await wait_all_tasks_blocked()
        assert scene.record(done).status is TaskStatus.COMPLETE
        assert scene.executor.seen == []
