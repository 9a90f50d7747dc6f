"""What happened to a task, in the past tense: one vocabulary for transitions, the audit log and events.

Facts are named tuples, because a busy node makes some hundred thousand of them a second. Times are in milliseconds
since the epoch, on the clock of the node that recorded the fact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from protocol.errors import ErrorCode
from protocol.json_value import JsonObject
from protocol.receipt import Receipt
from protocol.result import Failure, TaskResult
from protocol.task import PeerId, Task, TaskId


class Submitted(NamedTuple):
    """A node heard of a task for the first time; the birth of its record."""

    task: Task
    at: int
    requester: PeerId
    target: PeerId | None = None
    deadline: int | None = None

    @property
    def task_id(self) -> TaskId:
        """The id of the task."""
        return self.task.id


class Claimed(NamedTuple):
    """A holder took the task on; `attempt` is one more than the record's."""

    task_id: TaskId
    at: int
    attempt: int
    holder: PeerId
    lease_until: int


class Started(NamedTuple):
    """The holder began to execute."""

    task_id: TaskId
    at: int
    attempt: int


class Progressed(NamedTuple):
    """The holder told how far it is, which also renews its lease."""

    task_id: TaskId
    at: int
    attempt: int
    fraction: float
    message: str
    lease_until: int


class Completed(NamedTuple):
    """The holder delivered a result, perhaps with its receipt."""

    task_id: TaskId
    at: int
    attempt: int
    result: TaskResult
    receipt: Receipt | None = None


class Failed(NamedTuple):
    """The task ended without a result, and will not be tried again."""

    task_id: TaskId
    at: int
    attempt: int
    failure: Failure


class Released(NamedTuple):
    """The holder gave the task up, or was lost; the task waits for another attempt.

    `reason` decides which counter grows: a lost lease or a lost peer is not a failure, and a busy peer is neither.
    """

    task_id: TaskId
    at: int
    attempt: int
    reason: ErrorCode
    message: str
    not_before: int


class CancelRequested(NamedTuple):
    """The requester does not want the task any more, and its holder must stop."""

    task_id: TaskId
    at: int


class Cancelled(NamedTuple):
    """The task was stopped before it had a result."""

    task_id: TaskId
    at: int


Transition = Claimed | Started | Progressed | Completed | Failed | Released | CancelRequested | Cancelled
Fact = Submitted | Transition

FACT_TYPES: dict[str, type[Fact]] = {
    cls.__name__: cls
    for cls in (
        Submitted,
        Claimed,
        Started,
        Progressed,
        Completed,
        Failed,
        Released,
        CancelRequested,
        Cancelled,
    )
}


def fact_to_dict(fact: Fact) -> JsonObject:
    """Return the JSON shape of a fact: its name under ``fact``, and its fields."""
    fields = {name: _to_json(value) for name, value in fact._asdict().items()}
    if fields.get("receipt", fact) is None:
        del fields["receipt"]
    return {"fact": type(fact).__name__, **fields}


def fact_from_dict(shape: JsonObject) -> Fact:
    """Rebuild a fact from what `fact_to_dict` gave; unknown keys are ignored.

    Raises:
        KeyError: the name of the fact is unknown, or a field is missing.
        ValueError: the reason of a release is unknown.
        InvalidTask: the task, the result or the failure in it is malformed.
    """
    cls = FACT_TYPES[shape["fact"]]
    names = [name for name in cls._fields if name != "receipt" or shape.get(name) is not None]
    return cls(**{name: _READERS.get(name, _as_is)(shape[name]) for name in names})


def _to_json(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Task | TaskResult | Failure | Receipt) else value


def _as_is(value: Any) -> Any:
    return value


_READERS: dict[str, Any] = {
    "task": Task.from_dict,
    "result": TaskResult.from_dict,
    "failure": Failure.from_dict,
    "receipt": Receipt.from_dict,
    "reason": ErrorCode,
}
