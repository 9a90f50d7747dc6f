"""Why a task is where it is: who was asked, who could do it, and what it waits for now.

Nothing is recorded for this. The past is read from the facts of the task, and the present is worked out from the state
that the plan decides by, so an explanation cannot say anything else than what the node does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from node.coordination.plan import Backlog
from node.coordination.roster import NOBODY, Place, Roster, Worker
from protocol import (
    Cancelled,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    PeerId,
    Released,
    TaskId,
    TaskRecord,
    TaskStatus,
)

# More ids than a screen has lines help nobody.
_MAX_NAMED = 10


class Verdict(StrEnum):
    """What a worker is for a task."""

    CHOSEN = "chosen"
    FREE = "free"
    BUSY = "busy"
    FULL = "full"
    REFUSED = "refused"
    NOT_ASKED_FOR = "not_asked_for"
    NOT_TRUSTED = "not_trusted"
    OTHER_KIND = "other_kind"
    OTHER_PERSONA = "other_persona"
    AWAY = "away"


class Wait(StrEnum):
    """What a task may wait for."""

    RESULT = "result"
    STOP = "stop"
    NODE = "node"
    DEPENDENCY = "dependency"
    BACKOFF = "backoff"
    PEER = "peer"
    WORKER = "worker"
    SLOT = "slot"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a task waits for.

    Attributes:
        wait: what kind of thing.
        text: what exactly, for people.
        until: when it is over, in milliseconds since the epoch; None when nobody knows.
    """

    wait: Wait
    text: str
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker that was considered.

    Attributes:
        peer_id: whose it is.
        verdict: whether it can have the task.
        text: why, for people.
        busy: how many tasks of this node it has.
        slots: how many of them it takes at once.
        load: how many it has in all, as far as it told.
    """

    peer_id: PeerId
    verdict: Verdict
    text: str
    busy: int = 0
    slots: int = 0
    load: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt at a task, from its facts.

    Attributes:
        attempt: its number.
        holder: who had the task.
        begun_at: when, in milliseconds since the epoch.
        ended_at: until when; None while it goes on.
        code: why it brought no result; None when it did, or goes on.
        text: the same for people.
    """

    attempt: int
    holder: PeerId
    begun_at: int
    ended_at: int | None = None
    code: ErrorCode | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task is where it is.

    Attributes:
        task_id: which task.
        status: where it stands.
        blocked: whether it is pending because it waits for other tasks.
        outcome: how it has ended, for people; empty when it has not.
        waits_for: what it waits for; empty when it has ended.
        candidates: who is considered, the ones that can have it first; empty when it is blocked or has ended.
        trials: what has been tried, as far as the facts are kept.
    """

    task_id: TaskId
    status: TaskStatus
    blocked: bool
    outcome: str
    waits_for: tuple[Reason, ...]
    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What an explanation is worked out from, beside the task.

    Attributes:
        roster: who is there.
        backlog: what waits.
        away: known peers without a session, with why, in words.
        draining: whether this node is stopping.
        now: milliseconds since the epoch.
        awaited: what the task depends on and is not complete, with what is known of it.
    """

    roster: Roster
    backlog: Backlog
    away: Mapping[PeerId, str]
    draining: bool
    now: int
    awaited: Sequence[tuple[TaskId, TaskRecord | None]] = ()


def explain(record: TaskRecord, facts: Sequence[Fact], situation: Situation) -> Explanation:
    """Tell why a task is where it is.

    Args:
        record: the task.
        facts: what has happened to it, as far as that is kept.
        situation: what else there is.
    """
    blocked = bool(situation.awaited)
    considered = () if record.terminal or blocked else _candidates(record, situation)
    candidates = sorted(considered, key=lambda one: list(Verdict).index(one.verdict))
    return Explanation(
        task_id=record.id,
        status=record.status,
        blocked=blocked,
        outcome=_outcome(record),
        waits_for=tuple(_reasons(record, situation, candidates)),
        candidates=tuple(candidates),
        trials=tuple(trials(facts)),
    )


