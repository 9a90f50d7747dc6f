"""The frames of a session: what two nodes say to each other, one msgpack map each.

A frame is a map with its type under ``type`` and its fields beside it. A field that has its default is left out, fields
that a reader does not know are ignored, and types that it does not know are refused. `docs/reference/protocol.md` is the
specification; the vectors in `tests/protocol/vectors/` pin the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Final

import msgpack
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocol.advert import PeerAdvert
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.result import MAX_ARTIFACT_NAME_CHARS, MAX_MESSAGE_CHARS, Artifact, Code, Failure, TaskResult
from protocol.task import (
    MAX_PAYLOAD_BYTES,
    Milliseconds,
    Name,
    RetryPolicy,
    Task,
    TaskId,
    TaskIdField,
    describe_invalid,
)

PROTOCOL_ID: Final = "/peertask/1.0.0"
"""What the two peers agree on when they open the stream."""

PROTOCOL_VERSION: Final = "1.0"
"""What Hello offers; versions with the same first number understand each other."""

# 1 MiB, as rust-libp2p's request-response takes for a request: a hostile peer can make a node hold that much a session.
MAX_FRAME_BYTES: Final = 1024 * 1024
# A frame is sent whole, so a small one waits behind at most this much: 7 ms at the 35 MB/s of an encrypted echo.
CHUNK_BYTES: Final = 256 * 1024
# What one peer may have at work at a node; DESIGN section 8.
MAX_IN_FLIGHT: Final = 256
# Versions that a Hello may offer, and their length.
_MAX_VERSIONS = 16
_MAX_SLOTS = 1_000_000
_MAX_INSTANCE_CHARS = 64
# A host has a handful of interfaces and transports.
MAX_ADDRESSES: Final = 16
_MAX_ADDRESS_CHARS = 512
_MAX_FRAME_LIMIT = 64 * 1024 * 1024

Seq = Annotated[int, Field(ge=0, strict=True)]
Address = Annotated[str, Field(max_length=_MAX_ADDRESS_CHARS, strict=True)]
Message = Annotated[str, Field(max_length=MAX_MESSAGE_CHARS, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a node takes from one peer; announced in Hello.

    Attributes:
        frame: bytes of one frame's body.
        chunk: bytes above which a frame is sent in chunks.
        payload: bytes of one task or one result, as msgpack.
        in_flight: tasks accepted from this peer and not finished.
    """

    frame: Annotated[int, Field(ge=1024, le=_MAX_FRAME_LIMIT, strict=True)] = MAX_FRAME_BYTES
    chunk: Annotated[int, Field(ge=1024, le=_MAX_FRAME_LIMIT, strict=True)] = CHUNK_BYTES
    payload: Annotated[int, Field(ge=1024, strict=True)] = MAX_PAYLOAD_BYTES
    in_flight: Annotated[int, Field(ge=1, strict=True)] = MAX_IN_FLIGHT


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first frame of a node; the other side answers with its own. A simple client leaves it out.

    Attributes:
        versions: what the sender speaks, as ``major.minor``.
        agent: the program and its version, for people.
        advert: what the sender offers this peer.
        limits: what the sender takes from this peer.
        instance: drawn at each start of the sender; tells a restart from a second dial.
        addresses: where the sender can be dialled.
    """

    versions: Annotated[tuple[Name, ...], Field(min_length=1, max_length=_MAX_VERSIONS)] = (PROTOCOL_VERSION,)
    agent: Annotated[str, Field(max_length=MAX_ARTIFACT_NAME_CHARS, strict=True)] = ""
    advert: PeerAdvert = Field(default_factory=PeerAdvert)
    limits: Limits = DEFAULT_LIMITS
    instance: Annotated[str, Field(max_length=_MAX_INSTANCE_CHARS, strict=True)] = ""
    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES)] = ()


@dataclass(frozen=True, slots=True)
class Submit:
    """Asks the peer to do a task; answered by Accept or Reject.

    Attributes:
        task: what to do.
        remaining_ms: how long the requester still cares; None for as long as it takes.
    """

    task: Task
    remaining_ms: Milliseconds | None = None

    @property
    def task_id(self) -> TaskId:
        """The id of the task, as in every other frame about one."""
        return self.task.id


@dataclass(frozen=True, slots=True)
class Accept:
    """The task is recorded, and its Result will follow on this session, or on a later one after Attach.

    Attributes:
        task_id: which task.
        seq: the number of the last fact that the worker recorded about it.
    """

    task_id: TaskIdField
    seq: Seq = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The task is not recorded, and nothing ran.

    Attributes:
        task_id: which task.
        code: why, for programs.
        message: why, for people.
        retry_after_ms: how long to wait before asking again; only with BUSY and DRAINING.
    """

    task_id: TaskIdField
    code: Code
    message: Message = ""
    retry_after_ms: Milliseconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the worker is.

    Attributes:
        task_id: which task.
        seq: the number of the fact.
        fraction: 0 to 1.
        message: for people.
    """

    task_id: TaskIdField
    seq: Seq
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    message: Message = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of the task: exactly one of `result` and `failure`.

    Attributes:
        task_id: which task.
        seq: the number of its last fact.
        result: what came of it.
        failure: why nothing came of it.
    """

    task_id: TaskIdField
    seq: Seq
    result: TaskResult | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if (self.result is None) == (self.failure is None):
            raise ValueError("exactly one of result and failure must be given")
        if self.result is not None and self.result.task_id != self.task_id:
            raise ValueError(f"the result belongs to task {self.result.task_id}")


