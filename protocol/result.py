"""What came of a task: a result with its artifacts, or a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocol.errors import TRAITS, ErrorCode, InvalidTask, PeertaskError
from protocol.json_value import JsonObject
from protocol.task import MAX_PAYLOAD_BYTES, Milliseconds, TaskIdField, describe_invalid

# A result is not a folder: more files than this belong in an archive, or in storage that the result names.
MAX_ARTIFACTS = 1024
MAX_ARTIFACT_NAME_CHARS = 256
# Long enough for a full sentence with a path and a remedy; a traceback stays in the worker's log.
MAX_MESSAGE_CHARS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A named piece of output beside the text of a result.

    Attributes:
        name: unique within the result, for people.
        content: text, or base64 of the bytes when `encoding` says so.
        media_type: what the content is, as in MIME.
        encoding: how `content` stands for bytes.
    """

    name: Annotated[str, Field(min_length=1, max_length=MAX_ARTIFACT_NAME_CHARS, strict=True)]
    content: Annotated[str, Field(max_length=MAX_PAYLOAD_BYTES, strict=True)]
    media_type: Annotated[str, Field(max_length=MAX_ARTIFACT_NAME_CHARS, strict=True)] = "text/plain"
    encoding: Literal["utf-8", "base64"] = "utf-8"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outcome of a task that is complete.

    Its JSON is exactly ``{"task_id", "result", "duration_ms"}``, and ``artifacts`` only when there are any.

    Attributes:
        task_id: whose result it is.
        result: what the executor answered.
        duration_ms: how long the execution took, in milliseconds.
        artifacts: named output beside the text.
    """

    task_id: TaskIdField
    result: Annotated[str, Field(max_length=MAX_PAYLOAD_BYTES, strict=True)]
    duration_ms: Milliseconds
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=MAX_ARTIFACTS), FailFast()] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check and build a result from its JSON shape; raises `InvalidTask` naming the field."""
        try:
            return _RESULT.validate_python(data)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Check and build a result from JSON text; raises `InvalidTask` naming the field."""
        try:
            return _RESULT.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    def to_dict(self) -> JsonObject:
        """Return the JSON shape, without ``artifacts`` when there are none."""
        return _RESULT.dump_python(self, mode="json", exclude=self._absent)  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Return the compact JSON text, without ``artifacts`` when there are none."""
        return _RESULT.dump_json(self, exclude=self._absent).decode()

    @property
    def _absent(self) -> set[str]:
        return set() if self.artifacts else {"artifacts"}


def _known_code(value: object) -> object:
    """Read a code of a newer peer as INTERNAL: codes are append-only, so an unknown one is news, not nonsense."""
    if isinstance(value, str) and value not in ErrorCode.__members__:
        return ErrorCode.INTERNAL
    return value


Code = Annotated[ErrorCode, BeforeValidator(_known_code)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a task did not complete.

    Attributes:
        code: what kind of failure it is.
        message: what failed, where and why, for people; never a traceback.
        retryable: whether the same task may succeed later without anybody changing anything.
        maybe_ran: whether the task may have been executed, in whole or in part.
    """

    code: Code
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS, strict=True)]
    retryable: Annotated[bool, Field(strict=True)] = False
    maybe_ran: Annotated[bool, Field(strict=True)] = True

    @classmethod
    def of(cls, code: ErrorCode, message: str) -> Self:
        """Make a failure with the traits of its code; an over-long message is cut with an ellipsis."""
        traits = TRAITS[code]
        return cls(code=code, message=shorten(message), retryable=traits.retryable, maybe_ran=traits.maybe_ran)

    @classmethod
    def from_error(cls, error: PeertaskError) -> Self:
        """Make the failure that tells another peer about an error of this node."""
        return cls.of(error.code, str(error))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check and build a failure from its JSON shape; raises `InvalidTask` naming the field."""
        try:
            return _FAILURE.validate_python(data)  # type: ignore[return-value]
        except ValidationError as error:
            raise InvalidTask(describe_invalid(error)) from None

    def to_dict(self) -> JsonObject:
        """Return the JSON shape."""
        return _FAILURE.dump_python(self, mode="json")  # type: ignore[no-any-return]

    def to_error(self) -> TaskFailed:
        """Return the error that a caller who awaits the result sees."""
        return TaskFailed(self)


class TaskFailed(PeertaskError):
    """A task ended without a result.

    Attributes:
        failure: why, as the record keeps it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, code=failure.code)
        self.failure = failure


def shorten(message: str) -> str:
    """Return a message as it can be sent: what UTF-8 cannot carry is replaced, and what is too long is cut."""
    printable = message.encode("utf-8", "replace").decode()
    return printable if len(printable) <= MAX_MESSAGE_CHARS else printable[: MAX_MESSAGE_CHARS - 1] + "…"


_RESULT: TypeAdapter[TaskResult] = TypeAdapter(TaskResult)
_FAILURE: TypeAdapter[Failure] = TypeAdapter(Failure)
