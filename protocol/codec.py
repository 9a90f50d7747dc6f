"""Frames to msgpack bodies and back.

A field that has its default is left out, fields that a reader does not know are ignored, and types of frames that it
does not know are refused. Whatever the bytes are, decoding gives a frame that keeps every limit, or
`RemoteProtocolError`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from protocol.advert import PeerAdvert
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, abbreviate
from protocol.frames import FRAME_TYPES, Frame, Limits, PeerHint
from protocol.receipt import Receipt
from protocol.result import Artifact, Failure, TaskResult
from protocol.structure import SMALL_BYTES, check_structure
from protocol.task import RetryPolicy, Task, describe_invalid

# Kept, because making one costs a third of a frame. One that is in use is not in the list, so threads do not share it;
# one that has grown does not come back.
_idle_packers: list[msgpack.Packer] = []


def encode_body(frame: Frame) -> bytes:
    """Return the msgpack body of a frame, without its length.

    Raises:
        LocalProtocolError: a value in the frame cannot be carried by msgpack.
    """
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=_to_map, buf_size=SMALL_BYTES)
    try:
        body: bytes = packer.pack(frame)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"a {type(frame).__name__} frame cannot be encoded: {error}") from error
    if len(body) <= SMALL_BYTES:
        _idle_packers.append(packer)
    return body


def decode_body(body: bytes | bytearray) -> Frame:
    """Return the frame that a msgpack body holds.

    Raises:
        RemoteProtocolError: whatever is wrong with the bytes; nothing else comes out, whatever they are.
    """
    fields = _unpack(body)
    name = fields.pop("type", None)
    validate = _VALIDATORS.get(name) if isinstance(name, str) else None
    if validate is None:
        raise RemoteProtocolError(f"a frame has the unknown type {abbreviate(name)}")
    try:
        return validate(fields)
    except ValidationError as error:
        raise RemoteProtocolError(f"a frame of type {name} is malformed: {describe_invalid(error)}") from None


def canonical_bytes(value: Task | TaskResult) -> bytes:
    """Return the msgpack of a task or a result with the keys of every map sorted; what their hashes are made of."""
    body: bytes = msgpack.packb(_sorted(value))
    return body


def _sorted(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {key: _sorted(value[key]) for key in sorted(value)}
    if kind is list or kind is tuple:
        return [_sorted(item) for item in value]
    fields = {}
    for name, default in _SORTED_FIELDS[kind]:
        item = getattr(value, name)
        if item is not default and item != default:
            fields[name] = item if type(item) in _SCALARS else _sorted(item)
    return fields


class _Shape(NamedTuple):
    """How a class looks on the wire: what every map of it has, and its fields by name."""

    constant: dict[str, object]
    required: tuple[str, ...]
    defaults: tuple[tuple[str, object], ...]


def _to_map(value: object) -> dict[str, object]:
    """Return the fields that differ from their defaults; msgpack asks for whatever it does not know itself."""
    try:
        constant, required, defaults = _SHAPES[type(value)]
    except KeyError:
        raise TypeError(f"msgpack cannot carry a {type(value).__name__}") from None
    fields = constant.copy()
    for name in required:
        fields[name] = getattr(value, name)
    for name, default in defaults:
        item = getattr(value, name)
        if item is not default and item != default:
            fields[name] = item
    return fields


def _shape(cls: type[Any], constant: dict[str, object]) -> _Shape:
    defaults = {field.name: _default(field) for field in dataclasses.fields(cls)}
    return _Shape(
        constant,
        tuple(name for name, default in defaults.items() if default is dataclasses.MISSING),
        tuple((name, default) for name, default in defaults.items() if default is not dataclasses.MISSING),
    )


def _default(field: dataclasses.Field[Any]) -> object:
    """Return the default of a field, also where pydantic keeps it."""
    default: object = field.default
    if isinstance(default, FieldInfo):
        default = dataclasses.MISSING if default.is_required() else default.get_default(call_default_factory=True)
    return field.default_factory() if callable(field.default_factory) else default


def _unpack(body: bytes | bytearray) -> dict[str, Any]:
    try:
        check_structure(body)
        fields = msgpack.unpackb(body, object_pairs_hook=_unique_keys)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteProtocolError(f"a frame is not valid msgpack: {str(error) or type(error).__doc__}") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"a frame is a {type(fields).__name__} and not a map")
    return fields


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a map has the same key twice")
    return fields


_SHAPES: dict[type[object], _Shape] = {
    **{cls: _shape(cls, {"type": name}) for name, cls in FRAME_TYPES.items()},
    **{
        cls: _shape(cls, {})
        for cls in (Task, RetryPolicy, TaskResult, Artifact, Failure, Receipt, PeerAdvert, Limits, PeerHint)
    },
}
_VALIDATORS: dict[str, Callable[[dict[str, Any]], Frame]] = {
    name: TypeAdapter(cls).validator.validate_python for name, cls in FRAME_TYPES.items()
}
_SORTED_FIELDS: dict[type[object], list[tuple[str, object]]] = {
    cls: sorted([*((name, dataclasses.MISSING) for name in _SHAPES[cls].required), *_SHAPES[cls].defaults])
    for cls in (Task, RetryPolicy, TaskResult, Artifact)
}
_SCALARS = frozenset({str, int, float, bool, type(None), ErrorCode})
