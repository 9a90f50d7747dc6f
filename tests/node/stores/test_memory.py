"""The store in memory."""

import gc
import tracemalloc

import pytest

from node.interfaces import Change
from node.stores.memory import MAX_FACTS_PER_TASK, MemoryStore
from node.testing import TEST_PEER, check_store, make_task
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    PeertaskError,
    Progressed,
    Started,
    Submitted,
    Task,
    TaskResult,
    Transition,
    advance,
    begin,
)


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


def begun(task: Task) -> list[Change]:
    """The changes up to where a task executes."""
    submitted = Submitted(task, 1, TEST_PEER)
    changes = [Change(begin(submitted), submitted)]
    return [
        *changes,
        *continued(changes[-1], Claimed(task.id, 2, 1, TEST_PEER, 30_000), Started(task.id, 3, 1)),
    ]


def continued(last: Change, *facts: Transition) -> list[Change]:
    """The changes that follow on one."""
    changes = [last]
    for fact in facts:
        changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes[1:]


async def facts_of(store: MemoryStore, task: Task, after_seq: int = 0) -> list[Fact]:
    """What is kept of a task."""
    return [fact async for fact in store.facts(task.id, after_seq)]


async def test_it_keeps_the_contract_of_stores() -> None:
    """The memory store passes the checker, and keeps what it holds when its node stops and starts."""
    # covers CORE-10
    await check_store(MemoryStore)


async def test_a_change_is_committed_before_append_returns() -> None:
    """Memory needs no time: whoever appends may go on as with a change that is saved."""
    store = MemoryStore()
    committed: list[Change] = []
    changes = begun(make_task())
    async with store.running(committed.extend):
        for number, change in enumerate(changes, 1):
            store.append((change,))
            assert committed == changes[:number]


async def test_a_listener_may_append_the_next_change() -> None:
    """What is committed may cause the next fact at once, and order is kept."""
    store = MemoryStore()
    committed: list[object] = []
    changes = begun(make_task())

    def commit_and_go_on(news: object) -> None:
        committed.append(news)
        if len(committed) < len(changes):
            store.append((changes[len(committed)],))

    async with store.running(commit_and_go_on):
        store.append((changes[0],))
    assert committed == [(change,) for change in changes]


async def test_only_the_last_facts_of_a_task_that_goes_on_are_kept() -> None:
    """A task that reports for hours takes no more memory than one that reports for seconds; the newest facts stay."""
    store, task = MemoryStore(), make_task()
    history = begun(task)
    reports = [Progressed(task.id, 9 + n, 1, 0.5, f"step {n}", 30_000) for n in range(3 * MAX_FACTS_PER_TASK)]
    history += continued(history[-1], *reports)
    async with store.running(ignore):
        for change in history:
            store.append((change,))
        kept = await facts_of(store, task)
        assert kept == [change.fact for change in history][-MAX_FACTS_PER_TASK:]
        assert await facts_of(store, task, after_seq=len(history) - 2) == kept[-2:]


async def test_a_finished_task_keeps_its_record_and_no_facts() -> None:
    """The record tells how the task ended; its facts make room."""
    store, task = MemoryStore(), make_task()
    history = begun(task)
    history += continued(history[-1], Completed(task.id, 9, 1, TaskResult(task.id, "done", 6)))
    async with store.running(ignore):
        for change in history:
            store.append((change,))
        assert await facts_of(store, task) == []
        assert [record async for record in store.load()] == [history[-1].record]


async def test_a_finished_task_costs_less_than_two_kilobytes() -> None:
    """A record with a task and a result of 200 bytes, and all that the store adds, stay within the budget of a node."""
    count = 1_000
    store = MemoryStore()
    async with store.running(ignore):
        gc.collect()
        tracemalloc.start()
        for number in range(count):
            task = make_task(f"{number:0200}")
            history = begun(task)
            for change in history + continued(
                history[-1], Completed(task.id, 9, 1, TaskResult(task.id, f"{number:0200}", 6))
            ):
                store.append((change,))
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert used / count < 2_048


async def test_appending_to_a_store_that_is_not_open_is_refused() -> None:
    """What would be told to nobody is not taken in."""
    store = MemoryStore()
    with pytest.raises(PeertaskError, match="not open") as refused:
        store.append((begun(make_task())[0],))
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert [record async for record in store.load()] == []


async def test_two_nodes_cannot_share_a_memory_store() -> None:
    """A second node would be told of the first one's changes, or the first one no longer."""
    store = MemoryStore()
    async with store.running(ignore):
        with pytest.raises(PeertaskError, match="open already") as refused:
            async with store.running(ignore):
                pytest.fail("a second node runs on the store")
    assert refused.value.code is ErrorCode.STORE_FAILED
