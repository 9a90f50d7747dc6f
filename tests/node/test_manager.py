"""The map of tasks: what goes in, who sees it and when, what is kept, and what a restart finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.awaited_tasks import outcome
from node.coordination.quotas import Usage
from node.feed import WATCH_BUFFER_CHANGES, Feed
from node.interfaces import Change, Lagged, Store, TaskFilter
from node.manager import SWEPT_A_PASS, TaskManager
from node.retention import Capacity
from node.stores.memory import MemoryStore
from node.testing import START_MS, FakeClock, HeldStore, check_store, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    IllegalTransition,
    InvalidTask,
    PeerId,
    PeertaskError,
    Progressed,
    Released,
    StaleAttempt,
    Started,
    Submitted,
    Task,
    TaskFailed,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TaskResult,
    TaskStatus,
    Transition,
    new_task_id,
)

OWN, PEER = PeerId("own"), PeerId("peer")


TAKEN = PeertaskError(
    "the task cannot be saved, because another process has changed it in tasks.db",
    code=ErrorCode.CONFLICT,
    remedy="Give each node a file of its own",
)


class Bench:
    """A manager and what is around it.

    Attributes:
        told: every change that the feed has published, in order.
    """

    def __init__(self, store: Store | None = None, **capacity: int) -> None:
        self.store = store or MemoryStore()
        self.clock = FakeClock()
        self.feed = Feed()
        self.told: list[Change] = []
        self.feed.listen(self.told.append)
        self.manager = TaskManager(self.store, self.clock, self.feed, own_id=OWN, capacity=Capacity(**capacity))

    def submit(self, task: Task | None = None, requester: PeerId = OWN, **fields: Any) -> TaskId:
        """Take a task in."""
        task = task or make_task(**fields)
        return self.manager.submit(task, requester=requester, target=None).id

    def begin(self, task_id: TaskId, attempt: int = 1) -> TaskRecord:
        """Claim and start it."""
        now = self.clock.now()
        return self.manager.apply(Claimed(task_id, now, attempt, OWN, now + 30_000), Started(task_id, now, attempt))

    def report(self, task_id: TaskId, fraction: float = 0.5) -> TaskRecord:
        """Report progress of the first attempt."""
        now = self.clock.now()
        return self.manager.apply(Progressed(task_id, now, 1, fraction, "", now + 30_000))

    def complete(self, task_id: TaskId, text: str = "done", attempt: int = 1) -> TaskRecord:
        """End it with a result."""
        return self.manager.apply(Completed(task_id, self.clock.now(), attempt, TaskResult(task_id, text, 5)))

    def finish(self, text: str = "done", **fields: Any) -> TaskId:
        """Bring a task through its whole life."""
        task_id = self.submit(**fields)
        self.begin(task_id)
        self.complete(task_id, text)
        return task_id

    def knows(self, task_id: TaskId) -> bool:
        """Whether it is still kept."""
        return self.manager.find_task(task_id) is not None


@asynccontextmanager
async def running(store: Store | None = None, **capacity: int) -> AsyncIterator[Bench]:
    """A manager that runs."""
    bench = Bench(store, **capacity)
    with trio.fail_after(20):
        async with bench.manager.running():
            yield bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A manager with a memory store."""
    async with running() as bench:
        yield bench


@pytest.fixture
async def held() -> AsyncIterator[tuple[Bench, HeldStore]]:
    """A manager with a store that commits when the test says so."""
    store = HeldStore()
    async with running(store) as bench:
        store.hold()
        yield bench, store


def code_of(call: Callable[[], object]) -> ErrorCode:
    """How a call is refused."""
    with pytest.raises(PeertaskError) as refused:
        call()
    assert refused.value.message
    return refused.value.code


async def end_of(call: Callable[[], Any]) -> ErrorCode | None:
    """How an awaited call ends: with an error's code, or well."""
    try:
        await call()
    except PeertaskError as error:
        return error.code
    return None


# --- taking tasks in -------------------------------------------------------------------------------------------------


async def test_a_task_can_be_created_executed_and_its_result_fetched(bench: Bench) -> None:
    """The map knows it by its UUID from the first moment, in every status."""
    # covers CORE-9, CORE-10, CORE-11, CORE-13, CORE-16, CORE-22, CORE-23, CORE-24, CORE-26
    task = bench.manager.create_task("say hello", OWN)
    assert bench.manager.get_task(task.id).status is TaskStatus.PENDING
    assert bench.manager.get_task(task.id).task == task
    assert bench.manager.get_result(task.id) is None
    bench.begin(task.id)
    assert bench.manager.get_task(task.id).status is TaskStatus.EXECUTING
    bench.complete(task.id)
    assert bench.manager.get_task(task.id).status is TaskStatus.COMPLETE
    assert bench.manager.get_result(task.id) == TaskResult(task.id, "done", 5)
    assert bench.manager.get_result(task.id.upper()) == TaskResult(task.id, "done", 5)


