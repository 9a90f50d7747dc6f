"""Tasks that a peer carries out: delegation here, the peer gateway there, and every way to lose the link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.executors.remote import MAX_OWED_CANCELS, RemoteDelegate
from node.interfaces import Change, Delegation, Outcome, Output
from node.retention import Capacity
from node.testing import (
    Delay,
    FakeExecution,
    Hang,
    HeldStore,
    MemoryHub,
    MemoryNetwork,
    Raise,
    RecordingHandler,
    Report,
    Return,
    ScriptedExecutor,
    Until,
    make_task,
    open_memory_hub,
)
from protocol import (
    DEFAULT_LIMITS,
    Accept,
    Artifact,
    Cancel,
    Claimed,
    Completed,
    ErrorCode,
    Failure,
    Frame,
    Limits,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Progressed,
    Reject,
    Released,
    Result,
    RetryPolicy,
    Started,
    Submit,
    Task,
    TaskFailed,
    TaskId,
    TaskRecord,
    TaskResult,
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


class Pair:
    """A requester and a worker with a scripted executor."""

    def __init__(self, hub: MemoryHub, executor: ScriptedExecutor, **worker: Any) -> None:
        self.hub = hub
        self.executor = executor
        self.ann = MemoryNode(hub, "ann")
        self.ben = MemoryNode(hub, "ben", [executor], **worker)
        self.told: list[Change] = []
        self.ann.feed.listen(self.told.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pair]:
        """Run both, connected."""
        async with self.ann.running(), self.ben.running():
            await self.ann.connect(self.ben)
            yield self

    def submit(self, prompt: str = "a prompt", **options: Any) -> TaskId:
        """Let Ann ask Ben."""
        return self.ann.submit(prompt, to=self.ben, **{"kind": self.executor.kind, **options})

    async def run(self, prompt: str = "a prompt", **options: Any) -> TaskRecord:
        """Let Ann ask Ben, and return how it ended for her."""
        return await self.ann.wait(self.submit(prompt, **options))

    def cut(self) -> None:
        """Break the link."""
        self.hub.cut(self.ann.peer_id, self.ben.peer_id)

    def heal(self) -> None:
        """Mend it."""
        self.hub.heal(self.ann.peer_id, self.ben.peer_id)

    def facts(self, kind: type[Any]) -> list[Any]:
        """The facts of one kind that Ann has recorded."""
        return [change.fact for change in self.told if isinstance(change.fact, kind)]


@asynccontextmanager
async def pair_on(hub: MemoryHub, executor: ScriptedExecutor | None = None, **worker: Any) -> AsyncIterator[Pair]:
    """A pair that runs."""
    async with Pair(hub, executor or ScriptedExecutor(), **worker).running() as pair:
        yield pair


@pytest.fixture
async def pair(hub: MemoryHub) -> AsyncIterator[Pair]:
    """A pair that runs."""
    async with pair_on(hub) as pair:
        yield pair


def code_of(record: TaskRecord) -> ErrorCode | None:
    """Why a task has no result."""
    return None if record.failure is None else record.failure.code


async def until(condition: Callable[[], bool]) -> None:
    """Return when something holds."""
    with trio.fail_after(UNTIL_S):
        while not condition():
            await trio.sleep(0.001)


# --- a life ----------------------------------------------------------------------------------------------------------


async def test_a_peer_carries_a_task_out(autojump_clock: MockClock, pair: Pair) -> None:
    """Its result is the worker's, with the time that the execution took there; both sides have a record of it."""
    # covers CORE-16, CORE-31
    artifact = Artifact(name="plot", content="data")
    pair.executor.then((Delay(250), Return(Output("done", (artifact,)))))
    record = await pair.run()
    assert record.result is not None
    assert (record.result.result, record.result.artifacts) == ("done", (artifact,))
    assert 250 <= record.result.duration_ms <= 251
    assert (record.holder, record.attempt, record.requester) == (pair.ben.peer_id, 1, pair.ann.peer_id)
    (theirs,) = pair.ben.tasks_of(pair.ann)
    assert (theirs.id, theirs.task, theirs.result) == (record.id, record.task, record.result)
    assert (theirs.target, theirs.status) == (pair.ben.peer_id, TaskStatus.COMPLETE)


async def test_many_tasks_between_two_nodes_each_get_their_own_result(autojump_clock: MockClock, pair: Pair) -> None:
    """In both directions at once, more than run at a time."""
    # covers CORE-17
    tasks = {pair.submit(f"prompt {number}"): f"prompt {number}" for number in range(300)}
    back = [pair.ben.submit(f"echo {number}", to=pair.ann) for number in range(300)]
    for task_id, prompt in tasks.items():
        record = await pair.ann.wait(task_id)
        assert record.result is not None
        assert record.result.result == prompt
    assert {(await pair.ben.wait(task_id)).status for task_id in back} == {TaskStatus.COMPLETE}
    assert len(pair.executor.seen) == 300


