"""Facts that are judged: taken, or refused with all that came with them."""

from __future__ import annotations

import pytest

from node.coordination.quotas import Usage
from node.interfaces import Change
from node.testing import START_MS, HeldStore, make_task
from protocol import (
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    IllegalTransition,
    Released,
    StaleAttempt,
    Started,
    Submitted,
    TaskResult,
    TaskStatus,
)
from tests.node.manager.bench import OWN, Bench, code_of, running


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
