"""What clients get: every field is always there, so that a reader need not ask whether it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, field_serializer

from node.coordination.dead_letters import retry_of
from node.coordination.explain import Explanation, Verdict
from node.coordination.hindrances import Reason, Wait
from node.gateways.http.node_control import Health, NodeInfo
from node.interfaces import Change, PeerInfo, PeerSource, RelayInfo
from protocol import (
    ErrorCode,
    Failure,
    JsonObject,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Progressed,
    Receipt,
    Released,
    RetryPolicy,
    TaskId,
    TaskRecord,
    TaskResult,
    TaskStatus,
)

# What fits on a line of a terminal, a few times over.
PREVIEW_CHARS: Final = 200


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, defer_build=True)


class TaskSummary(_Response):
    """A task without what may be large."""

    id: TaskId
    reference: str
    """The readable name `task-{project}-{uuid}`."""
    status: TaskStatus
    kind: str
    prompt: str
    """In a summary cut after 200 characters, with an ellipsis."""
    project: str
    session_id: str | None
    persona: str | None
    parent_id: TaskId | None
    """The task that it is a part of."""
    blocked: bool
    """Whether it is pending because it waits for other tasks."""
    priority: int
    sender: PeerId
    requester: PeerId
    """The authenticated peer that asked this node."""
    target: PeerId | None
    """Who shall do it; null when the node may choose."""
    holder: PeerId | None
    """Who does it, or did it last."""
    attempt: int
    """How often it was claimed."""
    failures: int
    """Attempts that failed and were retried."""
    lost_leases: int
    """Attempts that ended because the worker was lost."""
    retry_of: TaskId | None
    """The task that failed or was cancelled, and that this one repeats."""
    progress: float
    """The fraction done, 0 to 1."""
    progress_message: str
    failure: Failure | None
    """Why it failed or was cancelled."""
    deadline: int | None
    """When the requester stops caring, in milliseconds since the epoch."""
    created_at: int
    """In milliseconds since the epoch, as `updated_at`."""
    created_at_iso: str
    updated_at: int
    updated_at_iso: str
    seq: int
    """The number of its last fact."""

    @classmethod
    def of(cls, record: TaskRecord, *, blocked: bool = False) -> Self:
        """Describe a record."""
        return cls.model_validate({**_summary(record), "blocked": blocked})


class AwaitedView(_Response):
    """A task that another one waits for."""

    id: TaskId
    title: str | None
    """What people call it."""
    status: TaskStatus | None
    """Null when it is not kept any more."""

    @classmethod
    def of(cls, task_id: TaskId, record: TaskRecord | None) -> Self:
        """Describe what a task waits for."""
        title = None if record is None else record.task.metadata.get("title")
        status = None if record is None else record.status
        return cls(id=task_id, title=title if isinstance(title, str) else None, status=status)


class ChildrenView(_Response):
    """How far the children of a task are."""

    total: int
    """As many as are kept."""
    complete: int
    failed: int
    cancelled: int
    progress: float
    """The fraction done of all of them together, 0 to 1."""

    @classmethod
    def of(cls, records: Sequence[TaskRecord]) -> Self:
        """Describe children."""
        ended = Counter(record.status for record in records)
        done = sum(1.0 if record.terminal else record.progress for record in records)
        return cls(
            total=len(records),
            complete=ended[TaskStatus.COMPLETE],
            failed=ended[TaskStatus.FAILED],
            cancelled=ended[TaskStatus.CANCELLED],
            progress=done / len(records) if records else 0.0,
        )


class TaskView(TaskSummary):
    """A task and all that has come of it so far."""

    prompt: str
    params: JsonObject
    depends_on: tuple[TaskId, ...]
    on_failed_dependency: Literal["fail", "wait"]
    """What becomes of it when a task that it depends on fails."""
    waits_for: tuple[AwaitedView, ...]
    """What it depends on and is not complete."""
    children: ChildrenView
    """The tasks that name it as their parent."""
    timeout_ms: int | None
    """How long one execution may take."""
    retry: RetryPolicy
    metadata: JsonObject
    timestamp: int
    """When the task was made, in milliseconds since the epoch."""
    result: TaskResult | None
    """Set when the status is complete."""

    @classmethod
    def of(
        cls,
        record: TaskRecord,
        *,
        blocked: bool = False,
        waits_for: Sequence[tuple[TaskId, TaskRecord | None]] = (),
        children: Sequence[TaskRecord] = (),
    ) -> Self:
        """Describe a record, with what it waits for and its children."""
        task = record.task
        return cls.model_validate(
            {
                **_summary(record),
                "blocked": blocked,
                "prompt": task.prompt,
                "params": task.params,
                "depends_on": task.depends_on,
                "on_failed_dependency": task.on_failed_dependency,
                "waits_for": [AwaitedView.of(*awaited) for awaited in waits_for],
                "children": ChildrenView.of(children),
                "timeout_ms": task.timeout_ms,
                "retry": task.retry,
                "metadata": task.metadata,
                "timestamp": task.timestamp,
                "result": record.result,
            }
        )

    @field_serializer("result")
    def _exactly(self, result: TaskResult | None) -> Any:
        return result and result.to_dict()


class TaskList(_Response):
    """Tasks, the newest first."""

    tasks: tuple[TaskSummary, ...]


class ErrorBody(_Response):
    """What went wrong."""

    code: ErrorCode
    """What kind of error it is, for programs; docs/reference/errors.md has them all."""
    message: str
    """What failed, where and why, for people."""
    remedy: str
    """What to do next; empty when nothing can be done."""
    retry_after_ms: int | None
    """How long to wait before asking again."""

    @classmethod
    def of(cls, error: PeertaskError) -> Self:
        """Describe an error."""
        return cls.model_validate(error)

    def to_error(self) -> PeertaskError:
        """Return the error that was described."""
        return PeertaskError(self.message, code=self.code, remedy=self.remedy, retry_after_ms=self.retry_after_ms)


class ErrorView(_Response):
    """The body of every answer with a status of 400 and above."""

    error: ErrorBody


class BatchItem(_Response):
    """What became of one task of a batch: one of the two is set."""

    task: TaskSummary | None = None
    error: ErrorBody | None = None


class BatchView(_Response):
    """What became of the tasks of a batch, in their order."""

    results: tuple[BatchItem, ...]


class GraphView(_Response):
    """A graph that was taken in."""

    task_ids: tuple[TaskId, ...]
    """The ids of its tasks, in their order."""


class EventView(_Response):
    """One fact of a task: the data of an event named `fact`."""

    task_id: TaskId
    seq: int
    """Facts of a task are numbered from 1."""
    fact: str
    """Submitted, Claimed, Started, Progressed, Completed, Failed, Released, CancelRequested or Cancelled."""
    at: int
    """In milliseconds since the epoch."""
    at_iso: str
    status: TaskStatus
    attempt: int
    holder: PeerId | None
    progress: float
    message: str
    """What was reported with progress, or why the attempt or the task ended; else empty."""
    code: ErrorCode | None
    """Why the attempt or the task ended, for programs."""

    @classmethod
    def of(cls, change: Change) -> Self:
        """Describe a change."""
        record, fact = change
        code, message = _reason(change)
        return cls(
            task_id=record.id,
            seq=record.seq,
            fact=type(fact).__name__,
            at=fact.at,
            at_iso=iso_time(fact.at),
            status=record.status,
            attempt=record.attempt,
            holder=record.holder,
            progress=record.progress,
            message=message,
            code=code,
        )


class ReceiptView(_Response):
    """An executor's signed word that it completed a task; docs/reference/receipts.md says what is signed."""

    executor: PeerId
    """The peer that signed it, and whose id holds the key."""
    task_id: TaskId
    task_hash: str
    """SHA-256 of the task, in hexadecimal digits."""
    result_hash: str
    """SHA-256 of the result, in hexadecimal digits."""
    attempt: int
    """Which attempt it was at the executor."""
    started_at: int
    """When that began, in milliseconds since the epoch, on the clock of the executor."""
    completed_at: int
    """When it was complete."""
    signature: str
    """Ed25519, in hexadecimal digits."""

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """Show a receipt."""
        return cls.model_validate(receipt)


