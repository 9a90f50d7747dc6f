"""When a task of a graph begins, and what reaches it."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from node.coordination.dependencies import INPUTS
from node.testing import (
    Delay,
    Raise,
    Return,
    ScriptedExecutor,
)
from protocol import (
    MAX_PAYLOAD_BYTES,
    ErrorCode,
    PeertaskError,
    TaskStatus,
    new_task_id,
)
from tests.node.graphs.scenes import prompts, submit, task
from tests.node.memory_node import MemoryNode


async def test_a_task_begins_when_all_that_it_depends_on_are_complete(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """It is pending until then, and gets their results by id."""
    executor.on("slow", Delay(500), Return("late")).on("quick", Return("soon"))
    slow, quick = node.submit("slow", kind="scripted"), node.submit("quick", kind="scripted")
    last = node.submit("last", kind="scripted", depends_on=(slow, quick))
    await node.wait(quick)
    record = node.manager.get_task(last)
    assert record.status is TaskStatus.PENDING
    assert node.manager.is_blocked(record)
    assert [(task_id, other and other.status) for task_id, other in node.manager.awaited(record)] == [
        (slow, TaskStatus.EXECUTING)
    ]
    assert node.dispatcher.waiting == 0
    ended = await node.wait(last)
    assert ended.result is not None
    assert executor.seen[-1].task.params == {INPUTS: {slow: "late", quick: "soon"}}
    assert ended.task.params == {}
    assert (node.manager.is_blocked(ended), node.manager.awaited(ended)) == (False, [])


async def test_a_graph_is_carried_out_in_order_whatever_the_order_of_its_tasks(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """A diamond that comes upside down: the two in the middle run at once, between the first and the last."""
    executor.on("left", Delay(300), Return("l")).on("right", Delay(300), Return("r"))
    first = task(node, "first")
    left, right = task(node, "left", first.id), task(node, "right", first.id)
    last = task(node, "last", left.id, right.id)
    records = submit(node, last, right, left, first)
    assert [record.id for record in records] == [last.id, right.id, left.id, first.id]
    begun = trio.current_time()
    await node.wait(last.id)
    assert trio.current_time() - begun < 0.5
    assert sorted(prompts(executor)[1:3]) == ["left", "right"]
    assert (prompts(executor)[0], prompts(executor)[3]) == ("first", "last")


async def test_a_dependency_that_is_complete_already_holds_nobody_up(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Its result is there all the same."""
    done = await node.run("done", kind="scripted")
    await node.run("next", kind="scripted", depends_on=(done.id,))
    assert executor.seen[-1].task.params == {INPUTS: {done.id: "done"}}


async def test_each_attempt_gets_the_inputs(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """A repetition is the same task."""
    executor.on("again", Raise(PeertaskError(code=ErrorCode.LEASE_LOST))).on("again", Return("ok"))
    first = await node.run("first", kind="scripted")
    record = await node.run("again", kind="scripted", depends_on=(first.id,))
    assert record.result is not None
    assert [seen.attempt for seen in executor.seen] == [1, 1, 2]
    assert executor.seen[1].task == executor.seen[2].task


async def test_inputs_that_are_too_large_fail_the_task_in_words(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Each is within the limit, and together they are not; nothing is executed."""
    executor.on("large", Return("x" * (MAX_PAYLOAD_BYTES // 2)))
    large = [await node.run("large", kind="scripted") for _ in range(3)]
    record = await node.run("sum", kind="scripted", depends_on=tuple(one.id for one in large))
    assert record.failure is not None
    assert record.failure.code is ErrorCode.TOO_LARGE
    assert f"{MAX_PAYLOAD_BYTES:,} is the limit" in record.failure.message
    assert prompts(executor) == ["large"] * 3
    assert (await node.run("free", kind="scripted")).result is not None


async def test_a_chain_of_thousands_needs_no_recursion(autojump_clock: MockClock, node: MemoryNode) -> None:
    """Each begins when the one before is complete."""
    ids = [new_task_id() for _ in range(3_000)]
    chain = [
        task(node, "link", *before, id=one, kind="echo")
        for before, one in zip([(), *[(one,) for one in ids]], ids, strict=False)
    ]
    submit(node, *chain)
    assert (await node.wait(ids[-1])).result is not None