def _outcome(record: TaskRecord) -> str:
    if record.failure is not None:
        return f"{record.failure.code.value}: {record.failure.message}"
    return f"{record.holder} has done it" if record.terminal else ""


# --- the past --------------------------------------------------------------------------------------------------------


def trials(facts: Iterable[Fact]) -> Iterator[Trial]:
    """Yield the attempts that facts tell of, in order."""
    current: Trial | None = None
    for fact in facts:
        if isinstance(fact, Claimed):
            current = Trial(fact.attempt, fact.holder, fact.at)
        elif current is not None and isinstance(fact, Completed | Released | Failed | Cancelled):
            yield _ended(current, fact)
            current = None
    if current is not None:
        yield current


def _ended(trial: Trial, fact: Completed | Released | Failed | Cancelled) -> Trial:
    match fact:
        case Released():
            return replace(trial, ended_at=fact.at, code=fact.reason, text=fact.message)
        case Failed():
            return replace(trial, ended_at=fact.at, code=fact.failure.code, text=fact.failure.message)
        case Cancelled():
            return replace(trial, ended_at=fact.at, code=ErrorCode.CANCELLED, text="the requester cancelled the task")
        case Completed():
            return replace(trial, ended_at=fact.at)


# --- who can have it -------------------------------------------------------------------------------------------------


def _candidates(record: TaskRecord, situation: Situation) -> Iterator[Candidate]:
    place = situation.backlog.place(record)
    able = situation.roster.able(place)
    for worker in _workers(situation.roster, record.task.kind):
        verdict, text = _judge(worker, record, place, able, situation)
        yield Candidate(
            peer_id=worker.peer_id,
            verdict=verdict,
            text=text,
            busy=worker.busy,
            slots=worker.slots,
            load=max(worker.load, worker.busy),
        )
    for peer_id, why in situation.away.items():
        yield Candidate(peer_id=peer_id, verdict=Verdict.AWAY, text=f"there is no session{why and f': {why}'}")


def _workers(roster: Roster, kind: str) -> Iterator[Worker]:
    """Yield this node once, although it has a worker for each of its kinds, and every peer."""
    own = [worker for worker in roster.workers if worker.peer_id == roster.own_id]
    fit = [worker for worker in own if worker.offers(kind)]
    if own:
        all_kinds = frozenset().union(*(worker.kinds or () for worker in own))
        yield fit[0] if fit else Worker(roster.own_id, all_kinds, sum(worker.slots for worker in own))
    yield from (worker for worker in roster.workers if worker.peer_id != roster.own_id)


def _judge(
    worker: Worker, record: TaskRecord, place: Place, able: Sequence[Worker], situation: Situation
) -> tuple[Verdict, str]:
    if record.status is not TaskStatus.PENDING and worker.peer_id == record.holder:
        return Verdict.CHOSEN, "it has the task"
    if any(worker is one for one in able):
        return _judge_able(worker, place, situation.now)
    return _why_not(worker, record, place, situation.roster)


def _judge_able(worker: Worker, place: Place, now: int) -> tuple[Verdict, str]:
    if worker.peer_id in place.without:
        return Verdict.REFUSED, "it refused this task, and is asked again because nobody else is left"
    if worker.free <= 0:
        return Verdict.FULL, f"{worker.busy} of {worker.slots} slots are taken"
    if worker.busy_until > now:
        return Verdict.BUSY, "it has just said that it is busy, and is left alone for a while"
    return Verdict.FREE, f"{worker.free} of {worker.slots} slots are free"


