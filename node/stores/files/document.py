"""What stands in the file of a task: bytes to record and facts and back, without loss. Pure.

The text is for people and for `git diff` too: one field a line, always in the same order, and beside each number of
milliseconds the same moment in words, which is not read back. What a fact shares with its record stands in the record
only. `docs/reference/checkpoint-files.md` describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, NoReturn, get_args

import pydantic.dataclasses
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from node.checkpoints import EngineErrorCode, TaskMetadata
from protocol import (
    ErrorCode,
    Fact,
    InvalidTask,
    JsonObject,
    Submitted,
    TaskRecord,
    TaskStatus,
    describe_invalid,
)

FORMAT: Final = "peertask task"
VERSION: Final = 1

_TIMES = frozenset({"at", "created_at", "deadline", "lease_until", "not_before", "timestamp", "updated_at"})
# The last millisecond of the year 9999, after which ISO 8601 has no agreed form.
_LAST_MOMENT_MS = 253_402_300_799_999
# They stand in the record, and never change.
_SHARED = frozenset({"task", "task_id", "result", "failure", "receipt"})


class Malformed(ValueError):
    """The bytes are not the file of a task; the text says why.

    Attributes:
        kind: whether it is no JSON, or JSON of something else.
    """

    def __init__(self, reason: str, kind: EngineErrorCode = EngineErrorCode.VALIDATION) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Document:
    """What stands in a file; the facts are checked when they are asked for.

    Attributes:
        record: the task and its state.
    """

    record: TaskRecord
    _facts: Sequence[JsonObject]

    def facts(self) -> list[Fact]:
        """Return the last facts of the task, in order, without a gap.

        Raises:
            Malformed: one of them is not as it should be.
        """
        first = self.record.seq - len(self._facts) + 1
        return [_read_fact(shape, number, self.record) for number, shape in enumerate(self._facts, first)]


def encode(record: TaskRecord, facts: Sequence[Fact]) -> bytes:
    """Return the text of a file, with a newline at its end.

    Args:
        record: the task and its state.
        facts: its last facts, in order; the last one is number `record.seq`.
    """
    shape = record.to_dict()
    shape["task"] = _dated(shape["task"])
    first = record.seq - len(facts) + 1
    document = {
        "format": FORMAT,
        "version": VERSION,
        "record": _dated(shape),
        "facts": [_fact_shape(fact, number) for number, fact in enumerate(facts, first)],
    }
    try:
        return to_json(document, indent=2) + b"\n"
    except PydanticSerializationError:
        # Text with a lone surrogate, which UTF-8 cannot carry, and an escape can.
        return json.dumps(document, indent=2).encode() + b"\n"


def decode(data: bytes) -> Document:
    """Return what stands in a file.

    Raises:
        Malformed: the bytes are not JSON, not a task, or of another version.
    """
    document = _parse(data)
    try:
        _RECORD.validate_python(document["record"])
        record = TaskRecord.from_dict(document["record"])
    except ValidationError as error:
        raise Malformed(f"its record is wrong: {describe_invalid(error)}") from None
    except InvalidTask as error:
        raise Malformed(f"its record is wrong: {error.message}") from None
    _check_outcome(record)
    return Document(record, _checked_numbers(document.get("facts"), record.seq))


def read_metadata(data: bytes) -> TaskMetadata:
    """Return what a list shows of a task; nothing else in the file is looked at.

    Raises:
        Malformed: the bytes are not JSON, or what is asked for is missing.
    """
    document = _parse(data)
    try:
        summary = _SUMMARY.validate_python(document["record"])
    except ValidationError as error:
        raise Malformed(f"its record is wrong: {describe_invalid(error)}") from None
    pipeline_id = summary.task.metadata.get("pipeline_id")
    return {
        "task_id": summary.task.id,
        "status": summary.status.value,
        "pipeline_id": pipeline_id if isinstance(pipeline_id, str) else None,
        "created_at": summary.created_at,
        "updated_at": summary.updated_at,
    }


def utc_text(ms: int | None) -> str | None:
    """Return a moment as ISO 8601 text in UTC; None for no moment, and for one after the year 9999."""
    if not ms or ms > _LAST_MOMENT_MS:
        return None
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


# The times of a task lie close together, and making the text of one takes as long as writing ten numbers.
@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# --- writing ---------------------------------------------------------------------------------------------------------


def _fact_shape(fact: Fact, number: int) -> JsonObject:
    own = {name: value for name, value in fact._asdict().items() if name not in _SHARED}
    return {"seq": number, "fact": type(fact).__name__, **_dated(own)}


def _dated(shape: Mapping[str, Any]) -> JsonObject:
    """Return the fields in their order, with a readable moment after each time."""
    dated: JsonObject = {}
    for name, value in shape.items():
        dated[name] = value
        if name in _TIMES:
            dated[f"{name}_utc"] = utc_text(value)
    return dated


# --- reading ---------------------------------------------------------------------------------------------------------

_Number = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
_Text = Annotated[str, Field(strict=True)]


@pydantic.dataclasses.dataclass(slots=True)
class _Record:
    """The fields of a record; `TaskRecord.from_dict` checks the task, the result and the failure."""

    attempt: _Number
    created_at: _Number
    deadline: _Number | None
    failure: dict[str, Any] | None
    failures: _Number
    holder: _Text | None
    lease_until: _Number
    lost_leases: _Number
    not_before: _Number
    progress: Annotated[float, Field(ge=0, le=1, strict=True)]
    progress_message: _Text
    requester: _Text
    result: dict[str, Any] | None
    seq: Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]
    status: TaskStatus
    target: _Text | None
    task: dict[str, Any]
    updated_at: _Number
    receipt: dict[str, Any] | None = None


@pydantic.dataclasses.dataclass(slots=True)
class _TaskSummary:
    id: _Text
    metadata: dict[str, Any] = Field(default_factory=dict)


@pydantic.dataclasses.dataclass(slots=True)
class _Summary:
    """The few fields that a list shows."""

    created_at: _Number
    status: TaskStatus
    task: _TaskSummary
    updated_at: _Number


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)
_SUMMARY: TypeAdapter[_Summary] = TypeAdapter(_Summary)
_FACTS: dict[str, type[Fact]] = {cls.__name__: cls for cls in get_args(Fact)}
_FACT_ADAPTERS: dict[type[Fact], TypeAdapter[Fact]] = {cls: TypeAdapter(cls) for cls in _FACTS.values()}


def _parse(data: bytes) -> JsonObject:
    """Return the JSON object in a file of this format and version."""
    document = _load_json(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Malformed(f'it is not a task: there is no "format": "{FORMAT}" at its top')
    version = document.get("version")
    if version != VERSION:
        raise Malformed(f"its version is {version!r:.80}, and this peertask reads version {VERSION}")
    if not isinstance(document.get("record"), dict):
        raise Malformed("it holds no record")
    return document


def _load_json(data: bytes) -> Any:
    if not data:
        raise Malformed("it is empty", EngineErrorCode.JSON)
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError:
        return _load_any_json(data)


def _load_any_json(data: bytes) -> Any:
    """As the quick reader does, and lone surrogates in escapes too; says where JSON ends to be valid."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not valid JSON, or is cut off: {error}", EngineErrorCode.JSON) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_outcome(record: TaskRecord) -> None:
    """A status that promises an outcome has one."""
    has_result, has_failure = record.result is not None, record.failure is not None
    complete = record.status is TaskStatus.COMPLETE
    if has_result != complete or has_failure != (record.terminal and not complete):
        raise Malformed(f"its status {record.status} does not fit its result and failure")
    if record.result is not None and record.result.task_id != record.id:
        raise Malformed(f"its result belongs to another task: {record.result.task_id}")