class LaggedView(_Response):
    """Stands for facts that are missing in a stream: the data of an event named `lagged`."""

    missed: int | None
    """How many; null when nobody knows."""


class ReasonView(_Response):
    """One thing that a task waits for."""

    wait: Wait
    """What kind of thing, for programs."""
    text: str
    """What exactly, for people."""
    until: int | None
    """When it is over, in milliseconds since the epoch; null when nobody knows."""
    remedy: str
    """Who can do what about it, for people; empty when time does."""

    def reason(self) -> Reason:
        """Return the reason that this describes."""
        return Reason(self.wait, self.text, self.until, self.remedy)


class CandidateView(_Response):
    """A worker that was considered for a task."""

    peer_id: PeerId
    verdict: Verdict
    """Whether it can have the task, for programs."""
    text: str
    """Why, for people."""
    busy: int
    """How many tasks of the node it has."""
    slots: int
    """How many of them it takes at once."""
    load: int
    """How many tasks it has in all, as far as it told."""


class TrialView(_Response):
    """An attempt at a task."""

    attempt: int
    """Its number, from 1."""
    holder: PeerId
    """Who had the task."""
    begun_at: int
    """In milliseconds since the epoch, as `ended_at`."""
    ended_at: int | None
    """Null while it goes on."""
    code: ErrorCode | None
    """Why it brought no result; null when it did, or goes on."""
    text: str
    """The same, for people."""