async def test_progress_reaches_the_requester(autojump_clock: MockClock, pair: Pair) -> None:
    """As facts of its own record, in order, between the start and the end."""
    steps = [step for number in range(1, 4) for step in (Report(number / 4, f"step {number}"), Delay(150))]
    pair.executor.then(tuple(steps))
    record = await pair.run()
    assert [(fact.fraction, fact.message) for fact in pair.facts(Progressed)] == [
        (0.25, "step 1"),
        (0.5, "step 2"),
        (0.75, "step 3"),
    ]
    order = [type(change.fact) for change in pair.told if change.record.id == record.id]
    assert order[1:] == [Claimed, Started, Progressed, Progressed, Progressed, Completed]


async def test_a_failure_at_the_worker_is_the_failure_of_the_task(autojump_clock: MockClock, pair: Pair) -> None:
    """With its code and message; the worker's retries count, and the requester adds none of its own."""
    pair.executor.then(Raise(ValueError("no disk")))
    record = await pair.run()
    assert record.failure == pair.ben.manager.get_task(record.id).failure
    assert (code_of(record), record.attempt) == (ErrorCode.EXECUTION_FAILED, 1)
    pair.executor.on("retryable", Raise(PeertaskError("the disk is away", code=ErrorCode.STORE_FAILED)))
    record = await pair.run("retryable", retry=RetryPolicy(attempts=3, backoff_ms=10))
    assert (code_of(record), record.attempt) == (ErrorCode.STORE_FAILED, 1)
    assert sum(seen.task.prompt == "retryable" for seen in pair.executor.seen) == 3


