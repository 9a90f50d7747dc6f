"""The value of a key: a task as A2A 0.2 shapes it, and its way to a record and back without loss.

What other programs look at stands where A2A has it: the prompt and the answer in the history, the artifacts, the state.
The rest of the record stands in the metadata, under ``peertask``; nothing large stands twice. Fields that other
programs add are kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from protocol import Artifact, ErrorCode, InvalidTask, JsonObject, PeerId, PeertaskError, TaskRecord, TaskStatus
from protocol import describe_invalid as describe

NAMESPACE: Final = "peertask"
"""The key of the metadata that is ours."""
VERSION: Final = 1
"""Of what stands there; another one is not read."""
# The last moment that datetime knows, in milliseconds since the epoch.
_MAX_TIME_MS: Final = 253_402_300_799_999


class State(StrEnum):
    """The states of A2A 0.2 that a task context has."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


STATE_OF: Final[dict[TaskStatus, State]] = {
    TaskStatus.PENDING: State.IN_PROGRESS,
    TaskStatus.CLAIMED: State.IN_PROGRESS,
    TaskStatus.EXECUTING: State.IN_PROGRESS,
    TaskStatus.CANCELLING: State.IN_PROGRESS,
    TaskStatus.COMPLETE: State.COMPLETED,
    TaskStatus.FAILED: State.FAILED,
    TaskStatus.CANCELLED: State.CANCELLED,
}
"""How each status of a record reads in a task context."""

_STATUS_OF: Final = {
    State.IN_PROGRESS: TaskStatus.EXECUTING,
    State.COMPLETED: TaskStatus.COMPLETE,
    State.FAILED: TaskStatus.FAILED,
    State.CANCELLED: TaskStatus.CANCELLED,
}


def status_of(state: State) -> TaskStatus:
    """Return what a state means here, where no record says it more exactly."""
    return _STATUS_OF[state]


