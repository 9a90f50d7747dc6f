"""Why a task is where it is: who was asked, who could do it, and what it waits for now.

Nothing is recorded for this. The past is read from the facts of the task, and the present is worked out from the state
that the plan decides by, so an explanation cannot say anything else than what the node does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from node.coordination.hindrances import Reason, Situation, reasons, several
from node.coordination.roster import Place, Roster, Worker
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
        waits_for=tuple(reasons(record, situation)),
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
        return Verdict.OTHER_KIND, f"it does not do {kind!r}, but {several(worker.kinds or ()) or 'nothing'}"
    if not worker.acts_as(persona):
        return (
            Verdict.OTHER_PERSONA,
            f"it does not act as {persona!r}, but as {several(worker.personas or ()) or 'nobody'}",
        )
    if worker.peer_id in place.without:
        return Verdict.REFUSED, "it refused this task"
    if not worker.slots:
        return Verdict.FULL, "it does not ask for work now" if worker.agent else "it takes no tasks at the moment"
    return Verdict.NOT_TRUSTED, "a stranger: the operator named it neither as a peer nor as a worker"
