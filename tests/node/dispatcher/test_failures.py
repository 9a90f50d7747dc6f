"""Executors that fail, in every way there is, and what becomes of the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.interfaces import Execution, Output
from node.testing import (
    Delay,
    Hang,
    MemoryHub,
    Raise,
    Report,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    PeertaskError,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskRecord,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Careless, Scene, failure_of, scene_of
from tests.node.memory_node import MemoryNode


async def run_careless(hub: MemoryHub, function: Callable[[Execution], Any], **options: Any) -> TaskRecord:
    """Run one task with a function as its executor, and then see that the node still works."""
    node = MemoryNode(hub, "careless", [Careless(function)])
    async with node.running():
        record = await node.run(to=node, kind="careless", **options)
        assert (await node.run(to=node)).status is TaskStatus.COMPLETE
        return record


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no disk"), "ValueError: no disk"),
        (ExceptionGroup("several", [ValueError("one"), OSError("two")]), "several"),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (ValueError("\ud800"), "ValueError: ?"),
        (PeertaskError("not here", code=ErrorCode.INVALID_TASK), "not here"),
    ],
)
async def test_what_an_executor_raises_fails_the_task_with_its_message(
    autojump_clock: MockClock, scene: Scene, error: Exception, message: str
) -> None:
    """Without a traceback, without a retry; the next task runs."""
    scene.executor.then(Raise(error))
    status, code, text = failure_of(await scene.run())
    expected = error.code if isinstance(error, PeertaskError) else ErrorCode.EXECUTION_FAILED
    assert (status, code) == (TaskStatus.FAILED, expected)
    assert message in text
    assert "Traceback" not in text
    assert (await scene.run()).status is TaskStatus.COMPLETE


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        b"bytes",
        Output(5),  # type: ignore[arg-type]
        Output("\ud800"),
        Output("x", (None,)),  # type: ignore[arg-type]
        ValueError("returned"),
    ],
)
async def test_what_cannot_be_a_result_fails_the_task(autojump_clock: MockClock, hub: MemoryHub, value: Any) -> None:
    """An executor with a defect neither ends the node nor completes its task with nonsense."""

    async def return_it(_execution: Execution) -> Any:
        return value

    status, code, text = failure_of(await run_careless(hub, return_it))
    assert (status, code) == (TaskStatus.FAILED, ErrorCode.EXECUTION_FAILED)
    assert text


async def test_a_retryable_failure_is_tried_again_with_back_off(autojump_clock: MockClock, scene: Scene) -> None:
    """Until it works: each attempt later than the last, and the record counts them."""
    retryable = Raise(PeertaskError("the disk is away", code=ErrorCode.STORE_FAILED))
    scene.executor.then(retryable, retryable, Return("at last"))
    task_id = scene.submit()
    record = await scene.node.wait(task_id)
    assert record.result is not None
    assert record.result.result == "at last"
    assert (record.attempt, record.failures, record.lost_leases) == (3, 2, 0)
    assert scene.facts(task_id) == [
        Submitted,
        *[Claimed, Started, Released] * 2,
        *[Claimed, Started, Completed],
    ]
    released = [change.fact for change in scene.told if isinstance(change.fact, Released)]
    claimed = [change.fact for change in scene.told if isinstance(change.fact, Claimed)]
    for release, claim in zip(released, claimed[1:], strict=True):
        assert release.at < release.not_before <= claim.at <= release.not_before + 5


async def test_retries_come_to_an_end(autojump_clock: MockClock, scene: Scene) -> None:
    """A task fails with the last error when its attempts are used up."""
    scene.executor.on("a prompt", Raise(PeertaskError("the disk is away", code=ErrorCode.STORE_FAILED)))
    record = await scene.run(retry=RetryPolicy(attempts=4, backoff_ms=10))
    assert failure_of(record) == (TaskStatus.FAILED, ErrorCode.STORE_FAILED, "the disk is away")
    assert len(scene.executor.seen) == record.attempt == 4


@pytest.mark.parametrize("script", [(Hang(),), (Report(0.5), Delay(5_000)), (Delay(1_001),)])
async def test_an_execution_that_takes_longer_than_its_timeout_is_stopped(
    autojump_clock: MockClock, scene: Scene, script: Any
) -> None:
    """TIMEOUT after exactly that time; the slot is free again."""
    scene.executor.then(script)
    begin = trio.current_time()
    status, code, text = failure_of(await scene.run(timeout_ms=1_000))
    assert (status, code) == (TaskStatus.FAILED, ErrorCode.TIMEOUT)
    assert "1000 ms" in text
    assert trio.current_time() - begin == pytest.approx(1.0, abs=0.01)
    assert scene.executor.seen[0].ended == "cancelled"


async def test_a_timeout_of_one_task_does_not_touch_the_next(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """With one slot, one after the other: only what is too slow itself ends so."""
    async with scene_of(hub, ScriptedExecutor(slots=1)) as scene:
        scene.executor.on("quick", Delay(900)).on("slow", Hang())
        tasks = [
            scene.submit(prompt, timeout_ms=limit)
            for prompt, limit in (("quick", 1_000), ("quick", None), ("slow", 50), ("quick", 1_000), ("quick", None))
        ]
        ends = [(await scene.node.wait(task_id)).status for task_id in tasks]
        assert ends.count(TaskStatus.FAILED) == 1
        assert ends[2] is TaskStatus.FAILED


async def test_a_deadline_ends_an_execution(autojump_clock: MockClock, scene: Scene) -> None:
    """The time that the requester gave includes the waiting; an earlier timeout goes first."""
    scene.executor.on("a prompt", Hang())
    late = scene.submit(timeout_s=2.0, timeout_ms=3_000)
    slow = scene.submit(timeout_s=2.0, timeout_ms=1_000)
    status, code, _ = failure_of(await scene.node.wait(late))
    assert (status, code) == (TaskStatus.FAILED, ErrorCode.DEADLINE_EXCEEDED)
    assert failure_of(await scene.node.wait(slow))[1] is ErrorCode.TIMEOUT
    assert scene.executor.running == 0


async def test_a_task_whose_deadline_passes_while_it_waits_is_never_started(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It fails on time, not when its turn would have come."""
    async with scene_of(hub, ScriptedExecutor(slots=1)) as scene:
        gate = trio.Event()
        scene.executor.on("first", Until(gate))
        scene.submit("first")
        begin = trio.current_time()
        status, code, message = failure_of(await scene.run("second", timeout_s=0.5))
        assert (status, code) == (TaskStatus.FAILED, ErrorCode.DEADLINE_EXCEEDED)
        assert "it waited for a free slot: every worker that can have it is full" in message
        assert trio.current_time() - begin == pytest.approx(0.5, abs=0.01)
        assert failure_of(await scene.run("third", timeout_s=0))[1] is ErrorCode.DEADLINE_EXCEEDED
        gate.set()
        await scene.until(lambda: not scene.node.manager.open_tasks)
        assert [seen.task.prompt for seen in scene.executor.seen] == ["first"]


async def test_an_executor_knows_how_long_the_requester_still_cares(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """In remaining milliseconds, 0 at the least; None without a deadline."""
    seen: list[int | None] = []

    async def look(execution: Execution) -> Output:
        seen.append(execution.remaining_ms())
        return Output("")

    await run_careless(hub, look, timeout_s=2.0)
    await run_careless_again(hub, look)
    assert seen == [2_000, None]


async def run_careless_again(hub: MemoryHub, function: Callable[[Execution], Any]) -> TaskRecord:
    """As `run_careless`, for a second node of the same hub."""
    node = MemoryNode(hub, "careless again", [Careless(function)])
    async with node.running():
        return await node.run(to=node, kind="careless")
