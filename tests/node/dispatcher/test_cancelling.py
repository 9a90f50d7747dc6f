"""Executions that are stopped: by the requester, by a timeout, by a deadline."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from node.interfaces import Change, Execution, Output
from node.testing import (
    Delay,
    Hang,
    MemoryHub,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    ErrorCode,
    Started,
    Submitted,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Careless, Scene, failure_of, scene_of
from tests.node.memory_node import MemoryNode


async def test_a_cancel_stops_an_execution(autojump_clock: MockClock, scene: Scene) -> None:
    """Its children are gone when the task is cancelled, and its slot is free."""
    scene.executor.then(Hang())
    task_id = scene.submit()
    await scene.executor.wait_until_begun(1)
    assert scene.node.manager.cancel_task(task_id).status is TaskStatus.CANCELLING
    record = await scene.node.wait(task_id)
    assert failure_of(record)[:2] == (TaskStatus.CANCELLED, ErrorCode.CANCELLED)
    assert scene.executor.seen[0].ended == "cancelled"
    assert scene.facts(task_id) == [Submitted, Claimed, Started, CancelRequested, Cancelled]
    assert scene.node.dispatcher.executing == scene.node.dispatcher.local_load == 0


async def test_a_cancel_leaves_the_others_alone(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Also those that the same runner carries out later."""
    async with scene_of(hub, ScriptedExecutor(slots=2)) as scene:
        scene.executor.on("go on", Delay(50)).on("stop", Hang())
        tasks = {prompt: [scene.submit(prompt) for _ in range(5)] for prompt in ("stop", "go on")}
        for task_id in tasks["stop"]:
            await trio.sleep(0.01)
            scene.node.manager.cancel_task(task_id)
        for task_id in tasks["stop"]:
            assert (await scene.node.wait(task_id)).status is TaskStatus.CANCELLED
        for task_id in tasks["go on"]:
            assert (await scene.node.wait(task_id)).status is TaskStatus.COMPLETE


async def test_a_task_that_waits_is_cancelled_at_once(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """It never runs."""
    async with scene_of(hub, ScriptedExecutor(slots=1)) as scene:
        gate = trio.Event()
        scene.executor.on("first", Until(gate))
        scene.submit("first")
        second = scene.submit("second")
        await scene.executor.wait_until_begun(1)
        assert scene.node.manager.cancel_task(second).status is TaskStatus.CANCELLED
        gate.set()
        assert (await scene.run("third")).status is TaskStatus.COMPLETE
        assert [seen.task.prompt for seen in scene.executor.seen] == ["first", "third"]


async def test_a_task_that_is_cancelled_between_its_claim_and_its_first_step_never_runs(
    autojump_clock: MockClock, scene: Scene
) -> None:
    """Whoever hears of the claim may cancel at once: the executor never sees the task, and the slot is free."""

    def cancel(change: Change) -> None:
        if change.record.task.prompt == "unwanted" and isinstance(change.fact, Claimed):
            scene.node.manager.cancel_task(change.record.id)

    scene.node.feed.listen(cancel)
    unwanted = [scene.submit("unwanted") for _ in range(20)]
    for task_id in unwanted:
        assert (await scene.node.wait(task_id)).status is TaskStatus.CANCELLED
    assert scene.executor.seen == []
    assert scene.node.dispatcher.local_load == 0
    assert (await scene.run("wanted")).status is TaskStatus.COMPLETE


async def test_a_task_that_is_ready_but_not_begun_can_be_cancelled(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Claimed in the same round as one that cancels it: it is not executed although a runner has it before it."""
    begun: list[str] = []

    async def cancel_the_others(execution: Execution) -> Output:
        begun.append(execution.task.prompt)
        for task_id in others:
            node.manager.cancel_task(task_id)
        return Output("")

    node = MemoryNode(hub, "node", [Careless(cancel_the_others)])
    async with node.running():
        first = node.submit("first", to=node, kind="careless")
        others = [node.submit("other", to=node, kind="careless") for _ in range(3)]
        ends = [(await node.wait(task_id)).status for task_id in (first, *others)]
    assert begun == ["first"]
    assert ends == [TaskStatus.COMPLETE, *[TaskStatus.CANCELLED] * 3]


async def test_a_result_that_was_there_first_is_kept(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """An executor that returns in spite of the cancel completes its task: the work is done."""

    async def finish_anyway(execution: Execution) -> Output:
        node.manager.cancel_task(execution.task.id)
        return Output("done before")

    node = MemoryNode(hub, "node", [Careless(finish_anyway)])
    async with node.running():
        record = await node.run(to=node, kind="careless")
    assert record.status is TaskStatus.COMPLETE
    assert record.result is not None


async def test_what_an_executor_raises_because_it_is_stopped_is_not_its_end(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Cancelled stays cancelled and a timeout stays a timeout, when cleaning up fails, in a child or not."""

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the connection was closed")

    async def with_children(execution: Execution) -> Output:
        if execution.task.prompt == "alone":
            await fail_at_the_end()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)
        return Output("never")

    node = MemoryNode(hub, "node", [Careless(with_children)])
    async with node.running():
        for prompt in ("alone", "with children"):
            task_id = node.submit(prompt, to=node, kind="careless")
            await trio.sleep(1)
            node.manager.cancel_task(task_id)
            assert (await node.wait(task_id)).status is TaskStatus.CANCELLED
            late = await node.run(prompt, to=node, kind="careless", timeout_ms=100)
            assert failure_of(late)[1] is ErrorCode.TIMEOUT
        left = [node.submit(prompt, to=node, kind="careless") for prompt in ("alone", "with children")]
        await trio.sleep(1)
    assert [node.manager.get_task(task_id).status for task_id in left] == [TaskStatus.PENDING] * 2


async def test_the_children_of_an_execution_are_gone_when_it_is_cancelled(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Whatever it started in a nursery has ended, cleaning up included, before the task is told to be cancelled."""
    events: list[str] = []

    async def child(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            events.append(name)

    async def with_children(_execution: Execution) -> Output:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "one")
            nursery.start_soon(child, "two")
        return Output("never")

    node = MemoryNode(hub, "node", [Careless(with_children)])
    async with node.running():
        task_id = node.submit(to=node, kind="careless")
        await trio.sleep(1)
        node.manager.cancel_task(task_id)
        assert (await node.wait(task_id)).status is TaskStatus.CANCELLED
        assert sorted(events) == ["one", "two"]
