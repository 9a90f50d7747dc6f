"""Checks the promises of a node while a simulation runs: from what is saved, what is sent, and what is executed.

The judge believes no node. It keeps its own copy of what every disk holds, and advances it by the table of
`protocol.lifecycle`; it sees every frame before it leaves, and every execution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

import trio

from node.coordination.dead_letters import retry_of
from node.interfaces import Change, Execution, Output
from node.testing.memory_channel import MemoryChannel
from node.testing.simulation.trace import Trace
from node.work_service import Claim
from protocol import (
    Accept,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Frame,
    IllegalTransition,
    PeerId,
    Progress,
    Result,
    StaleAttempt,
    Submit,
    Submitted,
    TaskId,
    TaskRecord,
    TaskStatus,
    advance,
    begin,
)

# A defect that breaks a promise breaks it often; the first times tell all.
MAX_VIOLATIONS = 20
# As `TaskRecord.__eq__`, at a fifth of its cost: every change of every node is compared.
_everything_of = attrgetter(*TaskRecord.__slots__)


class Violation(NamedTuple):
    """A promise that was broken.

    Attributes:
        promise: which.
        what: how, in words.
        at: when, in seconds since the beginning.
        task_id: with which task, if with one.
    """

    promise: str
    what: str
    at: float
    task_id: TaskId | None = None

    def __str__(self) -> str:
        return f"{self.promise}: {self.what} (at {self.at:.3f} s)"


class Judge:
    """Sees everything, and notes what is wrong.

    Args:
        trace: told of everything.
        in_flight: how many tasks of one peer a node may have open.

    Attributes:
        violations: what is wrong, in the order in which it was found.
        executions: how many executions have begun.
        counts: how often something else was done, by what it is.
        agents: who has claimed something at a work door.
    """

    def __init__(self, trace: Trace, in_flight: int) -> None:
        self.violations: list[Violation] = []
        self.executions = 0
        self.counts: Counter[str] = Counter()
        self.trace = trace
        self._saved: dict[PeerId, dict[TaskId, TaskRecord]] = {}
        self._under_way: dict[tuple[PeerId, TaskId], int] = {}
        self._busy: Counter[tuple[PeerId, str]] = Counter()
        self._outputs: dict[TaskId, set[str]] = {}
        self.agents: set[str] = set()
        self._told_claims: dict[tuple[PeerId, TaskId, int], str] = {}
        self._delivered: dict[TaskId, dict[str, tuple[str, int]]] = {}
        self._repeated: dict[tuple[PeerId, TaskId], list[TaskId]] = {}
        self._in_flight = in_flight
        self._open: Counter[tuple[PeerId, PeerId]] = Counter()
        self._news = trio.Event()

    def find(self, promise: str, what: str, task_id: TaskId | None = None) -> None:
        """Note that a promise is broken."""
        if len(self.violations) < MAX_VIOLATIONS:
            name = f"{self.trace.name(task_id)} ({task_id}) " if task_id is not None else ""
            self.violations.append(Violation(promise, f"{name}{what}", self.trace.now(), task_id))

    # --- what disks hold ---------------------------------------------------------------------------------------------

    @property
    def open_records(self) -> int:
        """How many records of tasks that have not ended there are, on all disks."""
        return self._open.total()

    def saved(self, peer_id: PeerId, task_id: TaskId) -> TaskRecord | None:
        """Return what a disk holds of a task."""
        return self._saved.get(peer_id, {}).get(task_id)

    def records_of(self, peer_id: PeerId) -> Mapping[TaskId, TaskRecord]:
        """Return all that a disk holds."""
        return self._saved.setdefault(peer_id, {})

    async def news(self) -> None:
        """Return when something has been saved."""
        await self._news.wait()

    def saves(self, peer_id: PeerId, change: Change) -> None:
        """Take note of a change that cannot be lost any more."""
        record, fact = change
        records = self._saved.setdefault(peer_id, {})
        before = records.get(record.id)
        self.trace.note(peer_id, f"saves {type(fact).__name__}", record.id, f"attempt {record.attempt}")
        if isinstance(fact, Submitted):
            if before is not None:
                self.find("recorded once", f"was born twice at {peer_id}", record.id)
            self._expect(peer_id, begin(fact), record)
            if (repeated := retry_of(record.task)) is not None:
                self._repeated.setdefault((peer_id, repeated), []).append(record.id)
        elif before is None:
            self.find("histories are legal", f"has {type(fact).__name__} before its birth at {peer_id}", record.id)
        elif before.terminal:
            what = f"was {before.status} at {peer_id} when {type(fact).__name__} was recorded"
            self.find("recorded once", what, record.id)
        else:
            try:
                self._expect(peer_id, advance(before, fact), record)
            except (IllegalTransition, StaleAttempt) as error:
                self.find("histories are legal", f"at {peer_id}: {error}", record.id)
        self._check_step(peer_id, record, fact)
        self._count_open(peer_id, before, record)
        records[record.id] = record
        news, self._news = self._news, trio.Event()
        news.set()

    def _check_step(self, peer_id: PeerId, record: TaskRecord, fact: Fact) -> None:
        """Find what must not have happened, although the table of the lifecycle allows it."""
        if isinstance(fact, Claimed) and record.deadline is not None and fact.at >= record.deadline:
            self.find("deadlines travel", f"was claimed at {peer_id} after its deadline", record.id)
        if isinstance(fact, Completed) and record.holder in self.agents:
            self._check_delivery(peer_id, record)
        if isinstance(fact, Claimed):
            self._check_turn(peer_id, record, "was claimed")
        if record.failures >= record.task.retry.attempts:
            allowed = record.task.retry.attempts
            what = f"has failed {record.failures} times at {peer_id} and goes on, with {allowed} attempts"
            self.find("retries are bounded", what, record.id)

    def _check_turn(self, peer_id: PeerId, record: TaskRecord, what: str) -> None:
        """Find what begins before that on which it depends is complete, or after its parent was cancelled."""
        for dependency in record.task.depends_on:
            if not self._is_satisfied(peer_id, dependency):
                self.find("dependencies first", f"{what} at {peer_id} before {dependency} was complete", record.id)
        parent = None if record.task.parent_id is None else self.saved(peer_id, record.task.parent_id)
        if parent is not None and parent.status in {TaskStatus.CANCELLING, TaskStatus.CANCELLED}:
            self.find("cancel means stopped", f"{what} at {peer_id} after its parent was cancelled", record.id)

    def _is_satisfied(self, peer_id: PeerId, task_id: TaskId) -> bool:
        """Whether a task, or one that repeats it, is complete."""
        record = self.saved(peer_id, task_id)
        if record is not None and record.status is TaskStatus.COMPLETE:
            return True
        return any(self._is_satisfied(peer_id, again) for again in self._repeated.get((peer_id, task_id), ()))

    def _count_open(self, peer_id: PeerId, before: TaskRecord | None, record: TaskRecord) -> None:
        more = (not record.terminal) - (before is not None and not before.terminal)
        if more:
            self._open[peer_id, record.requester] += more
        if more > 0 and record.requester != peer_id and self._open[peer_id, record.requester] > self._in_flight:
            what = f"is one too many for the {self._in_flight} that {record.requester} may have open at {peer_id}"
            self.find("bounded queues", what, record.id)

    def _expect(self, peer_id: PeerId, expected: TaskRecord, record: TaskRecord) -> None:
        if _everything_of(expected) != _everything_of(record):
            what = f"at {peer_id}: {record!r} does not follow from its facts, which lead to {expected!r}"
            self.find("histories are legal", what, record.id)

    # --- what is told ------------------------------------------------------------------------------------------------

    def sends(self, channel: MemoryChannel, frame: Frame, unsaved: Iterable[Change]) -> None:
        """Look at a frame before it leaves; `unsaved` is what waits for the disk of its sender."""
        if not isinstance(frame, Accept | Progress | Result | Submit):
            return
        record = self.saved(channel.own_id, frame.task_id)
        if not isinstance(frame, Submit):
            self._answers(channel, frame, record)
        elif record is not None:
            self._asks(channel, record)
        elif all(change.record.id != frame.task_id for change in unsaved):
            what = f"was asked of {channel.peer_id} by {channel.own_id}, which has no such task"
            self.find("nothing invented", what, frame.task_id)

    def _answers(self, channel: MemoryChannel, frame: Accept | Progress | Result, record: TaskRecord | None) -> None:
        own_id, peer_id, kind = channel.own_id, channel.peer_id, type(frame).__name__
        if record is None:
            self.find("saved before told", f"was not saved at {own_id} when it sent {kind} to {peer_id}", frame.task_id)
        elif record.seq < frame.seq:
            what = f"{own_id} told {peer_id} of fact {frame.seq} ({kind}) when {record.seq} were saved"
            self.find("saved before told", what, frame.task_id)
        elif isinstance(frame, Result) and not _tells(frame, record):
            self.find("saved before told", f"{own_id} told {peer_id} another end than it had saved", frame.task_id)

    def _asks(self, channel: MemoryChannel, record: TaskRecord) -> None:
        """Look at a Submit; a task may be passed on while it is being saved, as it may be begun."""
        own_id, peer_id = channel.own_id, channel.peer_id
        if record.terminal or record.status is TaskStatus.CANCELLING:
            self.find("cancel means stopped", f"{own_id} asked {peer_id} for it when it was {record.status}", record.id)
        elif record.status is not TaskStatus.PENDING and record.holder != peer_id:
            self.find("one holder an attempt", f"{own_id} asked {peer_id}, but {record.holder} holds it", record.id)
        if record.task.depends_on:
            self._check_turn(own_id, record, f"was asked of {peer_id}")

    # --- what agents are told, and tell ------------------------------------------------------------------------------

    def claims(self, peer_id: PeerId, agent_id: str, claim: Claim) -> None:
        """Look at a claim that an agent is answered with."""
        task_id, attempt = claim.record.id, claim.attempt
        self.agents.add(agent_id)
        other = self._told_claims.setdefault((peer_id, task_id, attempt), agent_id)
        if other != agent_id:
            what = f"attempt {attempt} at {peer_id} was given to {agent_id} and to {other}"
            self.find("one holder an attempt", what, task_id)
        record = self.saved(peer_id, task_id)
        if record is None or record.attempt < attempt:
            self.find("saved before told", f"{agent_id} was told of a claim that was not saved at {peer_id}", task_id)

    def delivers(self, agent_id: str, task_id: TaskId, attempt: int, text: str) -> None:
        """Take note of a result before the node has it; no two have the same text."""
        self.trace.note(agent_id, "delivers", task_id, f"attempt {attempt}")
        self._delivered.setdefault(task_id, {})[text] = agent_id, attempt
        self._outputs.setdefault(task_id, set()).add(text)

    def confirms(self, peer_id: PeerId, agent_id: str, task_id: TaskId, text: str) -> None:
        """Look at the answer to a result that an agent has delivered."""
        record = self.saved(peer_id, task_id)
        if record is None or record.result is None or record.result.result != text:
            what = f"{agent_id} was told at {peer_id} that its result is saved, and it is not"
            self.find("saved before told", what, task_id)

    def _check_delivery(self, peer_id: PeerId, record: TaskRecord) -> None:
        text = "" if record.result is None else record.result.result
        by = self._delivered.get(record.id, {}).get(text)
        if by != (record.holder, record.attempt):
            what = f"attempt {record.attempt} of {record.holder} has at {peer_id} the result that came from {by}"
            self.find("stale results are refused", what, record.id)

    # --- what is done ------------------------------------------------------------------------------------------------

    def begins(self, peer_id: PeerId, execution: Execution, slots: int) -> int:
        """Take note of an execution that begins, and return its number."""
        task_id, kind = execution.task.id, execution.task.kind
        self.executions += 1
        self.trace.note(peer_id, "executes", task_id, f"attempt {execution.attempt}")
        if (peer_id, task_id) in self._under_way:
            self.find("one holder an attempt", f"is executed twice at the same time at {peer_id}", task_id)
        record = self.saved(peer_id, task_id)
        if record is not None:
            self._executes(peer_id, execution, record)
        self._under_way[peer_id, task_id] = self.executions
        self._busy[peer_id, kind] += 1
        if self._busy[peer_id, kind] > slots:
            self.find("bounded queues", f"is one too many for the {slots} slots of {kind} at {peer_id}", task_id)
        return self.executions

    def _executes(self, peer_id: PeerId, execution: Execution, record: TaskRecord) -> None:
        task_id = record.id
        if record.terminal:
            self.find("recorded once", f"is executed at {peer_id}, where it is {record.status}", task_id)
        elif record.status is TaskStatus.CANCELLING:
            self.find("cancel means stopped", f"is executed at {peer_id} after its cancel was saved", task_id)
        elif execution.attempt < record.attempt:
            what = f"attempt {execution.attempt} is executed at {peer_id} after attempt {record.attempt} was saved"
            self.find("one holder an attempt", what, task_id)
        if record.task.depends_on:
            self._check_turn(peer_id, record, "is executed")

    def ends(self, peer_id: PeerId, execution: Execution, number: int, output: Output | None) -> None:
        """Take note of the end of an execution; those of a process that has died have ended with it."""
        task_id = execution.task.id
        if self._under_way.get((peer_id, task_id)) != number:
            return
        del self._under_way[peer_id, task_id]
        self._busy[peer_id, execution.task.kind] -= 1
        self.trace.note(peer_id, "has no result of" if output is None else "has done", task_id)
        if output is not None:
            self._outputs.setdefault(task_id, set()).add(output.text)

    def produced(self, task_id: TaskId, text: str) -> bool:
        """Whether an execution of a task returned a text."""
        return text in self._outputs.get(task_id, ())

    def died(self, peer_id: PeerId) -> None:
        """Take note that a process is gone, with all that it was doing."""
        for key in [key for key in self._under_way if key[0] == peer_id]:
            del self._under_way[key]
        for busy in [key for key in self._busy if key[0] == peer_id]:
            del self._busy[busy]

    @property
    def under_way(self) -> int:
        """How many executions have not ended."""
        return len(self._under_way)


def _tells(frame: Result, record: TaskRecord) -> bool:
    """Whether a peer is told the end that is recorded; one that does not take a result so large is told that."""
    too_large = frame.failure is not None and frame.failure.code is ErrorCode.TOO_LARGE
    return too_large or (frame.result, frame.failure) == (record.result, record.failure)
