"""What keeps a task from starting, whose turn it is to do something about it, and what.

`explain` tells it to whoever asks, the command line to whoever waits, and the failure of a task whose deadline passed
before it began tells it at the end: in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from node.coordination.plan import Backlog
from node.coordination.roster import NOBODY, Place, Roster, Worker
from protocol import ErrorCode, Failure, PeerId, TaskId, TaskRecord, TaskStatus

# More names than a screen has lines help nobody.
MAX_NAMED = 10


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
        remedy: who can do what about it; empty when time does.
    """

    wait: Wait
    text: str
    until: int | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What an explanation is worked out from, beside the task.

    Attributes:
        roster: who is there, agents that do not ask for work at the moment included.
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


def reasons(record: TaskRecord, situation: Situation) -> Iterator[Reason]:
    """Yield what a task waits for; nothing when it has ended."""
    if record.status in {TaskStatus.CLAIMED, TaskStatus.EXECUTING}:
        yield Reason(Wait.RESULT, f"attempt {record.attempt} runs at {record.holder}")
    elif record.status is TaskStatus.CANCELLING:
        yield Reason(Wait.STOP, f"{record.holder} was told to stop")
    elif record.status is TaskStatus.PENDING:
        found = [reason for look in HINDRANCES if (reason := look(record, situation)) is not None]
        yield from found or [Reason(Wait.TURN, "its turn: what goes first is served first")]


def never_started(record: TaskRecord, situation: Situation) -> Failure:
    """Return the failure of a task whose deadline has passed while it waited: it says for what, and what to do."""
    found = list(reasons(record, situation))
    waited = " and for ".join(reason.text for reason in found)
    remedies = ". ".join(reason.remedy for reason in found if reason.remedy)
    message = f"task {record.id} could not be started before its deadline: it waited for {waited}"
    failure = Failure.of(ErrorCode.DEADLINE_EXCEEDED, f"{message}. {remedies or 'Give it more time'}")
    return replace(failure, maybe_ran=record.attempt > 0)


# --- the hindrances --------------------------------------------------------------------------------------------------


def _stopping(_record: TaskRecord, situation: Situation) -> Reason | None:
    if not situation.draining:
        return None
    return Reason(Wait.NODE, "this node, which is stopping and starts nothing; it goes on when it is started again")


def _dependencies(_record: TaskRecord, situation: Situation) -> Reason | None:
    if not situation.awaited:
        return None
    shown = [f"{task_id} ({_standing(record)})" for task_id, record in situation.awaited[:MAX_NAMED]]
    more = len(situation.awaited) - len(shown)
    text = f"{', '.join(shown)}{f' and {more:,} more' if more else ''}, whose results it needs"
    return Reason(Wait.DEPENDENCY, text)


def _standing(record: TaskRecord | None) -> str:
    return "forgotten" if record is None else record.status.value


def _back_off(record: TaskRecord, situation: Situation) -> Reason | None:
    if record.not_before <= situation.now:
        return None
    return Reason(Wait.BACKOFF, "the back-off after its last attempt", record.not_before)


def _nobody(record: TaskRecord, situation: Situation) -> Reason | None:
    place = situation.backlog.place(record)
    if situation.awaited or situation.roster.able(place._replace(without=NOBODY)):
        return None  # who is there now says nothing of a task that is not ready
    if place.target is not None and place.target != situation.roster.own_id:
        return _away(place, place.target)
    why, remedy = _lack(record, situation.roster.at(place.target))
    task = record.task
    wanted = f"kind {task.kind!r}" + (f" and acts as {task.persona!r}" if task.persona else "")
    text = f"a worker that does tasks of {wanted}, and that this node may give tasks; {why}"
    return Reason(Wait.WORKER, text, remedy=remedy)


def _away(place: Place, target: PeerId) -> Reason:
    elsewhere = ", and nobody else can do it" if place.elsewhere else ""
    remedy = f"See why it is away with `peertask doctor {target}`, or name another peer, or none"
    return Reason(Wait.PEER, f"a session with {target}, which it names{elsewhere}", remedy=remedy)


def _lack(record: TaskRecord, workers: Iterable[Worker]) -> tuple[str, str]:
    """Say what those who are there lack, and who can do what about it."""
    kind, persona = record.task.kind, record.task.persona
    there = list(workers)
    fit = [worker for worker in there if worker.offers(kind)]
    if not fit:
        kinds = {each for worker in there for each in worker.kinds or ()}
        known = f"known kinds are {several(kinds)}" if kinds else "no kinds are known"
        name = "Name one of the known kinds" if kinds else "Name another kind"
        return f"nobody does that kind, {known}", f"{name}, or let somebody run a worker that does {kind!r}"
    acting = [worker for worker in fit if worker.acts_as(persona)]
    if not acting:
        personas = {each for worker in fit for each in worker.personas or ()}
        run = f"let somebody run a worker with `--persona {persona}`"
        remedy = f"Name one of these, or {run}" if personas else run[:1].upper() + run[1:]
        others = f"only as {several(personas)}" if personas else "or as any other persona"
        return f"nobody acts as {persona!r}, {others}", remedy
    if any(worker.trusted for worker in acting):
        return "whoever could have it takes no tasks at the moment", ""
    remedy = "Let the operator of this node name one of them: `peertask node --worker PEER`"
    return "whoever could have it is a stranger", remedy


def several(names: Collection[str]) -> str:
    """Return names for people, as many of them as help."""
    known = sorted(names)
    more = f" and {len(known) - MAX_NAMED:,} more" if len(known) > MAX_NAMED else ""
    return ", ".join(known[:MAX_NAMED]) + more


def _full(record: TaskRecord, situation: Situation) -> Reason | None:
    place = situation.backlog.place(record)
    willing = [worker for worker in situation.roster.able(place) if worker.peer_id not in place.without]
    if situation.awaited or not willing or any(_has_room(worker, situation.now) for worker in willing):
        return None
    text = "a free slot: every worker that can have it is full, or has just said that it is busy"
    return Reason(Wait.SLOT, text, remedy="Give it more time, or run more workers")


def _has_room(worker: Worker, now: int) -> bool:
    return worker.free > 0 and worker.busy_until <= now


HINDRANCES: tuple[Callable[[TaskRecord, Situation], Reason | None], ...] = (
    _stopping,
    _dependencies,
    _back_off,
    _nobody,
    _full,
)
"""What may keep a task that is pending from starting, each with whether it does; a new one is added here."""