async def test_executing_a_task_returns_its_result_or_raises(bench: Bench) -> None:
    """Somebody else carries it out meanwhile; an unknown task is taken in, a known one is waited for."""
    # covers CORE-25
    good, bad = make_task(), make_task()
    bench.submit(bad, requester=PeerId(bad.sender))
    results: list[TaskResult] = []

    async def execute() -> None:
        results.append(await bench.manager.execute_task(good))

    async def fail() -> None:
        with pytest.raises(TaskFailed, match="no disk"):
            await bench.manager.execute_task(bad)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute)
        nursery.start_soon(fail)
        await wait_all_tasks_blocked()
        bench.begin(good.id)
        bench.complete(good.id)
        bench.begin(bad.id)
        bench.manager.apply(Failed(bad.id, START_MS, 1, Failure.of(ErrorCode.EXECUTION_FAILED, "no disk")))
    assert results == [TaskResult(good.id, "done", 5)]
    assert await bench.manager.execute_task(good) == results[0]


async def test_an_outcome_of_a_task_that_goes_on_is_an_error(bench: Bench) -> None:
    """Nobody takes an unfinished task for a finished one."""
    task_id = bench.submit()
    assert code_of(lambda: outcome(bench.manager.get_task(task_id))) is ErrorCode.ILLEGAL_TRANSITION


async def test_an_unknown_task_has_no_record_and_no_result(bench: Bench) -> None:
    """The one who asks for a record is told what may have happened; text that is no UUID is named as such."""
    # covers CORE-11, CORE-26
    unknown = new_task_id()
    assert bench.manager.find_task(unknown) is None
    assert bench.manager.get_result(unknown) is None
    with pytest.raises(TaskNotFound, match="forgotten after a while"):
        bench.manager.get_task(unknown)
    assert code_of(lambda: bench.manager.cancel_task(unknown)) is ErrorCode.NOT_FOUND
    assert code_of(lambda: bench.manager.apply(Cancelled(unknown, START_MS))) is ErrorCode.NOT_FOUND
    assert await end_of(lambda: bench.manager.wait(unknown)) is ErrorCode.NOT_FOUND
    with pytest.raises(InvalidTask):
        bench.manager.get_result("not a uuid")


async def test_submitting_a_task_again_returns_its_record(bench: Bench) -> None:
    """The UUID is the idempotency key, while the task waits, runs, and when it has ended; nothing happens twice."""
    task = make_task()
    bench.submit(task)
    for step in (bench.begin, bench.complete):
        assert bench.manager.submit(task, requester=OWN, target=None) == bench.manager.get_task(task.id)
        step(task.id)
    assert bench.manager.submit(Task.from_json(task.to_json()), requester=OWN, target=PEER).result is not None
    assert [change.record.seq for change in bench.told] == [1, 2, 3, 4]


async def test_a_uuid_belongs_to_one_task_of_one_requester(bench: Bench) -> None:
    """Another task, or another peer, under the same UUID is a CONFLICT and changes nothing."""
    task = make_task("one thing")
    bench.submit(task)
    other = make_task("another thing", id=task.id)
    assert code_of(lambda: bench.submit(other)) is ErrorCode.CONFLICT
    assert code_of(lambda: bench.submit(task, requester=PEER)) is ErrorCode.CONFLICT
    assert bench.manager.get_task(task.id).task == task
    assert bench.manager.usage(PEER) == Usage()
    assert len(bench.told) == 1


async def test_a_full_node_is_busy_and_says_when_to_come_back() -> None:
    """Only what is new is refused: a known task is returned, and room is there as soon as one ends."""
    async with running(open_tasks=2) as bench:
        tasks = [make_task() for _ in range(2)]
        for task in tasks:
            bench.submit(task)
        with pytest.raises(TaskRejected, match="2 open tasks of its own, and 2 is its limit") as refused:
            bench.submit()
        assert refused.value.code is ErrorCode.BUSY
        assert refused.value.retry_after_ms
        assert bench.submit(tasks[0]) == tasks[0].id
        bench.manager.cancel_task(tasks[0].id)
        bench.submit()
        assert bench.manager.open_tasks == 2


async def test_waiting_for_a_task_to_be_saved_ends_when_everybody_sees_it() -> None:
    """At once for one that is saved."""
    store = HeldStore()
    async with running(store=store) as bench:
        saved = bench.submit()
        await bench.manager.wait_saved(saved)
        store.hold()
        task_id = bench.submit()
        with trio.move_on_after(0.05) as patience:
            await bench.manager.wait_saved(task_id)
        assert patience.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.manager.wait_saved, task_id)
            await wait_all_tasks_blocked()
            store.release()
        assert bench.manager.get_task(task_id).seq == 1


