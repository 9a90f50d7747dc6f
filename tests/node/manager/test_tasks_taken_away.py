"""Tasks that another program has changed in the store."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.awaited_tasks import outcome
from node.interfaces import Change, Lagged
from node.testing import HeldStore, make_task
from protocol import (
    ErrorCode,
    PeertaskError,
    TaskFailed,
    TaskNotFound,
    TaskRecord,
)
from tests.node.manager.bench import OWN, TAKEN, running


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
