"""Nobody is told what is not saved, with a store that takes its time."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from node.testing import HeldStore, check_store, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Started,
    Submitted,
    TaskRecord,
    TaskStatus,
)
from tests.node.manager.bench import OWN, Bench, code_of, running, watcher


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