async def test_settling_ends_when_everything_is_saved_and_told() -> None:
    """Whoever stops a node waits for it: what is not saved is told to nobody."""
    store = HeldStore()
    async with running(store=store) as bench:
        await bench.manager.settle()
        store.hold()
        task_id = bench.submit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.manager.settle)
            await wait_all_tasks_blocked()
            bench.begin(task_id)
            store.commit()
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            store.release()
        assert bench.manager.get_task(task_id).status is TaskStatus.EXECUTING


async def test_a_node_whose_store_cannot_save_takes_nothing_new_and_says_why() -> None:
    """The error is the store's own; what is known is still told, and goes on."""
    store = HeldStore()
    async with running(store=store) as bench:
        task = make_task()
        bench.submit(task)
        store.failure = PeertaskError("no room is left on /data", code=ErrorCode.STORE_FAILED, remedy="Make some")
        with pytest.raises(PeertaskError, match=r"no room is left on /data\. Make some") as refused:
            bench.submit()
        assert refused.value.code is ErrorCode.STORE_FAILED
        assert bench.submit(task) == task.id
        store.failure = None
        bench.submit()


async def test_a_node_that_is_stopping_takes_nothing_new(bench: Bench) -> None:
    """DRAINING, and what is known is still told."""
    task = make_task()
    bench.submit(task)
    bench.manager.draining = True
    assert code_of(bench.submit) is ErrorCode.DRAINING
    assert bench.submit(task) == task.id


# --- waiting for room ------------------------------------------------------------------------------------------------


class Queue:
    """Callers that wait for room and then submit, as `Node.enqueue` does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.events: list[str] = []

    async def call(self, name: str, task: Task | None = None) -> None:
        """Submit a task as soon as there is room."""
        task = task or make_task()
        while True:
            try:
                self._bench.submit(task)
            except PeertaskError as error:
                if error.code is not ErrorCode.BUSY:
                    self.events.append(f"{name} {error.code}")
                    return
                await self._bench.manager.wait_for_room()
            else:
                self.events.append(name)
                return

    async def let(self, nursery: trio.Nursery, *names: str) -> None:
        """Let callers of these names wait, in this order."""
        for name in names:
            nursery.start_soon(self.call, name)
            await wait_all_tasks_blocked()


async def test_callers_wait_for_room_in_turn() -> None:
    """Each task that ends lets the next one in."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        await queue.let(nursery, "first", "second", "third")
        for expected in (["first"], ["first", "second"], ["first", "second", "third"]):
            assert queue.events == expected
            bench.manager.cancel_task(bench.told[-1].record.id)
            await wait_all_tasks_blocked()


async def test_there_is_no_waiting_while_there_is_room(bench: Bench) -> None:
    """The call returns at once."""
    await bench.manager.wait_for_room()


async def test_room_that_one_caller_has_no_use_for_goes_to_the_next() -> None:
    """A task that became known, or was refused, meanwhile: those behind are not left to wait for nothing."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        task = make_task("known before its turn")
        blocker = bench.submit(task)
        conflict = make_task("another", id=task.id)
        nursery.start_soon(queue.call, "conflict", conflict)
        await wait_all_tasks_blocked()
        assert queue.events == ["conflict CONFLICT"]
        late = make_task("late")
        for name in ("late", "late again"):
            nursery.start_soon(queue.call, name, late)
            await wait_all_tasks_blocked()
        await queue.let(nursery, "last")
        bench.manager.cancel_task(blocker)
        await wait_all_tasks_blocked()
        bench.manager.cancel_task(late.id)
        await wait_all_tasks_blocked()
        assert queue.events == ["conflict CONFLICT", "late", "late again", "last"]


async def test_room_for_a_task_that_the_store_refuses_goes_to_the_next() -> None:
    """What another program has there already takes no place in this node."""

    class ConflictingStore(MemoryStore):
        taken: TaskId | None = None

        def append(self, changes: Sequence[Change]) -> None:
            if changes[0].record.id == self.taken:
                raise PeertaskError("it is there already", code=ErrorCode.CONFLICT)
            super().append(changes)

    store, task = ConflictingStore(), make_task("taken")
    async with running(store, open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        blocker, store.taken = bench.submit(), task.id
        nursery.start_soon(queue.call, "taken", task)
        await wait_all_tasks_blocked()
        await queue.let(nursery, "next")
        bench.manager.cancel_task(blocker)
        await wait_all_tasks_blocked()
        assert queue.events == ["taken CONFLICT", "next"]


async def test_those_who_wait_for_room_learn_that_the_node_stops() -> None:
    """A node whose queue does not move any more does not keep its callers."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        await queue.let(nursery, "first", "second", "third")
        bench.manager.draining = True
        await wait_all_tasks_blocked()
        assert sorted(queue.events) == ["first", "second DRAINING", "third DRAINING"]


