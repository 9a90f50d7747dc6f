"""What a node knows about a task. Only `protocol.lifecycle` makes the next record of a task from the last."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from protocol.receipt import Receipt
from protocol.result import Failure, TaskResult
from protocol.task import PeerId, Task, TaskId


class TaskStatus(StrEnum):
    """Where a task stands.

    Blocked, ready and overdue are not statuses: the plan computes them, so they cannot go stale.
    """

    PENDING = "pending"
    CLAIMED = "claimed"
    EXECUTING = "executing"
    CANCELLING = "cancelling"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing more can happen to the task."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskStatus.COMPLETE, TaskStatus.FAILED, TaskStatus.CANCELLED})


_FIELDS = (
    "attempt",
    "created_at",
    "deadline",
    "failure",
    "failures",
    "holder",
    "lease_until",
    "lost_leases",
    "not_before",
    "progress",
    "progress_message",
    "receipt",
    "requester",
    "result",
    "seq",
    "status",
    "target",
    "task",
    "updated_at",
)


class TaskRecord:
    """A task and all that has come of it so far, at one moment. Never changed once it is published.

    A plain slotted class and not a model: a node keeps up to a million of them and makes several a task, and everything
    in it was validated at the edge.

    Attributes:
        id: the id of the task.
        terminal: whether nothing more can happen to it.
        task: what was asked.
        requester: the authenticated peer that asked; this node's own id for its own tasks.
        target: the peer that was asked to do it; None when the node may choose.
        deadline: when the requester stops caring, in milliseconds since the epoch; None for never.
        status: where the task stands.
        attempt: the number of claims so far; a fencing token.
        failures: attempts that failed and were retried.
        lost_leases: attempts that ended because the worker was lost.
        holder: the peer that executes it or executed it last; None before the first claim.
        lease_until: when the claim lapses unless it is renewed, in milliseconds since the epoch; 0 without a claim.
        not_before: when a released task may be claimed again, in milliseconds since the epoch; 0 for at once.
        progress: the fraction done, 0 to 1, as last reported.
        progress_message: what was last reported, for people.
        result: set when complete.
        receipt: the holder's signed word for the result, when it came with it.
        failure: set when failed; when cancelled, with code CANCELLED.
        created_at: when this node first heard of the task, in milliseconds since the epoch.
        updated_at: when the last fact happened.
        seq: the number of the last fact; the first is 1.
    """

    __slots__ = (*_FIELDS, "id", "terminal")

    def __init__(
        self,
        task: Task,
        requester: PeerId,
        target: PeerId | None,
        deadline: int | None,
        created_at: int,
    ) -> None:
        self.id: TaskId = task.id
        self.terminal = False
        self.task = task
        self.requester = requester
        self.target = target
        self.deadline = deadline
        self.status = TaskStatus.PENDING
        self.attempt = 0
        self.failures = 0
        self.lost_leases = 0
        self.holder: PeerId | None = None
        self.lease_until = 0
        self.not_before = 0
        self.progress = 0.0
        self.progress_message = ""
        self.result: TaskResult | None = None
        self.receipt: Receipt | None = None
        self.failure: Failure | None = None
        self.created_at = created_at
        self.updated_at = created_at
        self.seq = 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskRecord):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<TaskRecord {self.id} {self.status} attempt={self.attempt} seq={self.seq}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON shape of the record, with what is in it in theirs; without ``receipt`` when there is none."""
        shape = {name: getattr(self, name) for name in _FIELDS}
        receipt = shape.pop("receipt")
        return dict(
            sorted(
                {
                    **shape,
                    "task": self.task.to_dict(),
                    "status": self.status.value,
                    "result": self.result and self.result.to_dict(),
                    "failure": self.failure and self.failure.to_dict(),
                    **({"receipt": receipt.to_dict()} if receipt is not None else {}),
                }.items()
            )
        )

    @classmethod
    def from_dict(cls, shape: dict[str, Any]) -> TaskRecord:
        """Rebuild a record from what `to_dict` gave; unknown keys are ignored.

        Raises:
            KeyError: a key is missing.
            ValueError: the status is unknown.
            InvalidTask: the task, the result, the receipt or the failure is malformed.
        """
        record = cls.__new__(cls)
        for name in _FIELDS:
            setattr(record, name, shape.get(name) if name == "receipt" else shape[name])
        record.task = Task.from_dict(shape["task"])
        record.id = record.task.id
        record.status = TaskStatus(shape["status"])
        record.terminal = record.status.terminal
        record.result = TaskResult.from_dict(shape["result"]) if shape["result"] else None
        record.failure = Failure.from_dict(shape["failure"]) if shape["failure"] else None
        record.receipt = Receipt.from_dict(record.receipt) if record.receipt else None  # type: ignore[arg-type]
        return record