def _why_not(worker: Worker, record: TaskRecord, place: Place, roster: Roster) -> tuple[Verdict, str]:
    kind, persona = record.task.kind, record.task.persona
    if place.target not in {None, worker.peer_id} and (not place.elsewhere or roster.knows(place.target)):
        return Verdict.NOT_ASKED_FOR, f"the task names {place.target}"
    if not worker.offers(kind):
        return Verdict.OTHER_KIND, f"it does not do {kind!r}, but {_several(worker.kinds)}"
    if not worker.acts_as(persona):
        return Verdict.OTHER_PERSONA, f"it does not act as {persona!r}, but as {_several(worker.personas)}"
    if worker.peer_id in place.without:
        return Verdict.REFUSED, "it refused this task"
    if not worker.slots:
        return Verdict.FULL, "it takes no tasks at the moment"
    return Verdict.NOT_TRUSTED, "a stranger: the operator named it neither as a peer nor as a worker"


def _several(names: frozenset[str] | None) -> str:
    return ", ".join(sorted(names or ())) or "nothing"


# --- what it waits for -----------------------------------------------------------------------------------------------


def _reasons(record: TaskRecord, situation: Situation, candidates: Sequence[Candidate]) -> Iterator[Reason]:
    if record.status in {TaskStatus.CLAIMED, TaskStatus.EXECUTING}:
        yield Reason(Wait.RESULT, f"attempt {record.attempt} runs at {record.holder}")
    elif record.status is TaskStatus.CANCELLING:
        yield Reason(Wait.STOP, f"{record.holder} was told to stop")
    elif record.status is TaskStatus.PENDING:
        found = [reason for look in HINDRANCES if (reason := look(record, situation, candidates)) is not None]
        yield from found or [Reason(Wait.TURN, "its turn: others go first, or it starts in a moment")]


def _stopping(_record: TaskRecord, situation: Situation, _candidates: Sequence[Candidate]) -> Reason | None:
    if not situation.draining:
        return None
    return Reason(Wait.NODE, "this node is stopping and starts nothing; it goes on when it is started again")


def _back_off(record: TaskRecord, situation: Situation, _candidates: Sequence[Candidate]) -> Reason | None:
    if record.not_before <= situation.now:
        return None
    return Reason(Wait.BACKOFF, "the back-off after its last attempt", record.not_before)


def _nobody(record: TaskRecord, situation: Situation, _candidates: Sequence[Candidate]) -> Reason | None:
    place = situation.backlog.place(record)
    if situation.awaited or situation.roster.able(place._replace(without=NOBODY)):
        return None  # who is there now says nothing of a task that is not ready
    task = record.task
    if place.target is not None and place.target != situation.roster.own_id:
        elsewhere = ", and nobody else can do it" if place.elsewhere else ""
        return Reason(Wait.PEER, f"a session with {place.target}, which it names{elsewhere}")
    wanted = f"kind {task.kind!r}" + (f" and acts as {task.persona!r}" if task.persona else "")
    return Reason(Wait.WORKER, f"a worker that does tasks of {wanted}, and that this node may give tasks")


def _full(record: TaskRecord, situation: Situation, candidates: Sequence[Candidate]) -> Reason | None:
    verdicts = {candidate.verdict for candidate in candidates}
    if Verdict.FREE in verdicts or not verdicts & {Verdict.FULL, Verdict.BUSY}:
        return None
    if not situation.roster.able(situation.backlog.place(record)):
        return None
    return Reason(Wait.SLOT, "a free slot: every worker that can have it is full, or has just said that it is busy")


def _dependencies(_record: TaskRecord, situation: Situation, _candidates: Sequence[Candidate]) -> Reason | None:
    if not situation.awaited:
        return None
    shown = [f"{task_id} ({_standing(record)})" for task_id, record in situation.awaited[:_MAX_NAMED]]
    more = len(situation.awaited) - len(shown)
    text = f"{', '.join(shown)}{f' and {more:,} more' if more else ''}, whose results it needs"
    return Reason(Wait.DEPENDENCY, text)


def _standing(record: TaskRecord | None) -> str:
    return "forgotten" if record is None else record.status.value


HINDRANCES: tuple[Callable[[TaskRecord, Situation, Sequence[Candidate]], Reason | None], ...] = (
    _stopping,
    _dependencies,
    _back_off,
    _nobody,
    _full,
)
"""What may keep a task that is pending from starting, each with whether it does; a new one is added here."""
