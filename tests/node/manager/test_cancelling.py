"""Tasks that are asked to stop."""

from __future__ import annotations

import pytest

from node.testing import START_MS
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    Released,
    Started,
    TaskResult,
    TaskStatus,
    Transition,
)
from tests.node.manager.bench import OWN, PEER, Bench, code_of


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
