"""Each promise that the judge of a simulation looks after, broken by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from node.coordination.dead_letters import RETRY_OF
from node.interfaces import Change, Output
from node.testing import FakeExecution, MemoryNetwork, make_task, open_memory_hub
from node.testing.memory_channel import MemoryChannel
from node.testing.simulation.judge import MAX_VIOLATIONS, Judge
from node.testing.simulation.trace import Trace
from protocol import (
    Accept,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    Frame,
    PeerId,
    Progressed,
    Released,
    Result,
    RetryPolicy,
    Started,
    Submit,
    Submitted,
    TaskRecord,
    TaskResult,
    advance,
    begin,
)

ANN, BEN, CID = PeerId("ann"), PeerId("ben"), PeerId("cid")
TASK = make_task(retry=RetryPolicy(attempts=1))
ID = TASK.id
RESULT, OTHER = TaskResult(ID, "done", 1), TaskResult(ID, "not done", 1)
BORN = Submitted(TASK, 1, ANN, None, 100)
CLAIMED = Claimed(ID, 2, 1, BEN, 99)
STARTED = Started(ID, 3, 1)
DONE = Completed(ID, 4, 1, RESULT)
FAILED_ONCE = Released(ID, 4, 1, "EXECUTION_FAILED", "", 0)  # type: ignore[arg-type]


def changes_of(*facts: Fact) -> list[Change]:
    """Return what a store is given for some facts."""
    changes: list[Change] = []
    for fact in facts:
        record = begin(fact) if isinstance(fact, Submitted) else advance(changes[-1].record, fact)
        changes.append(Change(record, fact))
    return changes


def judge_of(changes: Sequence[Change] = (), at: PeerId = ANN) -> Judge:
    """Return a judge that has seen some changes at a node."""
    judge = Judge(Trace(lambda: 0.0), in_flight=1)
    for change in changes:
        judge.saves(at, change)
    return judge


def other_record(fact: Fact) -> Change:
    """A change whose record is not what its fact makes of the last."""
    record: TaskRecord = changes_of(BORN)[0].record
    return Change(record, fact)


BORN_, CLAIMED_, STARTED_, DONE_ = changes_of(BORN, CLAIMED, STARTED, DONE)

SAVED = {
    "born twice": ([BORN_, BORN_], "recorded once"),
    "not born": ([CLAIMED_], "histories are legal"),
    "another record": ([BORN_, other_record(CLAIMED)], "histories are legal"),
    "no such step": ([BORN_, STARTED_], "histories are legal"),
    "after the end": ([BORN_, CLAIMED_, STARTED_, DONE_, STARTED_], "recorded once"),
    "too late": (changes_of(BORN, CLAIMED._replace(at=100)), "deadlines travel"),
    "once too often": (changes_of(BORN, CLAIMED, STARTED, FAILED_ONCE), "retries are bounded"),
}


@pytest.mark.parametrize(("changes", "promise"), SAVED.values(), ids=SAVED)
async def test_what_is_saved_wrongly_is_found(changes: list[Change], promise: str) -> None:
    """By the promise that it breaks."""
    assert {violation.promise for violation in judge_of(changes).violations} == {promise}


async def test_a_peer_may_have_so_many_tasks_open_and_not_one_more() -> None:
    """A node may have more of its own."""
    births = [changes_of(Submitted(make_task(), 1, ANN, None))[0] for _ in range(2)]
    assert judge_of(births, at=ANN).violations == []
    (violation,) = judge_of(births, at=BEN).violations
    assert violation.promise == "bounded queues"


SENT = {
    "unknown": ([], Accept(ID, 1), "saved before told"),
    "asked out of the blue": ([], Submit(TASK), "nothing invented"),
    "not saved yet": ([BORN_], Accept(ID, 2), "saved before told"),
    "another end": ([BORN_, CLAIMED_, STARTED_, DONE_], Result(task_id=ID, seq=4, result=OTHER), "saved before told"),
    "asked after the end": ([BORN_, CLAIMED_, STARTED_, DONE_], Submit(TASK), "cancel means stopped"),
    "asked after the cancel": (changes_of(BORN, CLAIMED, CancelRequested(ID, 5)), Submit(TASK), "cancel means stopped"),
    "asked of another": ([BORN_, Change(CLAIMED_.record, CLAIMED)], Submit(TASK), "one holder an attempt"),
    "as it is": ([BORN_, CLAIMED_, STARTED_, DONE_], Result(task_id=ID, seq=4, result=RESULT), None),
}


@pytest.mark.parametrize(("changes", "frame", "promise"), SENT.values(), ids=SENT)
async def test_what_must_not_be_told_is_found(
    autojump_clock: MockClock, changes: list[Change], frame: Frame, promise: str | None
) -> None:
    """Before it leaves."""
    async with open_memory_hub() as hub:
        judge = judge_of(changes)
        judge.sends(MemoryChannel(MemoryNetwork(hub, ANN), CID, dialled=True), frame, ())
        assert [violation.promise for violation in judge.violations] == ([promise] if promise else [])


async def test_a_task_may_be_asked_for_while_it_is_being_saved(autojump_clock: MockClock) -> None:
    """Nobody is told of it by that."""
    async with open_memory_hub() as hub:
        judge = judge_of([])
        judge.sends(MemoryChannel(MemoryNetwork(hub, ANN), CID, dialled=True), Submit(TASK), (BORN_, CLAIMED_))
        assert judge.violations == []


EXECUTED = {
    "not saved yet": ([], 1, None),
    "after the end": ([BORN_, CLAIMED_, STARTED_, DONE_], 1, "recorded once"),
    "after the cancel": (changes_of(BORN, CLAIMED, CancelRequested(ID, 5)), 1, "cancel means stopped"),
    "a former attempt": ([BORN_, CLAIMED_], 0, "one holder an attempt"),
    "as it is": ([BORN_], 1, None),
}


@pytest.mark.parametrize(("changes", "attempt", "promise"), EXECUTED.values(), ids=EXECUTED)
async def test_what_must_not_be_executed_is_found(changes: list[Change], attempt: int, promise: str | None) -> None:
    """When it begins."""
    judge = judge_of(changes)
    number = judge.begins(ANN, FakeExecution(TASK, attempt=attempt), slots=1)
    judge.ends(ANN, FakeExecution(TASK, attempt=attempt), number, Output("done"))
    assert [violation.promise for violation in judge.violations] == ([promise] if promise else [])
    assert judge.produced(ID, "done")
    assert not judge.produced(ID, "something else")


NEEDY = make_task(depends_on=[ID])
CHILD = make_task(parent_id=ID)
NEEDY_BORN, NEEDY_CLAIMED = changes_of(Submitted(NEEDY, 1, ANN, None), Claimed(NEEDY.id, 2, 1, ANN, 99))
AGAIN = make_task(metadata={RETRY_OF: ID})
GIVEN_UP = changes_of(BORN, CLAIMED, Failed(ID, 3, 1, Failure.of(ErrorCode.EXECUTION_FAILED, "no")))
AGAIN_DONE = changes_of(
    Submitted(AGAIN, 1, ANN, None),
    Claimed(AGAIN.id, 2, 1, BEN, 99),
    Started(AGAIN.id, 3, 1),
    Completed(AGAIN.id, 4, 1, TaskResult(AGAIN.id, "done", 1)),
)
CHILD_FACTS = changes_of(Submitted(CHILD, 1, ANN, None), Claimed(CHILD.id, 2, 1, ANN, 99))
IN_TURN = {
    "too early": ([BORN_, NEEDY_BORN, NEEDY_CLAIMED], "dependencies first"),
    "after a failure": ([*GIVEN_UP, NEEDY_BORN, NEEDY_CLAIMED], "dependencies first"),
    "after its repetition": ([*GIVEN_UP, *AGAIN_DONE, NEEDY_BORN, NEEDY_CLAIMED], None),
    "in time": ([BORN_, CLAIMED_, STARTED_, DONE_, NEEDY_BORN, NEEDY_CLAIMED], None),
    "of a cancelled parent": ([*changes_of(BORN, Cancelled(ID, 2)), *CHILD_FACTS], "cancel means stopped"),
    "of another parent": ([BORN_, *CHILD_FACTS], None),
}


@pytest.mark.parametrize(("changes", "promise"), IN_TURN.values(), ids=IN_TURN)
async def test_what_is_claimed_out_of_turn_is_found(changes: list[Change], promise: str | None) -> None:
    """Before what it depends on is complete, and after its parent was cancelled."""
    assert {violation.promise for violation in judge_of(changes).violations} == ({promise} if promise else set())


async def test_what_waits_for_others_must_neither_be_asked_of_a_peer_nor_be_executed(autojump_clock: MockClock) -> None:
    """Whatever is saved of it."""
    async with open_memory_hub() as hub:
        judge = judge_of([BORN_, NEEDY_BORN])
        judge.sends(MemoryChannel(MemoryNetwork(hub, ANN), CID, dialled=True), Submit(NEEDY), ())
        judge.begins(ANN, FakeExecution(NEEDY), slots=1)
    assert [violation.promise for violation in judge.violations] == ["dependencies first"] * 2


async def test_two_executions_of_a_task_at_a_node_are_found() -> None:
    """And more than the executor has slots for; those of a dead process do not count."""
    judge = judge_of([BORN_])
    judge.begins(ANN, FakeExecution(TASK), slots=1)
    judge.died(ANN)
    first = judge.begins(ANN, FakeExecution(TASK), slots=1)
    assert judge.violations == []
    judge.begins(ANN, FakeExecution(TASK), slots=1)
    assert {violation.promise for violation in judge.violations} == {"one holder an attempt", "bounded queues"}
    judge.ends(ANN, FakeExecution(TASK), first, None)
    assert judge.under_way == 1


async def test_a_judge_does_not_repeat_itself_for_ever() -> None:
    """A defect breaks a promise often."""
    judge = judge_of([CLAIMED_] * (MAX_VIOLATIONS + 5))
    assert len(judge.violations) == MAX_VIOLATIONS
    assert str(judge.violations[0]).startswith(f"histories are legal: T1 ({ID}) has Claimed before its birth at ann")


async def test_news_are_told_to_who_waits(autojump_clock: MockClock) -> None:
    """Whenever something is saved."""
    judge = judge_of()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge.news)
        await trio.sleep(1)
        judge.saves(ANN, BORN_)
    assert judge.open_records == 1
    progressed = Progressed(ID, 4, 1, 0.5, "", 9)
    for change in changes_of(BORN, CLAIMED, STARTED, progressed, DONE)[1:]:
        judge.saves(ANN, change)
    assert (judge.open_records, judge.violations) == (0, [])