# --- listing ---------------------------------------------------------------------------------------------------------


async def test_tasks_are_listed_the_newest_first(bench: Bench) -> None:
    """Filters narrow, and the limit counts what is left."""
    # covers CORE-12, CORE-27
    first = bench.submit(project="alpha", session_id="talk")
    second = bench.submit(requester=PEER, project="alpha")
    third = bench.finish(project="beta")
    assert [record.id for record in bench.manager.list_tasks()] == [third, second, first]

    def listed(**wanted: Any) -> list[TaskId]:
        return [record.id for record in bench.manager.list_tasks(TaskFilter(**wanted))]

    assert listed(limit=2) == [third, second]
    assert listed(limit=0) == []
    assert listed(project="alpha") == [second, first]
    assert listed(project="alpha", limit=1) == [second]
    assert listed(requester=PEER) == [second]
    assert listed(session_id="talk") == [first]
    assert listed(statuses=frozenset({TaskStatus.COMPLETE})) == [third]
    assert listed(statuses=frozenset({"pending", "complete"})) == [third, second, first]
    assert listed(statuses=frozenset()) == []


# --- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], TaskStatus.CANCELLED),
        (["claim"], TaskStatus.CANCELLING),
        (["claim", "start"], TaskStatus.CANCELLING),
        (["claim", "start", "cancel"], TaskStatus.CANCELLING),
        (["claim", "start", "complete"], TaskStatus.COMPLETE),
        (["claim", "start", "fail"], TaskStatus.FAILED),
        (["claim", "release"], TaskStatus.CANCELLED),
        (["cancel"], TaskStatus.CANCELLED),
    ],
)
async def test_a_cancel_in_each_status(bench: Bench, steps: list[str], expected: TaskStatus) -> None:
    """A task that waits has ended, one that runs is asked to stop, and one that has ended stays as it is."""
    task_id = bench.submit()
    facts: dict[str, Transition] = {
        "claim": Claimed(task_id, START_MS, 1, OWN, START_MS),
        "start": Started(task_id, START_MS, 1),
        "complete": Completed(task_id, START_MS, 1, TaskResult(task_id, "done", 1)),
        "fail": Failed(task_id, START_MS, 1, Failure.of(ErrorCode.EXECUTION_FAILED, "no")),
        "release": Released(task_id, START_MS, 1, ErrorCode.BUSY, "full", 0),
    }
    for step in steps:
        if step == "cancel":
            bench.manager.cancel_task(task_id)
        else:
            bench.manager.apply(facts[step])
    assert bench.manager.cancel_task(task_id).status is expected
    record = bench.manager.get_task(task_id)
    assert record.status is expected
    if expected is TaskStatus.CANCELLED:
        assert record.failure is not None
        assert record.failure.code is ErrorCode.CANCELLED


async def test_a_cancel_on_behalf_of_a_requester_reaches_its_own_tasks_only(bench: Bench) -> None:
    """To anybody else the task is unknown."""
    task_id = bench.submit(requester=PEER)
    assert code_of(lambda: bench.manager.cancel_task(task_id, requester=OWN)) is ErrorCode.NOT_FOUND
    assert bench.manager.cancel_task(task_id, requester=PEER).status is TaskStatus.CANCELLED


# --- applying --------------------------------------------------------------------------------------------------------


async def test_facts_are_applied_all_or_none(bench: Bench) -> None:
    """One that is refused takes those before it with it; the record stays as it was, and nobody is told."""
    task_id = bench.submit()
    before, told = bench.manager.get_task(task_id), len(bench.told)
    with pytest.raises(IllegalTransition):
        bench.manager.apply(
            Claimed(task_id, START_MS, 1, OWN, START_MS), Completed(task_id, START_MS, 1, TaskResult(task_id, "no", 1))
        )
    assert bench.manager.get_task(task_id) == bench.manager.latest(task_id) == before
    assert len(bench.told) == told
    bench.begin(task_id)


async def test_a_fact_of_an_older_attempt_is_refused(bench: Bench) -> None:
    """A worker that was presumed lost cannot overwrite what has happened since."""
    task_id = bench.submit()
    bench.begin(task_id)
    bench.manager.apply(Released(task_id, START_MS, 1, ErrorCode.PEER_LOST, "gone", 0))
    bench.begin(task_id, attempt=2)
    with pytest.raises(StaleAttempt):
        bench.complete(task_id, "late", attempt=1)
    assert bench.complete(task_id, "in time", attempt=2).result == TaskResult(task_id, "in time", 5)


