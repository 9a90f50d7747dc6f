"""What a new process finds."""

from __future__ import annotations

from node.stores.memory import MemoryStore
from node.testing import HeldStore, make_task
from protocol import (
    ErrorCode,
    TaskResult,
    TaskStatus,
)
from tests.node.manager.bench import PEER, code_of, running


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