class _Shape(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


Absent = Annotated[Any, Field(exclude_if=lambda value: value is None)]
_OptionalText = Annotated[str | None, Field(exclude_if=lambda value: value is None)]
_OptionalObject = Annotated[JsonObject | None, Field(exclude_if=lambda value: value is None)]


class Part(_Shape):
    """A piece of a message or of an artifact: ``text``, ``file`` or ``data``, as `kind` says."""

    kind: Literal["text", "file", "data"] = "text"
    text: _OptionalText = None
    file: _OptionalObject = None
    data: _OptionalObject = None
    metadata: _OptionalObject = None


class Message(_Shape):
    """One message of a conversation."""

    role: Literal["user", "agent"]
    parts: tuple[Part, ...]
    message_id: str

    @classmethod
    def of(cls, role: Literal["user", "agent"], text: str, message_id: str) -> Self:
        """Make a message of one text."""
        return cls(role=role, parts=(Part(text=text),), message_id=message_id)


class ContextArtifact(_Shape):
    """A named piece of output."""

    artifact_id: str
    name: _OptionalText = None
    parts: tuple[Part, ...]


class ContextStatus(_Shape):
    """Where a task stands.

    Attributes:
        state: one of four.
        timestamp: when it came to be so, in ISO 8601, UTC.
        completed_at: when the task ended.
        message: why it failed.
    """

    state: State
    timestamp: _OptionalText = None
    completed_at: _OptionalText = None
    message: Annotated[Message | None, Field(exclude_if=lambda value: value is None)] = None


class TaskContext(_Shape):
    """A task as other programs see it.

    Attributes:
        id: of the task.
        session_id: of the conversation that it belongs to.
        status: where it stands.
        history: the messages of the conversation.
        artifacts: what came of it, beside messages.
        metadata: free; what a node needs stands under ``peertask``.
    """

    id: str
    session_id: str
    status: ContextStatus
    history: tuple[Message, ...] = ()
    artifacts: tuple[ContextArtifact, ...] = ()
    metadata: JsonObject = Field(default_factory=dict)

    @property
    def kept_by(self) -> PeerId | None:
        """The node that keeps a record in it, and alone may write it; None for a context of programs."""
        kept = self.metadata.get(NAMESPACE)
        return PeerId(str(kept.get("node"))) if isinstance(kept, dict) else None

    def to_json(self) -> bytes:
        """Return the value as it stands in the server."""
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def from_json(cls, value: bytes | str) -> Self:
        """Read a value that `to_json` gave, or another program.

        Raises:
            PeertaskError: code STORE_FAILED, says what is wrong with it.
        """
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            raise _unreadable(describe(error)) from None


def context_of(record: TaskRecord, node: PeerId) -> TaskContext:
    """Return the task context of a record that a node keeps."""
    shape = record.to_dict()
    task = shape["task"]
    del task["prompt"]
    result = record.result
    if result is not None:
        shape["result"] = {"duration_ms": result.duration_ms}
    metadata = record.task.metadata
    if NAMESPACE not in metadata:
        del task["metadata"]
    else:
        metadata = {}
    return TaskContext(
        id=record.id,
        session_id=record.task.session_id or record.id,
        status=_status(record),
        history=_history(record),
        artifacts=tuple(
            _to_artifact(artifact, number) for number, artifact in enumerate(result.artifacts if result else ())
        ),
        metadata={**metadata, NAMESPACE: {"version": VERSION, "node": node, "record": shape}},
    )


def record_of(context: TaskContext, node: PeerId) -> TaskRecord:
    """Return the record that a node keeps in a task context; raises as `read_record` does."""
    return read_record(context.to_json(), node)


def read_record(value: bytes, node: PeerId) -> TaskRecord:
    """Return the record that a node keeps in a value of the server.

    A node reads a hundred thousand of them when it starts, so the rest of the context is not looked at.

    Raises:
        PeertaskError: code STORE_FAILED, says what is wrong: the value is no JSON object, or there is no record in it,
            or another node's, or one of another version; it lacks something, or contradicts the rest of the context.
    """
    try:
        shape = from_json(value)
        kept = shape["metadata"].get(NAMESPACE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(f"it is no task context: {type(error).__name__} {error}") from None
    if not isinstance(kept, dict):
        raise _unreadable(f"the metadata hold no record under {NAMESPACE}: no node keeps this task")
    if kept.get("node") != node:
        raise _unreadable(f"the record belongs to the node {kept.get('node')}")
    if kept.get("version") != VERSION:
        raise _unreadable(f"the record has version {kept.get('version')!r}, and this program reads version {VERSION}")
    try:
        record = TaskRecord.from_dict(_full_shape(shape, kept["record"]))
        if (record.id, STATE_OF[record.status]) != (shape["id"], shape["status"]["state"]):
            raise _unreadable(f"the record is {record.status}, of task {record.id}, and the context says otherwise")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(f"the record is incomplete: {type(error).__name__} {error}") from None
    except InvalidTask as error:
        raise _unreadable(f"the record is malformed: {error.message}") from None
    return record


def _full_shape(context: JsonObject, record: JsonObject) -> JsonObject:
    """Put what stands elsewhere in a context back into the shape of its record."""
    task = record["task"]
    task["prompt"] = context["history"][0]["parts"][0]["text"]
    if "metadata" not in task:
        task["metadata"] = context["metadata"]
        del task["metadata"][NAMESPACE]
    result = record["result"]
    if result is not None:
        result["task_id"] = task["id"]
        result["result"] = context["history"][-1]["parts"][0]["text"]
        result["artifacts"] = [_from_artifact(artifact) for artifact in context["artifacts"]]
    return record


def _status(record: TaskRecord) -> ContextStatus:
    at = iso_time(record.updated_at)
    failure = record.failure
    return ContextStatus(
        state=STATE_OF[record.status],
        timestamp=at,
        completed_at=at if record.terminal else None,
        message=None if failure is None else Message.of("agent", failure.message, f"{record.id}-failure"),
    )


def _history(record: TaskRecord) -> tuple[Message, ...]:
    request = Message.of("user", record.task.prompt, f"{record.id}-request")
    if record.result is None:
        return (request,)
    return request, Message.of("agent", record.result.result, f"{record.id}-result")


def _to_artifact(artifact: Artifact, number: int) -> ContextArtifact:
    if artifact.encoding == "base64":
        file = {"name": artifact.name, "mimeType": artifact.media_type, "bytes": artifact.content}
        part = Part(kind="file", file=file)
    else:
        part = Part(text=artifact.content, metadata={"mimeType": artifact.media_type})
    return ContextArtifact(artifact_id=str(number), name=artifact.name, parts=(part,))


def _from_artifact(artifact: JsonObject) -> JsonObject:
    part = artifact["parts"][0]
    if "file" in part:
        media_type, content, encoding = part["file"]["mimeType"], part["file"]["bytes"], "base64"
    else:
        media_type, content, encoding = part["metadata"]["mimeType"], part["text"], "utf-8"
    return {"name": artifact["name"], "content": content, "media_type": media_type, "encoding": encoding}


def iso_time(at_ms: int) -> str:
    """Return milliseconds since the epoch as ISO 8601, UTC, as A2A writes times."""
    moment = datetime.fromtimestamp(min(at_ms, _MAX_TIME_MS) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unreadable(why: str) -> PeertaskError:
    return PeertaskError(why, code=ErrorCode.STORE_FAILED)