async def test_a_listener_that_answers_a_fact_with_another_comes_after_all_of_its_call(bench: Bench) -> None:
    """Whoever cancels a task as soon as it is claimed does so after the start that was recorded with the claim."""

    def cancel_at_claim(change: Change) -> None:
        if isinstance(change.fact, Claimed):
            bench.manager.cancel_task(change.record.id)

    bench.feed.listen(cancel_at_claim)
    task_id = bench.submit()
    bench.begin(task_id)
    assert [type(change.fact) for change in bench.told] == [Submitted, Claimed, Started, CancelRequested]
    assert [change.record.seq for change in bench.told] == [1, 2, 3, 4]
    assert bench.manager.get_task(task_id).status is TaskStatus.CANCELLING


async def test_what_the_store_refuses_has_not_happened() -> None:
    """The task is not there, takes no room, and the next fact is judged by what is kept."""
    store = HeldStore()
    async with running(store) as bench:
        task = make_task()
        bench.submit(task)
        bench.begin(task.id)
        store.forget([task.id])
        before = bench.manager.latest(task.id)
        assert code_of(lambda: bench.complete(task.id)) is ErrorCode.NOT_FOUND
        assert bench.manager.latest(task.id) == before
    bench = Bench()
    assert code_of(bench.submit) is ErrorCode.STORE_FAILED
    assert bench.manager.open_tasks == 0
    assert bench.manager.usage(OWN) == Usage()


# --- watching --------------------------------------------------------------------------------------------------------


async def watch_all(bench: Bench, task_id: TaskId, after_seq: int = 0) -> list[int | Lagged]:
    """What a watcher of a task that ends sees: numbers of facts, and gaps."""
    async with bench.manager.watch(task_id, after_seq) as changes:
        return [change if isinstance(change, Lagged) else change.record.seq async for change in changes]


