"""What is asked of a node: an immutable task, checked once when it is made or received."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NewType, Self

from pydantic import BeforeValidator, FailFast, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocol.errors import ErrorCode, InvalidTask, abbreviate
from protocol.json_value import JsonObject, check_json_object

# A readable name, a kind or a project fits in this many characters; longer ones are mistakes, and every record keeps
# them.
MAX_NAME_CHARS = 128
# The base58 text of any libp2p key in use is shorter (Ed25519: 52, RSA: 46).
MAX_PEER_ID_CHARS = 128
# One task or result in all, as msgpack: larger ones belong in files that the task names.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
# Celery and Dask users chain hundreds; more than this is a graph that wants to be split, and the record keeps each id.
MAX_DEPENDENCIES = 1024
# Several times as many as there are codes.
MAX_RETRY_CODES = 128
MAX_PRIORITY = 255
DEFAULT_PRIORITY = 5
# A day: longer work is cut into tasks that can be resumed.
MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000
# The largest integer of SQLite, and of most languages.
MAX_INT64 = 2**63 - 1

UUID4_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

TaskId = NewType("TaskId", str)
"""The canonical text of a UUID version 4: lower case, with dashes."""

PeerId = NewType("PeerId", str)
"""The base58 text of a libp2p peer id."""

TaskIdField = Annotated[TaskId, StringConstraints(pattern=UUID4_PATTERN, strict=True)]
PeerIdField = Annotated[PeerId, StringConstraints(min_length=1, max_length=MAX_PEER_ID_CHARS, strict=True)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=MAX_NAME_CHARS, strict=True)]
Count = Annotated[int, Field(ge=0, le=MAX_INT64, strict=True)]
Milliseconds = Annotated[int, Field(ge=0, le=MAX_INT64, strict=True)]
JsonField = Annotated[JsonObject, BeforeValidator(check_json_object), Field(strict=True)]

_UUID4 = re.compile(UUID4_PATTERN)
# pydantic describes all errors or none, and each takes a kilobyte; nobody makes more by mistake than a task has fields.
_MAX_DESCRIBED_ERRORS = 32
# A sentence; only the list of all values of a field that has many is longer, and its beginning tells what it is.
_MAX_REASON_CHARS = 240

# A system call and a UUID object for each id cost a thirtieth of a no-op task, so the random digits of this many ids
# are drawn at a time. They begin alike, so that they lie side by side in every index that they come into: a commit of
# a hundred tasks touches a few pages of it, and not a hundred.
_IDS_A_DRAW = 256
_ID_DIGITS = 32
# Of 122 random bits 32 are those of the draw and 90 are left to tell its ids apart, and not to be guessed.
_DRAW_DIGITS = 8
_VARIANTS = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_random_digits: list[str] = []
_random_bytes: Callable[[int], bytes] = os.urandom
# A child process must not give out the ids of its parent.
os.register_at_fork(after_in_child=_random_digits.clear)


def new_task_id() -> TaskId:
    """Return a fresh random UUID version 4; some hundred that a process draws in a row begin alike."""
    try:
        digits = _random_digits.pop()
    except IndexError:
        digits = _draw_digits()
    return TaskId(f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}")


def _draw_digits() -> str:
    """Return the digits of one id, and keep those of some more that begin alike."""
    drawn = _random_bytes(_IDS_A_DRAW * _ID_DIGITS // 2).hex()
    alike = drawn[:_DRAW_DIGITS]
    ends = range(2 * _ID_DIGITS, len(drawn) + 1, _ID_DIGITS)
    _random_digits.extend(alike + drawn[end - _ID_DIGITS + _DRAW_DIGITS : end] for end in ends)
    return drawn[:_ID_DIGITS]


@contextmanager
def draw_ids_from(random_bytes: Callable[[int], bytes]) -> Iterator[None]:
    """Draw new ids from another source than the system, for the length of the context; for tests that can be repeated.

    A node must not do so: who can guess the ids of others can use them up.

    Args:
        random_bytes: returns so many random bytes.
    """
    global _random_bytes  # noqa: PLW0603 - the hot path must not ask whose turn it is
    before, _random_bytes = _random_bytes, random_bytes
    _random_digits.clear()
    try:
        yield
    finally:
        _random_bytes = before
        _random_digits.clear()


def parse_task_id(text: str | uuid.UUID) -> TaskId:
    """Return the canonical form of a task id.

    Raises:
        InvalidTask: when the text is not a UUID version 4.
    """
    canonical = str(text).strip().lower()
    if not _UUID4.match(canonical):
        raise InvalidTask(
            f"field id: {abbreviate(str(text))} is not a UUID version 4",
            remedy="Use the form xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx, as `peertask list` prints it",
        )
    return TaskId(canonical)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a task that did not complete is tried again.

    Attributes:
        attempts: executions that may fail before the task does, the first included.
        backoff_ms: the longest wait before the second attempt; full jitter draws from zero to it.
        factor: what the wait grows by with each further attempt.
        max_backoff_ms: the longest wait between two attempts.
        elsewhere: whether another peer may be asked when the one that was named is lost.
        retry_on: the error codes that are worth another attempt; null leaves it to each failure, which says so itself.
    """

    attempts: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    backoff_ms: Annotated[int, Field(ge=0, le=3_600_000, strict=True)] = 500
    factor: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False, strict=True)] = 2.0
    max_backoff_ms: Annotated[int, Field(ge=0, le=3_600_000, strict=True)] = 30_000
    elsewhere: Annotated[bool, Field(strict=True)] = False
    retry_on: Annotated[tuple[ErrorCode, ...], Field(max_length=MAX_RETRY_CODES)] | None = None


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked: immutable, and lossless in JSON and msgpack.

    Making one checks every field; `InvalidTask` is raised by `new` and `from_dict`, pydantic's ``ValidationError`` by
    the plain constructor.

    Attributes:
        id: the idempotency key of the task on every node.
        kind: which executor carries it out.
        prompt: what to do, in words.
        params: a JSON object for the executor.
        sender: the peer that asks; must be the authenticated peer of the connection.
        timestamp: when the task was made, in milliseconds since the epoch.
        priority: 0 to 255, higher first.
        project: groups tasks for people and for checkpoints.
        session_id: groups the tasks of one conversation.
        persona: who should do it.
        depends_on: tasks of the same requester at the same node that must be complete before.
        on_failed_dependency: what becomes of it when one of those is not: it fails too, or goes on waiting.
        parent_id: the task that this one is a part of; cancelling that one cancels this one.
        timeout_ms: how long one execution may take.
        retry: when it is tried again.
        metadata: free for the requester; ``traceparent`` is the W3C trace context.
    """

    id: TaskIdField
    prompt: Annotated[str, Field(max_length=MAX_PAYLOAD_BYTES, strict=True)]
    sender: PeerIdField
    timestamp: Milliseconds
    kind: Name = "mock"
    params: JsonField = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY, strict=True)] = DEFAULT_PRIORITY
    project: Name = "default"
    session_id: Name | None = None
    persona: Name | None = None
    depends_on: Annotated[tuple[TaskIdField, ...], Field(max_length=MAX_DEPENDENCIES), FailFast()] = ()
    on_failed_dependency: Literal["fail", "wait"] = "fail"
    parent_id: TaskIdField | None = None
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS, strict=True)] | None = None
    retry: RetryPolicy = DEFAULT_RETRY
    metadata: JsonField = Field(default_factory=dict)

    @classmethod
    def new(cls, prompt: str, sender: str, *, timestamp: int, **fields: Any) -> Self:
        """Make a task with a fresh id.

        Args:
            prompt: what to do.
            sender: the peer that asks.
            timestamp: now, in milliseconds since the epoch.
            fields: any other field of the task by name; an absent ``id`` is drawn.

        Raises:
            InvalidTask: names the first field that is wrong, and its limit.
        """
        return cls.from_dict(
            {"id": new_task_id(), **fields, "prompt": prompt, "sender": sender, "timestamp": timestamp}
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check and build a task from a JSON-shaped mapping; unknown keys are ignored.

        Raises:
            InvalidTask: names the first field that is wrong, and its limit.
        """
        try:
            return _validate(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Check and build a task from JSON text; raises `InvalidTask` as `from_dict` does."""
        try:
            return _ADAPTER.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    def to_dict(self) -> JsonObject:
        """Return the task as a JSON-shaped dict with every field."""
        return _ADAPTER.dump_python(self, mode="json")  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Return the task as compact JSON text."""
        return _ADAPTER.dump_json(self).decode()

    @property
    def reference(self) -> str:
        """The readable name ``task-{project}-{uuid}``, also the name of its checkpoint file."""
        return f"task-{self.project}-{self.id}"


_ADAPTER: TypeAdapter[Task] = TypeAdapter(Task)
_validate = _ADAPTER.validator.validate_python


def describe_invalid(error: ValidationError) -> str:
    """Say in words which field is wrong and why, without repeating a large input, or many errors."""
    if error.error_count() > _MAX_DESCRIBED_ERRORS:
        return f"{error.error_count():,} fields are wrong"
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole value"
    if first["type"] == "extra_forbidden":
        return f"field {where} is unknown"
    if first["type"] == "missing":
        return f"field {where} is missing"
    what = first["msg"].removeprefix("Value error, ")
    what = what if len(what) <= _MAX_REASON_CHARS else what[:_MAX_REASON_CHARS] + "…"
    return f"field {where}: {what[:1].lower()}{what[1:]}, but got {abbreviate(first['input'])}"
