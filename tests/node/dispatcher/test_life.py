"""Tasks reach executors, and what comes of them is recorded."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.executors.mock import MAX_DELAY_MS, MIN_DELAY_MS, MockExecutor
from node.interfaces import Output
from node.testing import (
    Delay,
    MemoryHub,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Artifact,
    Claimed,
    Completed,
    Started,
    Submitted,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Scene, scene_of
from tests.node.memory_node import MemoryNode


async def test_a_task_is_executed_and_its_result_recorded(autojump_clock: MockClock, scene: Scene) -> None:
    """Submitted, claimed, started, complete: with the text, the artifacts and the time that it took."""
    # covers CORE-9, CORE-15, CORE-16, CORE-20
    artifact = Artifact(name="plot", content="data")
    scene.executor.then((Delay(250), Return(Output("done", (artifact,)))))
    task_id = scene.submit()
    record = await scene.node.wait(task_id)
    assert record.result is not None
    assert (record.result.result, record.result.artifacts) == ("done", (artifact,))
    assert record.result.duration_ms == 250
    assert (record.status, record.attempt, record.holder) == (TaskStatus.COMPLETE, 1, scene.node.peer_id)
    assert scene.facts(task_id) == [Submitted, Claimed, Started, Completed]


async def test_the_mock_executor_answers_after_its_delay(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The first task of a new user: its result names the prompt, after 100 to 500 ms."""
    # covers CORE-5, CORE-6, CORE-7, CORE-14, CORE-34
    node = MemoryNode(hub, "node", [MockExecutor(seed=1)])
    async with node.running():
        record = await node.run("say hello", to=node, kind="mock")
        assert record.result is not None
        assert record.result.result == "Mock result for: say hello"
        assert MIN_DELAY_MS <= record.result.duration_ms <= MAX_DELAY_MS + 1


async def test_several_tasks_run_at_once_and_are_tracked_accurately(autojump_clock: MockClock, scene: Scene) -> None:
    """Forty tasks over sixteen slots: at every moment the statuses add up, and each ends with its own result."""
    # covers CORE-17
    tasks = {}
    for number in range(40):
        prompt = f"prompt {number}"
        scene.executor.on(prompt, Delay(10 + number % 7), Return(f"result {number}"))
        tasks[scene.submit(prompt)] = f"result {number}"
    while scene.node.manager.open_tasks:
        await trio.sleep(0.001)
        statuses = [scene.record(task_id).status for task_id in tasks]
        assert statuses.count(TaskStatus.EXECUTING) == scene.executor.running == scene.node.dispatcher.executing
        assert statuses.count(TaskStatus.PENDING) == scene.node.dispatcher.waiting
        assert statuses.count(TaskStatus.COMPLETE) == len(tasks) - scene.node.manager.open_tasks
    results = {task_id: scene.node.manager.get_result(task_id) for task_id in tasks}
    assert {task_id: result.result for task_id, result in results.items() if result} == tasks
    assert scene.executor.most_at_once == 16


@pytest.mark.parametrize("slots", [1, 3, 100])
async def test_slots_are_used_and_never_exceeded(autojump_clock: MockClock, hub: MemoryHub, slots: int) -> None:
    """As many executions at once as the executor has slots, from the first moment until the queue is empty."""
    async with scene_of(hub, ScriptedExecutor(slots=slots)) as scene:
        for number in range(2 * slots + 1):
            scene.executor.on(f"prompt {number}", Delay(100))
            scene.submit(f"prompt {number}")
        await wait_all_tasks_blocked()
        assert scene.executor.running == slots
        begin = trio.current_time()
        await scene.until(lambda: not scene.node.manager.open_tasks)
        assert scene.executor.most_at_once == slots
        assert trio.current_time() - begin == pytest.approx(0.3, abs=0.01)


async def test_urgent_tasks_go_first(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """With one slot: by priority, and then in the order of coming."""
    async with scene_of(hub, ScriptedExecutor(slots=1)) as scene:
        gate = trio.Event()
        scene.executor.on("first", Until(gate))
        scene.submit("first", priority=0)
        await scene.executor.wait_until_begun(1)
        for prompt, priority in (("low", 1), ("high", 9), ("middle", 5), ("high too", 9)):
            scene.submit(prompt, priority=priority)
            await trio.sleep(0.002)
        gate.set()
        await scene.executor.wait_until_ended(5)
        assert [seen.task.prompt for seen in scene.executor.seen] == ["first", "high", "high too", "middle", "low"]


async def test_an_executor_may_be_replaced_while_the_node_runs(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Tasks that come later go to the new one, as many at once as it has slots."""
    async with scene_of(hub, ScriptedExecutor(slots=4)) as scene:
        assert (await scene.run()).status is TaskStatus.COMPLETE
        for slots in (2, 6):
            replacement = ScriptedExecutor(slots=slots)
            scene.node.executors[replacement.kind] = replacement
            scene.node.dispatcher.wake()
            replacement.on("a prompt", Delay(10))
            for _ in range(8):
                scene.submit()
            await scene.until(lambda: not scene.node.manager.open_tasks)
            assert replacement.most_at_once == slots
        assert len(scene.executor.seen) == 1


async def test_a_task_whose_kind_comes_later_waits_for_it(autojump_clock: MockClock, scene: Scene) -> None:
    """Registering an executor starts what has waited for it."""
    task_id = scene.submit(kind="later")
    await wait_all_tasks_blocked()
    assert scene.record(task_id).status is TaskStatus.PENDING
    scene.node.executors["later"] = ScriptedExecutor("later")
    scene.node.dispatcher.wake()
    assert (await scene.node.wait(task_id)).status is TaskStatus.COMPLETE