@asynccontextmanager
async def watcher(bench: Bench, *what: Any) -> AsyncIterator[list[Change | Lagged]]:
    """Watch for the length of the context."""
    seen: list[Change | Lagged] = []

    async def look() -> None:
        async with bench.manager.watch(*what) as changes:
            async for change in changes:
                seen.append(change)  # noqa: PERF401 - each is to be seen as it comes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        yield seen
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_watcher_sees_the_facts_of_a_task_until_its_last(bench: Bench) -> None:
    """Those before it came, those that follow, each once and in order; the watch ends by itself."""
    task_id = bench.submit()
    bench.begin(task_id)
    ended = trio.Event()
    seen: list[Change | Lagged] = []

    async def look() -> None:
        async with bench.manager.watch(task_id) as changes:
            async for change in changes:
                seen.append(change)  # noqa: PERF401 - each is to be seen as it comes
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        bench.finish()
        bench.report(task_id)
        bench.complete(task_id)
        await ended.wait()
    assert seen == [change for change in bench.told if change.record.id == task_id]
    assert [change.record.seq for change in seen if isinstance(change, Change)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after_seq", [0, 1, 2, 3])
async def test_a_watcher_that_comes_back_gets_the_rest(bench: Bench, after_seq: int) -> None:
    """It names the last number that it saw, and gets what follows."""
    task_id = bench.submit()
    bench.begin(task_id)
    async with watcher(bench, task_id, after_seq) as seen:
        bench.complete(task_id)
    assert [change.record.seq for change in seen if isinstance(change, Change)] == [*range(after_seq + 1, 5)]


@pytest.mark.parametrize(
    ("after_seq", "expected"), [(0, [Lagged(3), 4]), (2, [Lagged(1), 4]), (3, [4]), (4, []), (9, [])]
)
async def test_what_is_no_longer_kept_is_an_explicit_gap(
    bench: Bench, after_seq: int, expected: list[int | Lagged]
) -> None:
    """The memory store keeps only the record of a task that has ended: its last fact, and how many are missing."""
    task_id = bench.finish()
    assert await watch_all(bench, task_id, after_seq) == expected


@pytest.mark.parametrize("ending", ["fail", "cancel"])
async def test_a_task_that_ended_otherwise_is_told_by_its_last_fact_too(bench: Bench, ending: str) -> None:
    """Failed with the failure, or cancelled."""
    task_id = bench.submit()
    if ending == "cancel":
        bench.manager.cancel_task(task_id)
    else:
        bench.manager.apply(Failed(task_id, START_MS, 0, Failure.of(ErrorCode.DEADLINE_EXCEEDED, "too late")))
    last = bench.told[-1]
    async with bench.manager.watch(task_id) as changes:
        assert [change async for change in changes] == [Lagged(1), last]


async def test_a_slow_watcher_is_told_that_it_lagged_and_holds_nobody_up(bench: Bench) -> None:
    """It reads nothing while thousands of facts come: the last ones wait for it, and the gap counts the others."""
    task_id = bench.submit()
    bench.begin(task_id)
    async with bench.manager.watch(task_id, after_seq=3) as changes:
        for _ in range(WATCH_BUFFER_CHANGES + 9):
            bench.report(task_id)
        bench.complete(task_id)
        first, *rest = [change async for change in changes]
    assert isinstance(first, Lagged)
    assert first.missed + len(rest) >= WATCH_BUFFER_CHANGES + 10
    assert rest[-1] == bench.told[-1]


async def test_a_watch_of_all_tasks_sees_everything_from_now_on(bench: Bench) -> None:
    """Without end, and nothing from before."""
    bench.finish()
    before = len(bench.told)
    async with watcher(bench) as seen:
        bench.finish()
        bench.submit()
    assert seen == bench.told[before:]


async def test_watching_an_unknown_task_is_an_error(bench: Bench) -> None:
    """The watcher is not left to wait for a task that nobody knows."""
    with pytest.raises(TaskNotFound):
        async with bench.manager.watch(new_task_id()):
            pytest.fail("there is nothing to watch")


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_finished_tasks_beyond_the_limit_are_forgotten_the_oldest_first() -> None:
    """Open tasks are never forgotten; the store forgets what the manager forgets."""
    store = MemoryStore()
    async with running(store, finished_records=2) as bench:
        waiting = bench.submit()
        finished = [bench.finish() for _ in range(5)]
        assert [bench.knows(task_id) for task_id in finished] == [False, False, False, True, True]
        assert bench.knows(waiting)
        kept = {record.id async for record in store.load()}
        assert kept == {waiting, *finished[3:]}
        assert bench.submit(make_task(id=finished[0])) == finished[0]


async def test_finished_tasks_are_kept_up_to_so_many_bytes() -> None:
    """Prompts and results count; one that is larger than everything is told, and forgotten at once."""
    async with running(finished_bytes=1_000) as bench:
        finished = [bench.finish(text="r" * 200, prompt="p" * 200) for _ in range(4)]
        assert [bench.knows(task_id) for task_id in finished] == [False, False, True, True]
        large = bench.finish(text="r" * 5_000)
        assert not any(bench.knows(task_id) for task_id in (*finished, large))
        assert bench.told[-1].record.result is not None


async def test_finished_tasks_are_forgotten_when_they_are_old() -> None:
    """Each after its time, counted from its end."""
    async with running(finished_ms=1_000) as bench:
        first, waiting = bench.finish(), bench.submit()
        bench.clock.advance(600)
        second = bench.finish()
        bench.clock.advance(400)
        await bench.manager.sweep()
        assert bench.knows(first)
        bench.clock.advance(1)
        await bench.manager.sweep()
        assert [bench.knows(task_id) for task_id in (first, second, waiting)] == [False, True, True]
        bench.clock.advance(10_000)
        await bench.manager.sweep()
        assert [bench.knows(task_id) for task_id in (second, waiting)] == [False, True]


async def test_the_store_hurries_for_who_waits_until_a_task_is_saved() -> None:
    """Whoever enqueues it, watches it, or stops the node; not for who waits until it has ended."""
    hurries: list[None] = []

    class Noting(HeldStore):
        def hurry(self) -> None:
            hurries.append(None)

    store = Noting()
    async with running(store) as bench, trio.open_nursery() as nursery:
        store.hold()
        task_id = bench.submit()

        async def watch() -> None:
            async with bench.manager.watch(task_id) as changes:
                async for _ in changes:
                    return

        for waits, hurried in ((bench.manager.wait, 0), (bench.manager.wait_saved, 1)):
            nursery.start_soon(waits, task_id)
            await wait_all_tasks_blocked()
            assert len(hurries) == hurried
        for wait, hurried in ((watch, 2), (bench.manager.settle, 3)):
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert len(hurries) == hurried
        store.release()
        bench.begin(task_id)
        bench.complete(task_id, "done")


async def test_many_old_tasks_are_forgotten_some_at_a_time() -> None:
    """A sweep lets everything else go on in between, and tells the store of many tasks at once."""
    forgotten: list[int] = []

    class Noting(MemoryStore):
        def forget(self, task_ids: Iterable[TaskId]) -> None:
            forgotten.append(len(list(task_ids)))

    async with running(Noting(), finished_ms=10_000) as bench, trio.open_nursery() as nursery:
        for _ in range(2 * SWEPT_A_PASS + 1):
            bench.finish()
        bench.clock.advance(10_001)
        nursery.start_soon(bench.manager.sweep)
        kept: list[int] = []
        while not kept or kept[-1]:
            await trio.lowlevel.checkpoint()
            kept.append(len(bench.manager.list_tasks()))
        assert {*kept} & {SWEPT_A_PASS + 1, 1}
    assert forgotten == [SWEPT_A_PASS, SWEPT_A_PASS, 1]


async def test_whoever_waits_gets_the_end_of_a_task_that_is_forgotten_at_once() -> None:
    """A node that keeps nothing still answers those who wait."""
    async with running(finished_records=0) as bench, trio.open_nursery() as nursery:
        task_id = bench.submit()
        records: list[TaskRecord] = []

        async def wait() -> None:
            records.append(await bench.manager.wait(task_id))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        bench.begin(task_id)
        bench.complete(task_id)
        await wait_all_tasks_blocked()
        assert [record.status for record in records] == [TaskStatus.COMPLETE]


async def test_usage_counts_what_a_requester_has_open(bench: Bench) -> None:
    """Tasks and bytes, from the submission to the end, whatever the end is; idle requesters take no memory."""
    first = bench.submit(requester=PEER, prompt="x" * 100)
    second = bench.submit(requester=PEER, prompt="y" * 50, params={"text": "z" * 25})
    bench.submit(requester=OWN)
    usage = bench.manager.usage(PEER)
    assert usage.tasks == 2
    assert 175 <= usage.payload_bytes <= 250
    bench.begin(first)
    bench.complete(first)
    assert bench.manager.usage(PEER).tasks == 1
    bench.manager.cancel_task(second)
    assert bench.manager.usage(PEER) == Usage()
    assert (bench.manager.usage(OWN).tasks, bench.manager.open_tasks) == (1, 1)


# --- saved before told -----------------------------------------------------------------------------------------------


async def test_the_double_keeps_the_contract_of_stores() -> None:
    """The store that holds changes back is a store like any other while it does not."""
    await check_store(HeldStore)


async def test_nobody_sees_a_change_before_it_is_saved(held: tuple[Bench, HeldStore]) -> None:
    """Not those who ask, wait, watch or listen; each change is told when it is committed, in order."""
    bench, store = held
    task = make_task()
    bench.submit(task)
    assert bench.manager.find_task(task.id) is None
    assert bench.manager.list_tasks() == []
    assert code_of(lambda: bench.manager.get_task(task.id)) is ErrorCode.NOT_FOUND
    ended: list[TaskRecord] = []

    async def wait() -> None:
        ended.append(await bench.manager.wait(task.id))

    async with watcher(bench, task.id) as seen, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        bench.begin(task.id)
        bench.complete(task.id)
        statuses = [TaskStatus.PENDING, TaskStatus.CLAIMED, TaskStatus.EXECUTING, TaskStatus.COMPLETE]
        for number, status in enumerate(statuses, 1):
            await wait_all_tasks_blocked()
            assert len(bench.told) == len(seen) == number - 1
            assert ended == []
            assert bench.manager.get_result(task.id) is None
            store.commit()
            assert bench.manager.get_task(task.id).status is status
            assert [change.record.seq for change in bench.told] == [*range(1, number + 1)]
    assert [record.status for record in ended] == [TaskStatus.COMPLETE]
    assert seen == bench.told


async def test_a_task_that_is_being_saved_is_known_to_those_who_add_to_it(held: tuple[Bench, HeldStore]) -> None:
    """Submitting it again attaches to it, another task under its UUID conflicts, and it counts as open."""
    bench, store = held
    task = make_task()
    bench.submit(task)
    assert bench.submit(task) == task.id
    assert code_of(lambda: bench.submit(make_task("other", id=task.id))) is ErrorCode.CONFLICT
    assert len(store.held) == 1
    assert bench.manager.open_tasks == bench.manager.usage(OWN).tasks == 1
    assert bench.manager.latest(task.id).status is TaskStatus.PENDING


async def test_room_is_there_when_the_end_of_a_task_is_saved() -> None:
    """What is not on disk yet still takes its place."""
    store = HeldStore()
    async with running(store, open_tasks=1) as bench:
        store.hold()
        task_id = bench.submit()
        bench.begin(task_id)
        bench.complete(task_id)
        assert code_of(bench.submit) is ErrorCode.BUSY
        store.commit(4)
        bench.submit()


async def test_a_cancel_that_races_with_a_result_is_judged_by_what_was_recorded_first(
    held: tuple[Bench, HeldStore],
) -> None:
    """Neither waits for the disk: the second one meets the first, although nobody has been told of it."""
    bench, store = held
    first, second = bench.submit(), bench.submit()
    for task_id in (first, second):
        bench.begin(task_id)
    bench.complete(first)
    assert bench.manager.cancel_task(first).status is TaskStatus.COMPLETE
    bench.manager.cancel_task(second)
    bench.complete(second)
    store.release()
    facts = [type(change.fact) for change in bench.told if change.record.id == second]
    assert facts == [Submitted, Claimed, Started, CancelRequested, Completed]
    assert bench.manager.get_task(second).status is TaskStatus.COMPLETE


async def test_a_task_may_be_cancelled_before_it_is_saved(held: tuple[Bench, HeldStore]) -> None:
    """Both facts reach the disk, in order."""
    bench, store = held
    task_id = bench.submit()
    assert bench.manager.cancel_task(task_id).status is TaskStatus.CANCELLED
    assert bench.told == []
    store.release()
    assert [type(change.fact) for change in bench.told] == [Submitted, Cancelled]


async def test_leaving_saves_everything_first() -> None:
    """A node that stops in good order loses nothing that it has taken in."""
    store = HeldStore()
    async with running(store) as bench:
        store.hold()
        task_id = bench.submit()
    assert [change.record.id for change in bench.told] == [task_id]


# --- a restart -------------------------------------------------------------------------------------------------------


async def test_a_restart_begins_with_what_the_store_holds() -> None:
    """Finished tasks with their results, open ones with their status, all counted; the newest are listed first."""
    store = MemoryStore()
    async with running(store) as bench:
        finished = bench.finish()
        bench.clock.advance(1)
        waiting = bench.submit(requester=PEER)
        bench.clock.advance(1)
        executing = bench.submit()
        bench.begin(executing)
    async with running(store) as restarted:
        manager = restarted.manager
        assert [record.id for record in manager.list_tasks()] == [executing, waiting, finished]
        assert manager.get_result(finished) == TaskResult(finished, "done", 5)
        assert (await manager.wait(finished)).status is TaskStatus.COMPLETE
        assert manager.open_tasks == 2
        assert manager.usage(PEER).tasks == 1
        assert restarted.told == []
        restarted.complete(executing)
        assert [change.record.seq for change in restarted.told] == [4]
        assert code_of(lambda: restarted.submit(make_task("other", id=waiting))) is ErrorCode.CONFLICT


async def test_a_restart_forgets_those_that_ended_first() -> None:
    """The age of a finished task counts from its end, also where an old one took long."""
    store = MemoryStore()
    async with running(store) as bench:
        slow = bench.submit()
        bench.begin(slow)
        bench.clock.advance(10)
        quick = bench.finish()
        bench.clock.advance(10)
        bench.complete(slow)
    async with running(store, finished_records=1) as restarted:
        assert (restarted.knows(quick), restarted.knows(slow)) == (False, True)


async def test_a_crash_undoes_only_what_nobody_was_told() -> None:
    """What was committed is there after it, and what was not had no listener."""
    store = HeldStore()
    async with running(store) as bench:
        store.hold()
        accepted = bench.submit()
        store.commit()
        bench.submit()
        bench.begin(accepted)
        told = list(bench.told)
        store.lose()
    assert bench.told == told
    async with running(store) as restarted:
        assert restarted.manager.list_tasks() == [change.record for change in told]


# --- tasks that another program has taken ----------------------------------------------------------------------------


async def test_whoever_waits_for_a_task_that_the_store_gives_up_is_told_why() -> None:
    """Waiters and watchers hear of a failure with code, reason and remedy; then the node does not know the task."""
    store = HeldStore()
    async with running(store) as bench, trio.open_nursery() as nursery:
        task_id, other = bench.submit(), bench.submit()
        store.hold()
        bench.begin(task_id)
        ends: list[TaskRecord] = []
        seen: list[Change | Lagged] = []

        async def wait() -> None:
            ends.append(await bench.manager.wait(task_id))

        async def watch() -> None:
            async with bench.manager.watch(task_id) as changes:
                seen.extend([change async for change in changes])

        nursery.start_soon(wait)
        nursery.start_soon(watch)
        nursery.start_soon(bench.manager.settle)
        await wait_all_tasks_blocked()
        store.refuse(TAKEN)
        await wait_all_tasks_blocked()
        with pytest.raises(TaskFailed, match=r"another process has changed it in tasks\.db\. Give each") as told:
            outcome(ends[0])
        assert told.value.failure.code is ErrorCode.CONFLICT
        assert seen[-1] == bench.told[-1]
        assert seen[-1].record.seq == 2
        assert not bench.knows(task_id)
        assert bench.knows(other)
        assert (bench.manager.open_tasks, bench.manager.usage(OWN).tasks) == (1, 1)
        with pytest.raises(TaskNotFound):
            bench.complete(task_id)


async def test_whoever_waits_until_a_task_is_saved_is_told_that_it_never_is() -> None:
    """A task that another process has brought already is not taken in twice, and its room is free again."""
    store = HeldStore()
    async with running(store, open_tasks=1) as bench, trio.open_nursery() as nursery:
        store.hold()
        task = make_task()
        bench.submit(task)
        told: list[TaskFailed] = []

        async def wait() -> None:
            try:
                await bench.manager.wait_saved(task.id)
            except TaskFailed as error:
                told.append(error)

        nursery.start_soon(wait)
        nursery.start_soon(bench.manager.wait_for_room)
        await wait_all_tasks_blocked()
        store.refuse(TAKEN)
        await wait_all_tasks_blocked()
        assert [error.failure.code for error in told] == [ErrorCode.CONFLICT]
        with pytest.raises(PeertaskError, match="cannot be kept") as refused:
            bench.submit(task)
        assert refused.value.code is ErrorCode.CONFLICT
        assert bench.manager.open_tasks == 0