@dataclass(frozen=True, slots=True)
class Attach:
    """Asks for the outcome of a task that was submitted before; answered by Accept or Reject.

    Attributes:
        task_id: which task.
        after_seq: the last fact that the requester knows; 0 for none.
    """

    task_id: TaskIdField
    after_seq: Seq = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks the worker to stop a task; Result follows all the same, with whatever came first."""

    task_id: TaskIdField


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Asks the peer for work, so that a node that nobody can dial still works.

    Attributes:
        slots: how many tasks the sender would take now; 0 for none any more.
        kinds: what it can do.
        personas: who it can act as.
    """

    slots: Annotated[int, Field(ge=0, le=_MAX_SLOTS, strict=True)]
    kinds: tuple[Name, ...] = ()
    personas: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Says that the sender is alive, and how busy; the only thing that finds a frozen peer.

    Attributes:
        load: tasks queued and executing at the sender.
        ping: a number that the other side answers at once, in the `pong` of a heartbeat without a ping; 0 asks nothing.
        pong: the `ping` that this answers; 0 for none.
    """

    load: Annotated[int, Field(ge=0, strict=True)] = 0
    ping: Milliseconds = 0
    pong: Milliseconds = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a frame that is too large to be sent whole; the pieces of one frame come in order, one frame at a time.

    Attributes:
        data: the bytes.
        last: whether the frame is complete with this piece.
    """

    data: Annotated[bytes, Field(strict=True)]
    last: Annotated[bool, Field(strict=True)] = False


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends the session; nothing follows.

    Attributes:
        code: why, for programs; DRAINING for an orderly end.
        message: why, for people.
    """

    code: Code
    message: Message = ""


TaskFrame = Submit | Accept | Reject | Progress | Result | Attach | Cancel
SessionFrame = Hello | Offer | Heartbeat | Bye | Chunk
Frame = TaskFrame | SessionFrame

FRAME_TYPES: dict[str, type[Frame]] = {
    cls.__name__.lower(): cls
    for cls in (Hello, Submit, Accept, Reject, Progress, Result, Attach, Cancel, Offer, Heartbeat, Chunk, Bye)
}
TYPE_NAMES: dict[type[Frame], str] = {cls: name for name, cls in FRAME_TYPES.items()}


def encode_body(frame: Frame) -> bytes:
    """Return the msgpack body of a frame, without its length.

    Raises:
        LocalProtocolError: a value in the frame cannot be carried by msgpack.
    """
    try:
        return _pack({"type": TYPE_NAMES[type(frame)], **_sparse(frame)})
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"a {type(frame).__name__} frame cannot be encoded: {error}") from error


def decode_body(body: bytes) -> Frame:
    """Return the frame that a msgpack body holds.

    Raises:
        RemoteProtocolError: whatever is wrong with the bytes; nothing else comes out, whatever they are.
    """
    fields = _unpack(body)
    name = fields.pop("type", None)
    validate = _VALIDATORS.get(name) if isinstance(name, str) else None
    if validate is None:
        raise RemoteProtocolError(f"a frame has the unknown type {name!r:.40}")
    try:
        return validate(fields)
    except ValidationError as error:
        raise RemoteProtocolError(f"a {name} frame is malformed: {describe_invalid(error)}") from None


def _pack(fields: dict[str, Any]) -> bytes:
    return msgpack.packb(fields)  # type: ignore[no-any-return]


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        _check_structure(body)
        fields = msgpack.unpackb(body, object_pairs_hook=_unique_keys)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteProtocolError(f"a frame is not valid msgpack: {error or type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"a frame is a {type(fields).__name__} and not a map")
    return fields


class _StructureCheck:
    """Walks over a msgpack body without building anything.

    Unpacking allocates what an array's header announces before it looks for the items; skipping allocates nothing, so a
    body that passes really holds as many items as it says. The walker is kept, because making one costs more than a walk.
    """

    def __init__(self) -> None:
        self._walker = msgpack.Unpacker(max_buffer_size=_MAX_FRAME_LIMIT)

    def __call__(self, body: bytes) -> None:
        try:
            self._walker.feed(body)
            self._walker.skip()
        except BaseException:
            self._walker = msgpack.Unpacker(max_buffer_size=_MAX_FRAME_LIMIT)
            raise


_check_structure = _StructureCheck()


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a map has the same key twice")
    return fields


def _sparse(value: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults, as msgpack carries them."""
    fields = {}
    for name, default in _FIELDS[type(value)]:
        item = getattr(value, name)
        if item is not default and item != default:
            fields[name] = item if type(item) in _CARRIED else _carried(item)
    return fields


def _carried(item: Any) -> Any:
    if type(item) in _FIELDS:
        return _sparse(item)
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, tuple):
        return [_carried(part) for part in item]
    return item


def _field_table(cls: type[Any]) -> list[tuple[str, object]]:
    table = cls.__pydantic_fields__
    return [
        (name, _REQUIRED if field.is_required() else field.get_default(call_default_factory=True))
        for name, field in table.items()
    ]


_REQUIRED = object()
_CARRIED = frozenset({str, int, float, bool, bytes, dict, type(None)})
_FIELDS: dict[type[Any], list[tuple[str, object]]] = {
    cls: _field_table(cls)
    for cls in (*FRAME_TYPES.values(), Task, RetryPolicy, TaskResult, Artifact, Failure, PeerAdvert, Limits)
}
_VALIDATORS: dict[str, Callable[[dict[str, Any]], Frame]] = {
    name: TypeAdapter(cls).validator.validate_python for name, cls in FRAME_TYPES.items()
}
