"""What the map takes in, what it refuses, and what it knows already."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.awaited_tasks import outcome
from node.coordination.quotas import Usage
from node.testing import START_MS, HeldStore, make_task
from protocol import (
    Cancelled,
    ErrorCode,
    Failed,
    Failure,
    InvalidTask,
    PeerId,
    PeertaskError,
    Task,
    TaskFailed,
    TaskNotFound,
    TaskRejected,
    TaskResult,
    TaskStatus,
    new_task_id,
)
from tests.node.manager.bench import OWN, PEER, Bench, code_of, end_of, running


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
