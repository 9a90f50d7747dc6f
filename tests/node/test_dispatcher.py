"""The loop: tasks reach executors, and what comes of them is recorded, whatever the executors and the store do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.checkpoints import Checkpoint
from node.dispatcher import PROGRESS_INTERVAL_MS
from node.executors.mock import MAX_DELAY_MS, MIN_DELAY_MS, MockExecutor
from node.interfaces import Change, Execution, Executor, Output
from node.stores.memory import MemoryStore
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    Raise,
    Report,
    Return,
    ScriptedExecutor,
    Until,
    open_memory_hub,
)
from protocol import (
    MAX_MESSAGE_CHARS,
    Artifact,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    PeerId,
    PeertaskError,
    Progressed,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskId,
    TaskRecord,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode

# Bounds a wait in which the test looks again every millisecond.
UNTIL_S = 60.0


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    """What lies between the nodes of a test."""
    async with open_memory_hub() as hub:
        yield hub


class Scene:
    """A node with a scripted executor of its own."""

    def __init__(self, node: MemoryNode, executor: ScriptedExecutor) -> None:
        self.node = node
        self.executor = executor
        self.told: list[Change] = []
        node.feed.listen(self.told.append)

    def submit(self, prompt: str = "a prompt", **options: Any) -> TaskId:
        """Take a task for the scripted executor in."""
        return self.node.submit(prompt, to=self.node, **{"kind": self.executor.kind, **options})

    async def run(self, prompt: str = "a prompt", **options: Any) -> TaskRecord:
        """Submit it, and return how it ended."""
        return await self.node.wait(self.submit(prompt, **options))

    def record(self, task_id: TaskId) -> TaskRecord:
        """What is known of a task."""
        return self.node.manager.get_task(task_id)

    def facts(self, task_id: TaskId) -> list[type[object]]:
        """What has happened to a task."""
        return [type(change.fact) for change in self.told if change.record.id == task_id]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when something holds; looks at it after each round of the scheduler in which something happened."""
        with trio.fail_after(UNTIL_S):
            while not condition():
                await trio.sleep(0.001)


@asynccontextmanager
async def scene_of(hub: MemoryHub, executor: ScriptedExecutor | None = None, **options: Any) -> AsyncIterator[Scene]:
    """A scene that runs."""
    executor = executor or ScriptedExecutor()
    scene = Scene(MemoryNode(hub, "node", [executor], **options), executor)
    async with scene.node.running():
        yield scene


@pytest.fixture
async def scene(hub: MemoryHub) -> AsyncIterator[Scene]:
    """A scene with 16 slots."""
    async with scene_of(hub) as scene:
        yield scene


def failure_of(record: TaskRecord) -> tuple[TaskStatus, ErrorCode | None, str]:
    """How a task has ended without a result."""
    failure = record.failure
    if failure is None:
        return record.status, None, ""
    return record.status, failure.code, failure.message


# --- a life ----------------------------------------------------------------------------------------------------------


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


# --- failures --------------------------------------------------------------------------------------------------------


class Careless(Executor):
    """Calls what the test gives it, and checks nothing."""

    kind, slots, safe = "careless", 4, True

    def __init__(self, function: Callable[[Execution], Any]) -> None:
        self._function = function

    async def execute(self, execution: Execution) -> Output:
        """Call the function."""
        return await self._function(execution)  # type: ignore[no-any-return]


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


# --- cancelling ------------------------------------------------------------------------------------------------------


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


# --- progress --------------------------------------------------------------------------------------------------------


async def test_progress_is_recorded_ten_times_a_second_at_the_most(autojump_clock: MockClock, scene: Scene) -> None:
    """However often an executor reports; the first report comes through at once."""
    steps = [step for number in range(1_000) for step in (Report(number / 1_000, f"step {number}"), Delay(1))]
    scene.executor.then(tuple(steps))
    task_id = scene.submit()
    await scene.node.wait(task_id)
    reports = [change.fact for change in scene.told if isinstance(change.fact, Progressed)]
    assert 9 <= len(reports) <= 11
    assert reports[0].fraction == 0
    gaps = [later.at - earlier.at for earlier, later in pairwise(reports)]
    assert min(gaps) >= PROGRESS_INTERVAL_MS
    assert scene.facts(task_id)[-1] is Completed


@pytest.mark.parametrize(
    ("fraction", "message", "expected"),
    [
        (1.7, "too much", (1.0, "too much")),
        (-3.0, "too little", (0.0, "too little")),
        (float("nan"), "nonsense", (0.0, "nonsense")),
        (0.5, "x" * 10_000, (0.5, "x" * MAX_MESSAGE_CHARS)),
        (0.5, "a lone surrogate: \ud800", (0.5, "a lone surrogate: ?")),
    ],
)
async def test_a_report_is_made_to_fit(
    autojump_clock: MockClock, scene: Scene, fraction: float, message: str, expected: tuple[float, str]
) -> None:
    """What an executor says too much of neither fails its task nor reaches those who watch."""
    scene.executor.then((Report(fraction, message), Return("done")))
    task_id = scene.submit()
    assert (await scene.node.wait(task_id)).status is TaskStatus.COMPLETE
    (report,) = [change.fact for change in scene.told if isinstance(change.fact, Progressed)]
    assert (report.fraction, report.message) == expected


async def test_nothing_is_reported_after_the_end(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """An execution that kept its handle says what it likes: the record stays as it is."""
    kept: list[Execution] = []

    async def keep(execution: Execution) -> Output:
        kept.append(execution)
        return Output("done")

    node = MemoryNode(hub, "node", [Careless(keep)])
    async with node.running():
        record = await node.run(to=node, kind="careless")
        kept[0].progress(0.5, "still here")
        kept[0].started()
        assert node.manager.get_task(record.id) == record


# --- stopping and starting again -------------------------------------------------------------------------------------


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
    async with open_memory_hub() as another_hub, scene_of(another_hub, store=store) as again:
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
    async with open_memory_hub() as another_hub, scene_of(another_hub, store=store) as again:
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


# --- a store that takes time -----------------------------------------------------------------------------------------


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
    async with open_memory_hub() as another_hub, scene_of(another_hub, store=store) as again:
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
    taken = PeertaskError("another process has changed the task", code=ErrorCode.CONFLICT)
    async with slow_scene(hub) as (scene, store):
        scene.executor.then(Hang())
        task_id = scene.submit()
        store.commit()
        await wait_all_tasks_blocked()
        assert scene.node.dispatcher.executing == 1
        store.refuse(taken)
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
        store.refuse(PeertaskError("another process has changed the task", code=ErrorCode.CONFLICT))
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
    async with open_memory_hub() as another_hub, scene_of(another_hub, store=store) as again:
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
    async with open_memory_hub() as another_hub, scene_of(another_hub, store=store) as again:
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