class ExplanationView(_Response):
    """Why a task is where it is, at the moment of the request."""

    task_id: TaskId
    status: TaskStatus
    blocked: bool
    """Whether it is pending because it waits for other tasks."""
    outcome: str
    """How it has ended, for people; empty when it has not."""
    waits_for: tuple[ReasonView, ...]
    """What it waits for; empty when it has ended."""
    candidates: tuple[CandidateView, ...]
    """Who is considered, the ones that can have it first; empty when it is blocked or has ended."""
    trials: tuple[TrialView, ...]
    """What has been tried, as far as the facts are kept."""

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        """Describe an explanation."""
        return cls.model_validate(explanation)


class PeerView(_Response):
    """What the node knows about another."""

    peer_id: PeerId
    connected: bool
    addresses: tuple[str, ...]
    advert: PeerAdvert | None
    """What it last said that it offers; null when it has said nothing."""
    latency_ms: float | None
    """Round trip of the last heartbeat."""
    last_error: str
    """Why the last dial or session failed; empty when none did."""
    agent: str
    """Its program and version."""
    source: PeerSource
    """How the node came to know it: the settings name it (`static`, `bootstrap`), somebody asked for it (`asked`), it
    dialled in (`inbound`), or it was told of: by a `peer`, at a `rendezvous` point, or on the LAN (`mdns`)."""
    via: tuple[PeerId, ...]
    """The peers that tell of it."""
    hearsay: bool
    """Whether all of this is what others say: neither the peer itself nor the operator has said anything."""
    clock_offset_ms: int | None
    """How far its clock was ahead of the node's when the session began."""
    relay: PeerId | None = None
    """The peer that passes the session on; null when there is none, or it goes straight to the peer."""

    @classmethod
    def of(cls, info: PeerInfo) -> Self:
        """Describe a peer."""
        return cls.model_validate(info)


class PeerList(_Response):
    """Known peers, the connected ones first."""

    peers: tuple[PeerView, ...]

    @classmethod
    def of(cls, infos: Sequence[PeerInfo]) -> Self:
        """Describe peers."""
        return cls(peers=tuple(map(PeerView.of, infos)))


class RelayView(_Response):
    """A relay that the node is to be reached through."""

    peer_id: PeerId
    reserved: bool
    """Whether others can reach the node through it."""
    last_error: str
    """Why they cannot; empty when they can, or it was not tried yet."""

    @classmethod
    def of(cls, info: RelayInfo) -> Self:
        """Describe a relay."""
        return cls.model_validate(info)


class NodeView(_Response):
    """The node itself."""

    peer_id: PeerId
    addresses: tuple[str, ...]
    """Where it can be dialled, with `/p2p/ID`."""
    agent: str
    """Its program and version."""
    advert: PeerAdvert
    """What it can do, and how busy it is."""
    started_at: int
    """In milliseconds since the epoch."""
    started_at_iso: str
    relays: tuple[RelayView, ...] = ()
    """Those that it is to be reached through."""

    @classmethod
    def of(cls, info: NodeInfo) -> Self:
        """Describe the node."""
        return cls(
            peer_id=info.peer_id,
            addresses=info.addresses,
            agent=info.agent,
            advert=info.advert,
            started_at=info.started_at,
            started_at_iso=iso_time(info.started_at),
            relays=tuple(map(RelayView.of, info.relays)),
        )


class HealthView(_Response):
    """Whether the node does its work."""

    status: Literal["ok", "draining", "failing"]
    problems: tuple[str, ...]
    """What is wrong, a sentence each."""

    @classmethod
    def of(cls, health: Health) -> Self:
        """Describe the health of the node."""
        return cls.model_validate(health)


def iso_time(milliseconds: int) -> str:
    """Return a time since the epoch as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _summary(record: TaskRecord) -> dict[str, Any]:
    task = record.task
    return {
        "id": task.id,
        "reference": task.reference,
        "status": record.status,
        "kind": task.kind,
        "prompt": _preview(task.prompt),
        "project": task.project,
        "session_id": task.session_id,
        "persona": task.persona,
        "parent_id": task.parent_id,
        "priority": task.priority,
        "sender": task.sender,
        "requester": record.requester,
        "target": record.target,
        "holder": record.holder,
        "attempt": record.attempt,
        "failures": record.failures,
        "lost_leases": record.lost_leases,
        "retry_of": retry_of(task),
        "progress": record.progress,
        "progress_message": record.progress_message,
        "failure": record.failure,
        "deadline": record.deadline,
        "created_at": record.created_at,
        "created_at_iso": iso_time(record.created_at),
        "updated_at": record.updated_at,
        "updated_at_iso": iso_time(record.updated_at),
        "seq": record.seq,
    }


def _preview(prompt: str) -> str:
    return prompt if len(prompt) <= PREVIEW_CHARS else prompt[:PREVIEW_CHARS] + "…"


def _reason(change: Change) -> tuple[ErrorCode | None, str]:
    record, fact = change
    if isinstance(fact, Released):
        return fact.reason, fact.message
    if isinstance(fact, Progressed):
        return None, fact.message
    return (record.failure.code, record.failure.message) if record.failure else (None, "")
