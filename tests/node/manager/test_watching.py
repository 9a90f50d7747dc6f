"""Who sees what happens to tasks, from which fact on, and what is missed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.feed import WATCH_BUFFER_CHANGES
from node.interfaces import Change, Lagged
from node.testing import START_MS
from protocol import (
    ErrorCode,
    Failed,
    Failure,
    TaskId,
    TaskNotFound,
    new_task_id,
)
from tests.node.manager.bench import Bench, watcher


async def watch_all(bench: Bench, task_id: TaskId, after_seq: int = 0) -> list[int | Lagged]:
    """What a watcher of a task that ends sees: numbers of facts, and gaps."""
    async with bench.manager.watch(task_id, after_seq) as changes:
        return [change if isinstance(change, Lagged) else change.record.seq async for change in changes]


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
