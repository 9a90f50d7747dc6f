"""A task that a peer carries out: what it is told, and what comes back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.interfaces import Output
from node.testing import (
    Delay,
    Hang,
    MemoryHub,
    Raise,
    Report,
    Return,
    ScriptedExecutor,
)
from protocol import (
    Artifact,
    Claimed,
    Completed,
    ErrorCode,
    PeertaskError,
    Progressed,
    RetryPolicy,
    Started,
    TaskStatus,
)
from tests.node.remote.pairs import Pair, code_of, pair_on, until


async def test_a_peer_carries_a_task_out(autojump_clock: MockClock, pair: Pair) -> None:
    """Its result is the worker's, with the time that the execution took there; both sides have a record of it."""
    # covers CORE-16, CORE-31
    artifact = Artifact(name="plot", content="data")
    pair.executor.then((Delay(250), Return(Output("done", (artifact,)))))
    record = await pair.run()
    assert record.result is not None
    assert (record.result.result, record.result.artifacts) == ("done", (artifact,))
    assert 250 <= record.result.duration_ms <= 251
    assert (record.holder, record.attempt, record.requester) == (pair.ben.peer_id, 1, pair.ann.peer_id)
    (theirs,) = pair.ben.tasks_of(pair.ann)
    assert (theirs.id, theirs.task, theirs.result) == (record.id, record.task, record.result)
    assert (theirs.target, theirs.status) == (pair.ben.peer_id, TaskStatus.COMPLETE)


async def test_many_tasks_between_two_nodes_each_get_their_own_result(autojump_clock: MockClock, pair: Pair) -> None:
    """In both directions at once, more than run at a time."""
    # covers CORE-17
    tasks = {pair.submit(f"prompt {number}"): f"prompt {number}" for number in range(300)}
    back = [pair.ben.submit(f"echo {number}", to=pair.ann) for number in range(300)]
    for task_id, prompt in tasks.items():
        record = await pair.ann.wait(task_id)
        assert record.result is not None
        assert record.result.result == prompt
    assert {(await pair.ben.wait(task_id)).status for task_id in back} == {TaskStatus.COMPLETE}
    assert len(pair.executor.seen) == 300


async def test_progress_reaches_the_requester(autojump_clock: MockClock, pair: Pair) -> None:
    """As facts of its own record, in order, between the start and the end."""
    steps = [step for number in range(1, 4) for step in (Report(number / 4, f"step {number}"), Delay(150))]
    pair.executor.then(tuple(steps))
    record = await pair.run()
    assert [(fact.fraction, fact.message) for fact in pair.facts(Progressed)] == [
        (0.25, "step 1"),
        (0.5, "step 2"),
        (0.75, "step 3"),
    ]
    order = [type(change.fact) for change in pair.told if change.record.id == record.id]
    assert order[1:] == [Claimed, Started, Progressed, Progressed, Progressed, Completed]


async def test_a_failure_at_the_worker_is_the_failure_of_the_task(autojump_clock: MockClock, pair: Pair) -> None:
    """With its code and message; the worker's retries count, and the requester adds none of its own."""
    pair.executor.then(Raise(ValueError("no disk")))
    record = await pair.run()
    assert record.failure == pair.ben.manager.get_task(record.id).failure
    assert (code_of(record), record.attempt) == (ErrorCode.EXECUTION_FAILED, 1)
    pair.executor.on("retryable", Raise(PeertaskError("the disk is away", code=ErrorCode.STORE_FAILED)))
    record = await pair.run("retryable", retry=RetryPolicy(attempts=3, backoff_ms=10))
    assert (code_of(record), record.attempt) == (ErrorCode.STORE_FAILED, 1)
    assert sum(seen.task.prompt == "retryable" for seen in pair.executor.seen) == 3


async def test_a_deadline_travels_as_remaining_time(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The worker knows how much is left on its own clock, and ends the work when it is used up."""
    async with pair_on(hub, ScriptedExecutor(slots=1)) as pair:
        pair.executor.on("slow", Hang())
        slow = pair.submit("slow", timeout_s=3.0)
        await pair.executor.wait_until_begun(1)
        theirs = pair.ben.manager.get_task(slow)
        assert theirs.deadline is not None
        assert theirs.deadline - theirs.created_at == 3_000
        behind = pair.submit("behind", timeout_s=1.0)
        assert code_of(await pair.ann.wait(behind)) is ErrorCode.DEADLINE_EXCEEDED
        assert trio.current_time() == pytest.approx(1.0, abs=0.1)
        assert code_of(await pair.ann.wait(slow)) is ErrorCode.DEADLINE_EXCEEDED
        await until(lambda: not pair.ben.manager.open_tasks)
        assert [seen.ended for seen in pair.executor.seen] == ["cancelled"]


async def test_a_timeout_is_kept_by_the_worker(autojump_clock: MockClock, pair: Pair) -> None:
    """For one execution, from its start."""
    pair.executor.then(Hang())
    record = await pair.run(timeout_ms=400)
    assert code_of(record) is ErrorCode.TIMEOUT
    assert pair.executor.running == 0