def _checked_numbers(facts: Any, last: int) -> Sequence[JsonObject]:
    if not isinstance(facts, list) or not all(isinstance(fact, dict) for fact in facts):
        raise Malformed("its facts are not a list of objects")
    if [fact.get("seq") for fact in facts] != list(range(last - len(facts) + 1, last + 1)) or len(facts) > last:
        raise Malformed(f"its facts are not numbered without a gap up to {last}")
    return facts


def _read_fact(shape: JsonObject, number: int, record: TaskRecord) -> Fact:
    name = shape.get("fact")
    cls = _FACTS.get(name) if isinstance(name, str) else None
    if cls is None or (number == 1) != (cls is Submitted):
        raise Malformed(f"its fact number {number} cannot be a {name!r:.80}")
    shared = {
        "task": record.task,
        "task_id": record.id,
        "result": record.result,
        "failure": record.failure,
        "receipt": record.receipt,
    }
    fields = {field: value for field, value in {**shape, **shared}.items() if field in cls._fields}
    try:
        if "reason" in fields:
            fields["reason"] = ErrorCode(fields["reason"])
        return _FACT_ADAPTERS[cls].validate_python(fields, strict=True)
    except ValidationError as error:
        raise Malformed(f"its fact number {number} is wrong: {describe_invalid(error)}") from None
    except ValueError as error:
        raise Malformed(f"its fact number {number} is wrong: {error}") from None