async def test_a_deadline_travels_as_remaining_time(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The worker knows how much is left on its own clock, and ends the work when it is used up."""
    async with pair_on(hub, ScriptedExecutor(slots=1)) as pair:
        pair.executor.on("slow", Hang())
        slow = pair.submit("slow", timeout_s=3.0)
        await pair.executor.wait_until_begun(1)
        theirs = pair.ben.manager.get_task(slow)
        assert theirs.deadline is not None
        assert theirs.deadline - theirs.created_at == 3_000
        behind = pair.submit("behind", timeout_s=1.0)
        assert code_of(await pair.ann.wait(behind)) is ErrorCode.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(1.0, abs=0.1)
        assert code_of(await pair.ann.wait(slow)) is ErrorCode.DEADLINE_EXCEEDED
        await until(lambda: not pair.ben.manager.open_tasks)
        assert [seen.ended for seen in pair.executor.seen] == ["cancelled"]


async def test_a_timeout_is_kept_by_the_worker(autojump_clock: MockClock, pair: Pair) -> None:
    """For one execution, from its start."""
    pair.executor.then(Hang())
    record = await pair.run(timeout_ms=400)
    assert code_of(record) is ErrorCode.TIMEOUT
    assert pair.executor.running == 0


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_a_kind_that_the_worker_does_not_have_is_refused_naming_its_kinds(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """NO_EXECUTOR at once, and nothing is recorded there."""
    record = await pair.run(kind="dance")
    assert code_of(record) is ErrorCode.NO_EXECUTOR
    assert record.failure is not None
    assert "echo, scripted" in record.failure.message
    assert "ben" in record.failure.message
    assert pair.ben.tasks_of(pair.ann) == []


async def test_a_closed_kind_is_refused_until_the_operator_allows_it(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """FORBIDDEN names the peer and what the operator can do."""
    async with pair_on(hub, ScriptedExecutor("private", safe=False)) as pair:
        record = await pair.run()
        assert code_of(record) is ErrorCode.FORBIDDEN
        assert record.failure is not None
        assert "--allow ann" in record.failure.message
        assert pair.ben.tasks_of(pair.ann) == []
        pair.ben.allow["private"] = (pair.ann.peer_id,)
        assert (await pair.run()).status is TaskStatus.COMPLETE


async def test_a_task_that_this_node_has_from_another_peer_conflicts(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A UUID that two requesters use names two tasks: the second one is told."""
    async with pair_on(hub) as pair, MemoryNode(hub, "eve").running() as eve:
        await eve.connect(pair.ben)
        first = await pair.run("first")
        stolen = eve.submit("second", to=pair.ben, kind="scripted", id=first.id)
        assert code_of(await eve.wait(stolen)) is ErrorCode.CONFLICT
        assert pair.ben.manager.get_task(first.id).requester == pair.ann.peer_id


async def test_a_task_that_is_too_large_for_the_worker_fails_before_it_is_sent(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The error names the limit; small tasks go on."""
    async with pair_on(hub, limits=Limits(payload=2_000)) as pair:
        record = await pair.run("x" * 3_000)
        assert code_of(record) is ErrorCode.TOO_LARGE
        assert record.failure is not None
        assert "2,000" in record.failure.message or "2000" in record.failure.message
        assert (await pair.run()).status is TaskStatus.COMPLETE


async def test_a_result_that_is_too_large_for_the_requester_is_a_failure(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The worker did the work, and says why its result cannot come; the session goes on."""
    executor = ScriptedExecutor()
    ann = MemoryNode(hub, "ann", limits=Limits(payload=2_000))
    ben = MemoryNode(hub, "ben", [executor])
    executor.on("large", Return("x" * 3_000))
    async with ann.running(), ben.running():
        await ann.connect(ben)
        assert code_of(await ann.run("large", to=ben, kind="scripted")) is ErrorCode.TOO_LARGE
        assert (await ann.run("small", to=ben, kind="scripted")).status is TaskStatus.COMPLETE
        assert len(executor.seen) == 2


async def test_a_busy_worker_is_asked_again_until_it_has_room(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """BUSY costs no retry: more tasks than the worker holds all complete, each executed once."""
    async with pair_on(hub, capacity=Capacity(open_tasks=3)) as pair:
        tasks = []
        for number in range(40):
            pair.executor.on(f"prompt {number}", Delay(30))
            tasks.append(pair.submit(f"prompt {number}", retry=RetryPolicy(attempts=1)))
        for task_id in tasks:
            record = await pair.ann.wait(task_id)
            assert (record.status, record.failures, record.lost_leases) == (TaskStatus.COMPLETE, 0, 0)
        assert len(pair.executor.seen) == 40
        assert {fact.reason for fact in pair.facts(Released)} == {ErrorCode.BUSY}


async def test_two_nodes_that_are_full_of_tasks_for_each_other_do_them(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What a node waits for takes no room from what it is asked for, else both would be BUSY for ever."""
    capacity = Capacity(open_tasks=2)
    ann, ben = (MemoryNode(hub, name, capacity=capacity) for name in ("ann", "ben"))
    async with ann.running(), ben.running():
        await ann.connect(ben)
        asked = [(one, one.submit(to=other)) for one, other in ((ann, ben), (ben, ann)) for _ in range(2)]
        with trio.fail_after(60):
            for node, task_id in asked:
                assert (await node.wait(task_id)).status is TaskStatus.COMPLETE


@pytest.mark.slow
async def test_ten_thousand_tasks_at_a_worker_with_room_for_256_all_complete(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The requester keeps to what the worker announces: nothing is refused, and no more is under way than fits."""
    async with pair_on(hub) as pair:
        most = 0

        def measure(_change: Change) -> None:
            nonlocal most
            most = max(most, pair.ben.manager.open_tasks, pair.ann.dispatcher.executing)

        pair.ben.feed.listen(measure)
        tasks = [pair.submit(kind="echo") for _ in range(10_000)]
        await until(lambda: not pair.ann.manager.open_tasks)
        assert {pair.ann.manager.get_task(task_id).status for task_id in tasks} == {TaskStatus.COMPLETE}
        assert most <= DEFAULT_LIMITS.in_flight
        assert [record.attempt for record in pair.ben.tasks_of(pair.ann)] == [1] * 10_000
        assert pair.facts(Released) == []


async def test_a_worker_that_is_stopping_is_asked_again(autojump_clock: MockClock, pair: Pair) -> None:
    """DRAINING costs no retry; the task completes when the worker takes tasks again."""
    pair.ben.manager.draining = True
    task_id = pair.submit(retry=RetryPolicy(attempts=1))
    await trio.sleep(5)
    assert pair.ann.manager.get_task(task_id).status is not TaskStatus.FAILED
    pair.ben.manager.draining = False
    assert (await pair.ann.wait(task_id)).status is TaskStatus.COMPLETE


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_cancel_stops_the_execution_at_the_worker(autojump_clock: MockClock, pair: Pair) -> None:
    """Both sides record it, and the worker's executor has stopped first."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    pair.ann.manager.cancel_task(task_id)
    record = await pair.ann.wait(task_id)
    assert record.status is pair.ben.manager.get_task(task_id).status is TaskStatus.CANCELLED
    assert pair.executor.seen[0].ended == "cancelled"


async def test_a_cancel_right_behind_the_task_stops_it_too(autojump_clock: MockClock, pair: Pair) -> None:
    """Before the worker has answered."""

    def cancel(change: Change) -> None:
        if isinstance(change.fact, Claimed):
            cancels.append(change.record.id)

    cancels: list[TaskId] = []
    pair.ann.feed.listen(cancel)
    pair.executor.on("a prompt", Hang())
    task_id = pair.submit()
    while not cancels:
        await trio.lowlevel.checkpoint()
    pair.ann.manager.cancel_task(task_id)
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    assert pair.executor.running == 0
    assert (await pair.run("next")).status is TaskStatus.COMPLETE


async def test_a_task_that_is_cancelled_as_soon_as_it_is_claimed_is_stopped(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """Whoever hears of the claim may cancel at once: the peer is told to stop right behind the task."""

    def cancel(change: Change) -> None:
        if change.record.task.prompt == "unwanted" and isinstance(change.fact, Claimed):
            pair.ann.manager.cancel_task(change.record.id)

    pair.ann.feed.listen(cancel)
    assert (await pair.run("unwanted")).status is TaskStatus.CANCELLED
    assert (await pair.run("wanted")).status is TaskStatus.COMPLETE
    assert {record.task.prompt: record.status.value for record in pair.ben.tasks_of(pair.ann)} == {
        "unwanted": "cancelled",
        "wanted": "complete",
    }


async def test_a_cancel_that_crosses_the_result_changes_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    """The result came first: it is kept, at both ends, and the session goes on."""
    gate = trio.Event()
    pair.executor.then((Until(gate), Return("done first")))
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    gate.set()
    await pair.ben.wait(task_id)
    pair.ann.manager.cancel_task(task_id)
    record = await pair.ann.wait(task_id)
    assert record.result is not None
    assert record.result.result == "done first"
    assert (await pair.run()).status is TaskStatus.COMPLETE


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_task_is_passed_on_before_it_is_saved_only_when_nobody_can_ask_for_its_id_again(
    autojump_clock: MockClock, hub: MemoryHub, *, fresh: bool
) -> None:
    """After a crash the worker would take what is asked for again for another task: it was made at another time."""
    store = HeldStore()
    ann = MemoryNode(hub, "requester", [], store=store)
    ben = MemoryNode(hub, "worker", [executor := ScriptedExecutor()])
    async with ann.running(), ben.running():
        await ann.connect(ben)
        store.hold()
        task = Task.new("a prompt", ann.peer_id, timestamp=ann.clock.now(), kind=executor.kind)
        ann.manager.submit(task, requester=ann.peer_id, target=ben.peer_id, fresh=fresh)
        await wait_all_tasks_blocked()
        assert len(executor.seen) == fresh
        assert ann.manager.find_task(task.id) is None
        store.release()
        assert (await ann.wait(task.id)).status is TaskStatus.COMPLETE
        assert len(executor.seen) == 1


async def test_a_cancel_comes_through_although_the_worker_is_still_saving_the_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A task that nobody has been told of yet can be stopped, although it has begun."""
    store = HeldStore()
    async with pair_on(hub, store=store) as pair:
        pair.executor.then(Hang())
        store.hold()
        task_id = pair.submit()
        await pair.executor.wait_until_begun(1)
        assert pair.ann.manager.get_task(task_id).status is TaskStatus.CLAIMED
        held = len(store.held)
        pair.ann.manager.cancel_task(task_id)
        await until(lambda: len(store.held) > held)
        store.release()
        assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
        await until(lambda: not pair.executor.running)


async def test_a_worker_that_does_not_stop_is_not_waited_for_without_end(autojump_clock: MockClock, pair: Pair) -> None:
    """After ten seconds the task is cancelled for its requester, whatever the worker does."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    pair.hub.pause(pair.ben.peer_id)
    pair.ann.manager.cancel_task(task_id)
    begin = trio.current_time()
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    assert trio.current_time() - begin == pytest.approx(10, abs=0.1)
    pair.hub.resume(pair.ben.peer_id)
    await until(lambda: not pair.executor.running)


@pytest.mark.parametrize("moment", ["before the loss", "after the loss"])
async def test_a_cancel_that_could_not_be_delivered_is_when_the_peer_is_back(
    autojump_clock: MockClock, pair: Pair, moment: str
) -> None:
    """For its requester the task is cancelled at once; the worker stops it as soon as it hears of it."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    if moment == "after the loss":
        pair.cut()
    pair.ann.manager.cancel_task(task_id)
    if moment == "before the loss":  # and the frame is on its way when the link breaks
        pair.cut()
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    await trio.sleep(5)
    assert pair.executor.running == 1
    pair.heal()
    await until(lambda: not pair.executor.running)
    assert pair.ben.manager.get_task(task_id).status in {TaskStatus.CANCELLED, TaskStatus.CANCELLING}


# --- lost connections ------------------------------------------------------------------------------------------------


async def check_recovery(pair: Pair, task_id: TaskId, *, executions: int = 1) -> None:
    """The task completes once at both ends, and the worker has executed it so many times."""
    record = await pair.ann.wait(task_id)
    assert record.result is not None
    assert record.failures == 0
    assert len(pair.facts(Completed)) == 1
    assert len(pair.executor.seen) == executions
    (theirs,) = pair.ben.tasks_of(pair.ann)
    assert theirs.result == record.result


async def test_a_connection_lost_before_the_task_arrives_costs_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    """It is submitted again on the next one."""
    pair.hub.pause(pair.ben.peer_id)
    task_id = pair.submit()
    await wait_all_tasks_blocked()
    pair.cut()
    pair.hub.resume(pair.ben.peer_id)
    await trio.sleep(1)
    assert pair.ben.tasks_of(pair.ann) == []
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_connection_lost_before_the_answer_arrives_costs_no_second_execution(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The worker has recorded the task; submitting it again attaches to it."""
    pair.executor.then((Delay(5_000), Return("done")))
    pair.hub.drop_next(pair.ben.peer_id, pair.ann.peer_id, Accept)
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    await wait_all_tasks_blocked()
    assert pair.ann.manager.get_task(task_id).status is TaskStatus.CLAIMED
    pair.cut()
    await trio.sleep(1)
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_connection_lost_during_the_execution_costs_no_second_one(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The result comes on the next session, however often the link breaks; the losses are counted apart."""
    pair.executor.then((Delay(30_000), Return("done")))
    task_id = pair.submit()
    for _ in range(5):
        await until(lambda: pair.ann.manager.get_task(task_id).status is TaskStatus.EXECUTING)
        pair.cut()
        await trio.sleep(1)
        pair.heal()
    await check_recovery(pair, task_id)
    assert pair.ann.manager.get_task(task_id).lost_leases == 5


async def test_a_connection_lost_between_the_result_and_its_arrival_costs_no_second_execution(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The worker keeps the result and gives it to whoever asks again."""
    gate = trio.Event()
    pair.executor.then((Until(gate), Return("done")))
    task_id = pair.submit()
    await until(lambda: pair.ann.manager.get_task(task_id).status is TaskStatus.EXECUTING)
    pair.hub.pause(pair.ann.peer_id)
    gate.set()
    await pair.ben.wait(task_id)
    pair.cut()
    pair.hub.resume(pair.ann.peer_id)
    await trio.sleep(1)
    assert pair.facts(Completed) == []
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_task_for_a_peer_that_is_away_waits_for_it(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Submitted before the first session: it runs when there is one."""
    pair = Pair(hub, ScriptedExecutor())
    async with pair.ann.running():
        task_id = pair.submit()
        await trio.sleep(60)
        assert pair.ann.manager.get_task(task_id).attempt == 0
        async with pair.ben.running():
            pair.ann.network.keep(pair.ben.network.addresses[0])
            await check_recovery(pair, task_id)


async def test_a_worker_that_starts_again_without_memory_executes_the_task_again(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It knows nothing of it: no accepted task is lost, and the result is recorded once."""
    pair = Pair(hub, ScriptedExecutor())
    pair.executor.then(Hang(), Return("done"))
    async with pair.ann.running():
        pair.ann.network.keep(pair.ben.network.addresses[0])
        async with pair.ben.running():
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
        await trio.sleep(1)
        pair.ben = MemoryNode(hub, "ben", [pair.executor], former=pair.ben)
        async with pair.ben.running():
            await check_recovery(pair, task_id, executions=2)


async def test_a_worker_that_starts_again_with_its_store_keeps_what_it_had_done(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A result that was recorded before the crash is given to whoever asks again, and nothing is executed twice."""
    pair = Pair(hub, ScriptedExecutor())
    async with pair.ann.running():
        pair.ann.network.keep(pair.ben.network.addresses[0])
        async with pair.ben.running():
            pair.hub.drop_next(pair.ben.peer_id, pair.ann.peer_id, Result)
            task_id = pair.submit()
            await until(lambda: pair.ben.manager.get_result(task_id) is not None)
        await trio.sleep(1)
        pair.ben = MemoryNode(hub, "ben", [pair.executor], store=pair.ben.store, former=pair.ben)
        async with pair.ben.running():
            await check_recovery(pair, task_id)


async def test_a_requester_that_starts_again_gets_the_result_of_what_it_had_asked(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Its store tells what it asked whom; the worker, who survived, attaches the request to what it has."""
    pair = Pair(hub, ScriptedExecutor())
    pair.executor.then((Delay(30_000), Return("done")))
    async with pair.ben.running():
        async with pair.ann.running():
            await pair.ann.connect(pair.ben)
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
        pair.ann = MemoryNode(hub, "ann", store=pair.ann.store, former=pair.ann)
        pair.ann.feed.listen(pair.told.append)
        async with pair.ann.running():
            await check_recovery(pair, task_id)


async def test_a_requester_that_crashed_while_it_cancelled_still_stops_the_worker(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """For its requester the task is cancelled at the start; the worker, who has not heard of it, is told."""
    pair, store = Pair(hub, ScriptedExecutor()), HeldStore()
    pair.executor.then(Hang())
    pair.ann = MemoryNode(hub, "asker", store=store)
    async with pair.ben.running():
        async with pair.ann.running():
            await pair.ann.connect(pair.ben)
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
            store.hold()
            hub.drop_next(pair.ann.peer_id, pair.ben.peer_id, Cancel)
            pair.ann.manager.cancel_task(task_id)
            store.commit()
            store.lose()
        store.release()
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
            await until(lambda: not pair.executor.running)
            assert pair.ben.manager.get_task(task_id).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("crashed", [True, False])
async def test_a_cancel_is_owed_however_often_the_requester_has_ended_since(
    autojump_clock: MockClock, hub: MemoryHub, *, crashed: bool
) -> None:
    """What its store tells is enough: the worker is told when it is connected, whether anything was told before."""
    pair, store = Pair(hub, ScriptedExecutor()), HeldStore()
    pair.executor.then(Hang())
    pair.ann = MemoryNode(hub, "asker", store=store)
    async with pair.ben.running():
        async with pair.ann.running():
            await pair.ann.connect(pair.ben)
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
            hub.drop_next(pair.ann.peer_id, pair.ben.peer_id, Cancel)
            pair.ann.manager.cancel_task(task_id)
            if crashed:
                store.lose()
        pair.cut()
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
            await trio.sleep(5)
            assert pair.executor.running == 1
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            pair.heal()
            await until(lambda: not pair.executor.running)
            assert pair.ben.manager.get_task(task_id).status in {TaskStatus.CANCELLED, TaskStatus.CANCELLING}


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_task_moves_to_another_peer_only_when_its_policy_says_so(
    autojump_clock: MockClock, hub: MemoryHub, *, elsewhere: bool
) -> None:
    """When its worker is lost: after a second in which the worker might come back, or never."""
    async with pair_on(hub) as pair:
        spare = ScriptedExecutor()
        async with MemoryNode(hub, "cat", [spare]).running() as cat:
            await pair.ann.connect(cat)
            pair.executor.then((Delay(60_000), Return("from Ben")))
            spare.then(Return("from Cat"))
            task_id = pair.submit(retry=RetryPolicy(elsewhere=elsewhere))
            await pair.executor.wait_until_begun(1)
            pair.cut()
            await trio.sleep(0.5)
            assert spare.seen == []
            await trio.sleep(30)
            if not elsewhere:
                assert spare.seen == []
                pair.heal()
            record = await pair.ann.wait(task_id)
            assert record.result is not None
            assert record.result.result == ("from Cat" if elsewhere else "from Ben")


async def test_a_task_may_come_back_to_a_worker_that_was_lost_with_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It was not told to stop when another worker got the task, and is still at it."""
    async with pair_on(hub) as pair:
        gate = trio.Event()
        pair.executor.then((Until(gate), Return("from Ben")))
        cat = MemoryNode(hub, "cat", [other := ScriptedExecutor()])
        other.then(Hang())
        async with cat.running():
            await pair.ann.connect(cat)
            task_id = pair.submit(retry=RetryPolicy(elsewhere=True))
            await pair.executor.wait_until_begun(1)
            pair.cut()
            await other.wait_until_begun(1)
            pair.heal()
            await until(lambda: pair.ann.network.channel(pair.ben.peer_id) is not None)
            hub.cut(pair.ann.peer_id, cat.peer_id)
            await trio.sleep(30)
            gate.set()
            record = await pair.ann.wait(task_id)
            assert record.result is not None
            assert record.result.result == "from Ben"
            assert len(pair.executor.seen) == 1
            hub.heal(pair.ann.peer_id, cat.peer_id)
            await until(lambda: not other.running)


async def test_a_task_for_anybody_moves_on_when_its_worker_is_lost(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Whoever is there does it; the requester itself if nobody else is."""
    async with pair_on(hub) as pair:
        pair.executor.on("a prompt", Hang())
        task_id = pair.ann.submit(kind="scripted")
        await pair.executor.wait_until_begun(1)
        own = ScriptedExecutor()
        pair.ann.executors[own.kind] = own
        pair.cut()
        record = await pair.ann.wait(task_id)
        assert record.result is not None
        assert record.holder == pair.ann.peer_id


async def test_a_worker_that_was_lost_is_told_when_another_one_has_its_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It stops when it is back, and works on what somebody waits for."""
    async with pair_on(hub) as pair:
        pair.executor.on("a prompt", Hang())
        task_id = pair.ann.submit(kind="scripted")
        await pair.executor.wait_until_begun(1)
        own = ScriptedExecutor()
        pair.ann.executors[own.kind] = own
        pair.cut()
        await pair.ann.wait(task_id)
        assert pair.executor.running == 1
        pair.heal()
        assert (await pair.ben.wait(task_id)).status is TaskStatus.CANCELLED
        assert pair.executor.running == 0


async def test_a_worker_that_cannot_save_is_busy_and_costs_nobody_a_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Its disk is not the requester's trouble: a named task waits for it, and others go to whoever has room."""
    store = HeldStore()
    async with pair_on(hub, store=store) as pair:
        cat = MemoryNode(hub, "cat", [ScriptedExecutor()])
        async with cat.running():
            await pair.ann.connect(cat)
            store.failure = PeertaskError("no room is left on /home/ben", code=ErrorCode.STORE_FAILED)
            anywhere = [pair.ann.submit(f"prompt {number}", kind="scripted") for number in range(20)]
            named = pair.submit("named")
            for task_id in anywhere:
                record = await pair.ann.wait(task_id)
                assert (record.status, record.holder) == (TaskStatus.COMPLETE, cat.peer_id)
            await trio.sleep(10)
            assert not pair.ann.manager.get_task(named).terminal
            assert not any("/home/ben" in fact.message for fact in pair.facts(Released))
            store.failure = None
            assert (await pair.ann.wait(named)).status is TaskStatus.COMPLETE


async def test_slots_at_a_peer_are_right_after_reconnections(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """However often the link breaks, the requester has as many tasks under way as the worker takes, and never more."""
    async with pair_on(hub, limits=Limits(in_flight=4)) as pair:
        for number in range(60):
            pair.executor.on(f"prompt {number}", Delay(400))
        tasks = [pair.submit(f"prompt {number}") for number in range(60)]
        most = 0
        for _ in range(8):
            await trio.sleep(0.3)
            most = max(most, pair.ann.dispatcher.executing)
            pair.cut()
            await trio.sleep(0.05)
            pair.heal()
        for task_id in tasks:
            assert (await pair.ann.wait(task_id)).status is TaskStatus.COMPLETE
        assert most == 4
        assert len(pair.executor.seen) == 60


# --- a requester alone -----------------------------------------------------------------------------------------------


class Delegated(FakeExecution, Delegation):
    """A delegation that remembers how it was finished."""

    def __init__(self, holder: PeerId, **fields: Any) -> None:
        super().__init__(make_task(sender="ann", **fields), holder=holder)
        self.outcomes: list[Outcome] = []

    def finish(self, outcome: Outcome) -> None:
        """Note the outcome."""
        self.outcomes.append(outcome)

    @property
    def code(self) -> ErrorCode:
        """Of the error that it was finished with."""
        (outcome,) = self.outcomes
        assert isinstance(outcome, PeertaskError)
        return outcome.code


class Asking:
    """A delegate, and a peer that says what the test lets it say."""

    def __init__(self, hub: MemoryHub) -> None:
        self.hub = hub
        self.network = MemoryNetwork(hub, "ann")
        self.peer = MemoryNetwork(hub, "ben")
        self.delegate = RemoteDelegate(self.network, lambda _: True)
        self.asked = RecordingHandler()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Asking]:
        """Run both, connected."""
        nobody = RecordingHandler()
        async with (
            self.network.running(nobody, self.delegate, lambda _peer: PeerAdvert()),
            self.peer.running(self.asked, nobody, lambda _peer: PeerAdvert()),
        ):
            await self.network.connect(self.peer.addresses[0])
            yield self

    async def begin(self, **fields: Any) -> Delegated:
        """Hand a task over, and wait until the peer has it."""
        delegation = Delegated(self.peer.peer_id, **fields)
        count = len(self.asked.frames)
        self.delegate.begin(delegation)
        await self.asked.wait_for_frames(count + 1)
        return delegation

    async def answer(self, *frames: Frame) -> None:
        """Let the peer say something, and wait until it has arrived."""
        channel = self.peer.channel(self.network.peer_id)
        assert channel is not None
        for frame in frames:
            channel.send(frame)
        await wait_all_tasks_blocked()


@pytest.fixture
async def asking(hub: MemoryHub) -> AsyncIterator[Asking]:
    """A delegate and its peer, connected."""
    async with Asking(hub).running() as asking:
        yield asking


@pytest.mark.parametrize("code", ErrorCode)
async def test_a_refusal_passes_through_with_its_code(
    autojump_clock: MockClock, asking: Asking, code: ErrorCode
) -> None:
    """And its message, who said it, and when to come back."""
    delegation = await asking.begin()
    await asking.answer(Reject(task_id=delegation.task.id, code=code, message="because", retry_after_ms=70))
    (outcome,) = delegation.outcomes
    assert isinstance(outcome, PeertaskError)
    assert (outcome.code, outcome.retry_after_ms) == (code, 70)
    assert "ben" in outcome.message
    assert "because" in outcome.message
    assert delegation.starts == 0


async def test_a_failure_passes_through_as_the_worker_recorded_it(autojump_clock: MockClock, asking: Asking) -> None:
    """A failure of the task is told apart from a failure to ask."""
    delegation = await asking.begin()
    failure = Failure.of(ErrorCode.EXECUTION_FAILED, "no disk")
    await asking.answer(Accept(delegation.task.id), Result(task_id=delegation.task.id, seq=4, failure=failure))
    (outcome,) = delegation.outcomes
    assert isinstance(outcome, TaskFailed)
    assert outcome.failure == failure
    assert delegation.starts == 1


async def test_without_a_session_a_peer_is_unreachable(autojump_clock: MockClock, asking: Asking) -> None:
    """The delegation is over at once, and says who was meant."""
    delegation = Delegated(PeerId("nobody"))
    asking.delegate.begin(delegation)
    assert delegation.code is ErrorCode.PEER_UNREACHABLE


async def test_a_session_that_ends_loses_what_was_under_way_on_it(autojump_clock: MockClock, asking: Asking) -> None:
    """Each with the reason, in words; and only once."""
    delegations = [await asking.begin() for _ in range(3)]
    asking.hub.cut(asking.network.peer_id, asking.peer.peer_id, "somebody tripped")
    for delegation in delegations:
        assert delegation.code is ErrorCode.PEER_LOST
        assert "somebody tripped" in str(delegation.outcomes[0])


async def test_a_cancel_is_owed_to_the_peer_that_was_lost_and_to_no_other(
    autojump_clock: MockClock, asking: Asking
) -> None:
    """That another one has the task now, and answers, settles nothing."""
    task = make_task(sender="ann")
    asking.delegate.abandon(task.id, PeerId("lost"))
    delegation = await asking.begin(id=task.id)
    asking.delegate.abandon(task.id, PeerId("lost too"))
    await asking.answer(Accept(task.id), Result(task_id=task.id, seq=4, result=TaskResult(task.id, "done", 1)))
    assert delegation.outcomes == [TaskResult(task.id, "done", 1)]
    lost = MemoryNetwork(asking.hub, "lost")
    told = RecordingHandler()
    async with lost.running(told, RecordingHandler(), lambda _peer: PeerAdvert()):
        await asking.network.connect(lost.addresses[0])
        await told.wait_for_frames(1)
        assert told.frames == [Cancel(task.id)]


async def test_the_cancels_that_are_owed_are_bounded(autojump_clock: MockClock, asking: Asking) -> None:
    """A node that was cut off for long tells the peer of the latest thousand, once."""
    asking.hub.cut(asking.network.peer_id, asking.peer.peer_id)
    tasks = [make_task().id for _ in range(MAX_OWED_CANCELS + 50)]
    for task_id in tasks:
        asking.delegate.abandon(task_id, asking.peer.peer_id)
    asking.delegate.abandon(make_task().id, PeerId("another peer"))
    for _ in range(2):
        asking.hub.heal(asking.network.peer_id, asking.peer.peer_id)
        await until(lambda: asking.network.channel(asking.peer.peer_id) is not None)
        await wait_all_tasks_blocked()
        asking.hub.cut(asking.network.peer_id, asking.peer.peer_id)
    told = [frame.task_id for frame in asking.asked.frames if isinstance(frame, Cancel)]
    assert len(told) == len(set(told)) <= MAX_OWED_CANCELS
    assert told[-1] == tasks[-1]


async def test_answers_to_tasks_that_were_given_up_are_dropped(autojump_clock: MockClock, asking: Asking) -> None:
    """A frame that nobody waits for, and one that no requester gets, harm nobody."""
    channel = asking.network.channel(asking.peer.peer_id)
    assert channel is not None
    unknown = make_task().id
    for frame in (
        Accept(unknown),
        Result(task_id=unknown, seq=1, failure=Failure.of(ErrorCode.CANCELLED, "")),
        Reject(task_id=unknown, code=ErrorCode.BUSY),
        Submit(make_task()),
    ):
        asking.delegate.received(channel, frame)
    delegation = await asking.begin()
    await asking.answer(Reject(task_id=delegation.task.id, code=ErrorCode.NOT_FOUND))
    assert delegation.code is ErrorCode.NOT_FOUND


async def test_a_peer_that_answers_every_request_with_a_lost_lease_does_not_spin_the_node(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A worker's failure is final whatever its code says: one request, one answer."""
    peer, asked = MemoryNetwork(hub, "mallory"), RecordingHandler()
    ann = MemoryNode(hub, "ann")
    async with ann.running(), peer.running(asked, RecordingHandler(), lambda _peer: PeerAdvert()):
        await ann.network.connect(peer.addresses[0])
        task = make_task(sender="ann")
        ann.manager.submit(task, requester=ann.peer_id, target=peer.peer_id)
        await asked.wait_for_frames(1)
        channel = peer.channel(ann.peer_id)
        assert channel is not None
        channel.send(Accept(task.id))
        channel.send(Result(task_id=task.id, seq=3, failure=Failure.of(ErrorCode.PEER_LOST, "so they say")))
        assert code_of(await ann.wait(task.id)) is ErrorCode.PEER_LOST
        assert len(asked.frames) == 1
