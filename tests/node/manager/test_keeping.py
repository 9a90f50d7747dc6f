"""How long and how much of finished tasks is kept."""

from __future__ import annotations

from collections.abc import Iterable

import trio
from trio.testing import wait_all_tasks_blocked

from node.coordination.quotas import Usage
from node.manager import SWEPT_A_PASS
from node.stores.memory import MemoryStore
from node.testing import make_task
from protocol import (
    TaskId,
    TaskRecord,
    TaskStatus,
)
from tests.node.manager.bench import OWN, PEER, Bench, running


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
