"""Why a task is where it is, for every reason that there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from node.coordination.explain import Candidate, Explanation, Trial, Verdict, explain
from node.coordination.hindrances import MAX_NAMED, Reason, Situation, Wait, never_started
from node.coordination.plan import Backlog
from node.coordination.roster import Roster, Worker
from node.testing import START_MS, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeerId,
    Progressed,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskId,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
    new_task_id,
)

OWN, PEER, OTHER = PeerId("own"), PeerId("peer"), PeerId("other")
ECHO = frozenset({"echo"})


def life(*moves: Callable[[TaskRecord], Transition], target: PeerId | None = None, **fields: Any) -> list[Fact]:
    """The facts of a task, each made from the record before it."""
    submitted = Submitted(make_task(**{"kind": "echo", **fields}), START_MS, OWN, target)
    facts: list[Fact] = [submitted]
    record = begin(submitted)
    for move in moves:
        fact = move(record)
        facts.append(fact)
        record = advance(record, fact)
    return facts


def told(facts: Sequence[Fact], *workers: Worker, **others: Any) -> Explanation:
    """What is explained of a task with these facts, where these workers are."""
    record, situation = known_of(facts, *workers, **others)
    return explain(record, facts, situation)


def known_of(
    facts: Sequence[Fact],
    *workers: Worker,
    away: Mapping[PeerId, str] | None = None,
    draining: bool = False,
    awaited: Sequence[tuple[TaskId, TaskRecord | None]] = (),
) -> tuple[TaskRecord, Situation]:
    """A task with these facts, and what an explanation of it is worked out from."""
    first, *rest = facts
    assert isinstance(first, Submitted)
    record, backlog = begin(first), Backlog(OWN)
    backlog.update(record)
    for fact in rest:
        assert not isinstance(fact, Submitted)
        record = advance(record, fact)
        if isinstance(fact, Released) and record.holder is not None:
            backlog.refusals.note(record.id, record.holder, fact.reason)
        backlog.update(record)
    situation = Situation(
        roster=Roster(workers, OWN),
        backlog=backlog,
        away=away or {},
        draining=draining,
        now=START_MS + 100,
        awaited=awaited,
    )
    return record, situation


def claimed(by: PeerId) -> Callable[[TaskRecord], Transition]:
    """Somebody takes the task on."""
    return lambda record: Claimed(record.id, START_MS + 1, record.attempt + 1, by, START_MS + 30_000)


def started(record: TaskRecord) -> Transition:
    """Its holder begins."""
    return Started(record.id, START_MS + 2, record.attempt)


def released(reason: ErrorCode, not_before: int = 0) -> Callable[[TaskRecord], Transition]:
    """Its holder gives it up."""
    return lambda record: Released(record.id, START_MS + 50, record.attempt, reason, "why", not_before)


def worker(peer_id: PeerId = PEER, **told: Any) -> Worker:
    """A peer that can have it."""
    return Worker(**{"peer_id": peer_id, "kinds": ECHO, "slots": 2, **told})


def local(kind: str = "echo", **told: Any) -> Worker:
    """An executor of this node."""
    return Worker(**{"peer_id": OWN, "kinds": frozenset({kind}), "slots": 2, **told})


ELSEWHERE = RetryPolicy(elsewhere=True)
REVIEWERS = [worker(personas=frozenset({"reviewer"})), local(personas=frozenset({"writer"}))]


@pytest.mark.parametrize(
    ("facts", "workers", "waits"),
    [
        (life(), [worker()], (Wait.TURN, "turn")),
        (life(), [], (Wait.WORKER, "kind 'echo', and that this node may give tasks; nobody does that kind, no kinds")),
        (life(kind="x"), [worker(), local("mock")], (Wait.WORKER, "nobody does that kind, known kinds are echo, mock")),
        (
            life(persona="reviewer"),
            [worker(personas=frozenset())],
            (Wait.WORKER, "nobody acts as 'reviewer', or as any other persona"),
        ),
        (life(persona="critic"), REVIEWERS, (Wait.WORKER, "nobody acts as 'critic', only as reviewer, writer")),
        (life(persona="critic", target=OWN), REVIEWERS, (Wait.WORKER, "'critic', only as writer")),
        (life(), [worker(trusted=False)], (Wait.WORKER, "may give tasks; whoever could have it is a stranger")),
        (life(), [worker(slots=0)], (Wait.WORKER, "whoever could have it takes no tasks at the moment")),
        (life(target=OWN, kind="other"), [local()], (Wait.WORKER, "kind 'other'")),
        (life(target=PEER), [worker(OTHER)], (Wait.PEER, "a session with peer, which it names")),
        (life(target=PEER, retry=ELSEWHERE), [], (Wait.PEER, "nobody else")),
        (life(target=PEER), [worker(busy=2)], (Wait.SLOT, "full")),
        (life(), [worker(busy=2), local(busy=3)], (Wait.SLOT, "full")),
        (life(), [worker(busy=2), local()], (Wait.TURN, "turn")),
        (
            life(claimed(PEER), released(ErrorCode.BUSY, START_MS + 500)),
            [worker()],
            (Wait.BACKOFF, "back-off"),
        ),
        (life(claimed(PEER), released(ErrorCode.FORBIDDEN)), [worker(), worker(OTHER, busy=2)], (Wait.SLOT, "full")),
        (life(), [worker(busy_until=START_MS + 999), worker(OTHER, busy=2)], (Wait.SLOT, "busy")),
        (life(), [worker(busy_until=START_MS + 999), worker(OTHER)], (Wait.TURN, "turn")),
        (life(claimed(PEER), started), [worker(busy=1)], (Wait.RESULT, "attempt 1 runs at peer")),
        (
            life(claimed(PEER), lambda record: CancelRequested(record.id, START_MS)),
            [worker()],
            (Wait.STOP, "peer was told"),
        ),
    ],
)
def test_a_task_that_has_not_ended_waits_for_something(
    facts: list[Fact], workers: list[Worker], waits: tuple[Wait, str]
) -> None:
    """A worker, a slot, a peer, a time, its turn, or the end of what runs."""
    (reason,) = told(facts, *workers).waits_for
    assert reason.wait is waits[0]
    assert waits[1] in reason.text
    assert reason.until == (START_MS + 500 if reason.wait is Wait.BACKOFF else None)


def test_a_task_may_wait_for_several_things() -> None:
    """The node stops, and the peer is away."""
    reasons = told(life(target=PEER), draining=True).waits_for
    assert [reason.wait for reason in reasons] == [Wait.NODE, Wait.PEER]
    assert reasons[0] == Reason(Wait.NODE, reasons[0].text)


@pytest.mark.parametrize(
    ("facts", "workers", "remedy"),
    [
        (life(), [], "Name another kind, or let somebody run a worker that does 'echo'"),
        (life(kind="x"), [worker()], "Name one of the known kinds, or let somebody run a worker that does 'x'"),
        (life(persona="critic"), [worker(personas=frozenset())], "Let somebody run a worker with `--persona critic`"),
        (life(persona="critic"), REVIEWERS, "Name one of these, or let somebody run a worker with"),
        (life(), [worker(trusted=False)], "Let the operator of this node name one of them: `peertask node --worker"),
        (life(), [worker(slots=0)], ""),
        (life(target=PEER), [], "`peertask doctor peer`, or name another peer"),
        (life(), [worker(busy=2)], "Give it more time, or run more workers"),
    ],
)
def test_a_reason_says_who_can_do_what(facts: list[Fact], workers: list[Worker], remedy: str) -> None:
    """The requester, whoever runs a worker, or the operator; nothing when time helps."""
    (reason,) = told(facts, *workers).waits_for
    assert remedy in reason.remedy
    assert bool(remedy) is bool(reason.remedy)


def test_of_many_names_the_first_are_told() -> None:
    """A screen has so many lines."""
    kinds = frozenset(f"kind-{number:02}" for number in range(MAX_NAMED + 5))
    (reason,) = told(life(), worker(kinds=kinds)).waits_for
    assert reason.text.endswith("kind-09 and 5 more")


@pytest.mark.parametrize(
    ("facts", "workers", "message", "maybe_ran"),
    [
        (
            life(kind="x"),
            [worker()],
            "waited for a worker that does tasks of kind 'x', .* are echo. Name one of",
            False,
        ),
        (life(), [worker()], "it waited for its turn: what goes first is served first. Give it more time", False),
        (life(claimed(PEER), released(ErrorCode.BUSY)), [worker(busy=2)], "waited for a free slot", True),
    ],
)
def test_a_task_that_was_never_started_says_why(
    facts: list[Fact], workers: list[Worker], message: str, *, maybe_ran: bool
) -> None:
    """In the words of an explanation, with what would have helped; and whether an earlier attempt may have run."""
    record, situation = known_of(facts, *workers)
    failure = never_started(record, situation)
    assert failure.code is ErrorCode.DEADLINE_EXCEEDED
    assert re.search(f"^task {record.id} could not be started before its deadline: .*{message}", failure.message)
    assert (failure.retryable, failure.maybe_ran) == (False, maybe_ran)


@pytest.mark.parametrize(
    ("facts", "one", "verdict", "text"),
    [
        (life(), worker(), Verdict.FREE, "2 of 2 slots are free"),
        (life(), worker(busy=2), Verdict.FULL, "2 of 2 slots are taken"),
        (life(), worker(slots=0), Verdict.FULL, "takes no tasks"),
        (life(), worker(busy_until=START_MS + 101), Verdict.BUSY, "left alone for a while"),
        (life(), worker(kinds=frozenset({"a", "b"})), Verdict.OTHER_KIND, "does not do 'echo', but a, b"),
        (life(), worker(kinds=frozenset()), Verdict.OTHER_KIND, "but nothing"),
        (life(persona="x"), worker(personas=frozenset({"y"})), Verdict.OTHER_PERSONA, "not act as 'x', but as y"),
        (life(), worker(trusted=False), Verdict.NOT_TRUSTED, "stranger"),
        (life(target=OTHER), worker(), Verdict.NOT_ASKED_FOR, "the task names other"),
        (life(target=OTHER, retry=ELSEWHERE), worker(), Verdict.FREE, "free"),
        (life(target=PEER, kind="own"), worker(), Verdict.FREE, "free"),
        (life(claimed(PEER), released(ErrorCode.FORBIDDEN)), worker(), Verdict.REFUSED, "nobody else is left"),
        (life(claimed(PEER), released(ErrorCode.PEER_LOST)), worker(), Verdict.FREE, "free"),
        (life(claimed(PEER)), worker(), Verdict.CHOSEN, "has the task"),
    ],
)
def test_each_worker_has_a_verdict_and_a_reason(facts: list[Fact], one: Worker, verdict: Verdict, text: str) -> None:
    """For people, and for programs."""
    (candidate,) = told(facts, one).candidates
    assert candidate.verdict is verdict
    assert text in candidate.text


def test_who_can_have_it_comes_first_and_who_is_away_last() -> None:
    """With what each of them has and takes."""
    facts = life(claimed(PEER), released(ErrorCode.NO_EXECUTOR))
    found = told(facts, worker(load=7), worker(OTHER, busy=1), away={PeerId("gone"): "no answer", PeerId("new"): ""})
    assert [(one.peer_id, one.verdict) for one in found.candidates] == [
        (OTHER, Verdict.FREE),
        (PEER, Verdict.REFUSED),
        (PeerId("gone"), Verdict.AWAY),
        (PeerId("new"), Verdict.AWAY),
    ]
    assert found.candidates[0] == Candidate(
        peer_id=OTHER, verdict=Verdict.FREE, text="1 of 2 slots are free", busy=1, slots=2, load=1
    )
    assert found.candidates[1].load == 7
    assert found.candidates[2].text == "there is no session: no answer"


def test_a_named_peer_that_is_connected_keeps_others_out() -> None:
    """Although another would do if it were away."""
    found = told(life(target=PEER, retry=ELSEWHERE), worker(), worker(OTHER))
    assert [one.verdict for one in found.candidates] == [Verdict.FREE, Verdict.NOT_ASKED_FOR]


@pytest.mark.parametrize(("kind", "verdict"), [("echo", Verdict.FREE), ("third", Verdict.OTHER_KIND)])
def test_this_node_is_one_candidate_however_many_kinds_it_has(kind: str, verdict: Verdict) -> None:
    """The executor of the kind stands for it, or all of them do."""
    (candidate,) = told(life(kind=kind), local("mock"), local("echo")).candidates
    assert candidate.verdict is verdict


def test_every_attempt_is_told_with_its_end() -> None:
    """From the facts alone."""
    facts = life(
        claimed(PEER),
        released(ErrorCode.BUSY),
        claimed(OTHER),
        started,
        lambda record: Progressed(record.id, START_MS, record.attempt, 0.5, "half", 0),
        released(ErrorCode.PEER_LOST),
        claimed(OWN),
        started,
    )
    assert told(facts, worker()).trials == (
        Trial(1, PEER, START_MS + 1, START_MS + 50, ErrorCode.BUSY, "why"),
        Trial(2, OTHER, START_MS + 1, START_MS + 50, ErrorCode.PEER_LOST, "why"),
        Trial(3, OWN, START_MS + 1),
    )


@pytest.mark.parametrize(
    ("end", "outcome", "trial"),
    [
        (
            lambda record: Completed(record.id, START_MS + 9, record.attempt, TaskResult(record.id, "done", 1)),
            "peer has done it",
            (None, ""),
        ),
        (
            lambda record: Failed(record.id, START_MS + 9, record.attempt, Failure.of(ErrorCode.TIMEOUT, "slow")),
            "TIMEOUT: slow",
            (ErrorCode.TIMEOUT, "slow"),
        ),
    ],
)
def test_a_task_that_has_ended_waits_for_nothing(
    end: Callable[[TaskRecord], Transition], outcome: str, trial: tuple[ErrorCode | None, str]
) -> None:
    """Its outcome is told, and nobody is considered any more."""
    found = told(life(claimed(PEER), started, end), worker())
    assert (found.waits_for, found.candidates, found.outcome) == ((), (), outcome)
    assert found.trials == (Trial(1, PEER, START_MS + 1, START_MS + 9, *trial),)


def test_a_task_that_was_cancelled_says_so() -> None:
    """While it waited there was no attempt; while it ran there was one."""
    waiting = life(lambda record: Cancelled(record.id, START_MS))
    assert (told(waiting).outcome[:9], told(waiting).trials) == ("CANCELLED", ())
    running = life(
        claimed(PEER),
        lambda record: CancelRequested(record.id, START_MS),
        lambda record: Cancelled(record.id, START_MS + 9),
    )
    assert [trial.code for trial in told(running).trials] == [ErrorCode.CANCELLED]


def test_a_blocked_task_waits_for_those_that_it_depends_on() -> None:
    """Each is named with where it stands; of many the first ones are."""
    known = begin(Submitted(make_task(), START_MS, OWN))
    gone = [new_task_id() for _ in range(11)]
    awaited = [(known.id, known), *((task_id, None) for task_id in gone)]
    found = told(life(), worker(), awaited=awaited)
    (reason,) = found.waits_for
    assert found.blocked
    assert reason.wait is Wait.DEPENDENCY
    assert reason.text.startswith(f"{known.id} (pending), {gone[0]} (forgotten), ")
    assert reason.text.endswith(" and 2 more, whose results it needs")


@pytest.mark.parametrize("workers", [[], [worker()], [worker(busy=2)]], ids=["nobody", "somebody", "all are busy"])
def test_workers_do_not_matter_to_a_blocked_task(workers: list[Worker]) -> None:
    """Neither who is there nor who is missing: that is seen when it is ready."""
    found = told(life(), *workers, awaited=[(new_task_id(), None)])
    assert [reason.wait for reason in found.waits_for] == [Wait.DEPENDENCY]
    assert found.candidates == ()


def test_a_blocked_task_waits_for_a_node_that_goes_on_too() -> None:
    """When its own node is stopping, nothing that it depends on helps."""
    found = told(life(), draining=True, awaited=[(new_task_id(), None)])
    assert [reason.wait for reason in found.waits_for] == [Wait.NODE, Wait.DEPENDENCY]
