"""The golden vectors: the bytes of every frame, which never change within a version of the protocol."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from protocol import FRAME_TYPES, PROTOCOL_ID, Chunk, FrameDecoder, decode_body, encode_frame
from tests.protocol.samples import FULL_FRAMES, VECTOR_FRAMES

FOLDER = Path(__file__).parent / "vectors"
CHANGED = (
    f"the bytes of a frame of {PROTOCOL_ID} have changed, so peers of this version no longer understand each other: a "
    "new protocol version is needed. Only for a new frame or field, run ./scripts/generate-reference --vectors"
)


def load(kind: str) -> dict[str, dict[str, Any]]:
    """Return the vectors of a type of frame by name."""
    path = FOLDER / f"{kind}.json"
    assert path.exists(), f"the frame {kind} has no vectors: run ./scripts/generate-reference --vectors"
    return {vector["name"]: vector for vector in json.loads(path.read_text(encoding="utf-8"))["vectors"]}


VECTORS = [(kind, name) for kind, frames in VECTOR_FRAMES.items() for name in frames]


def test_every_type_of_frame_has_vectors_and_no_other_has() -> None:
    """A frame that is added without vectors fails here, and so does a file that nobody reads."""
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FRAME_TYPES)


@pytest.mark.parametrize("kind", FRAME_TYPES)
def test_the_vectors_of_a_frame_belong_to_this_version_and_are_complete(kind: str) -> None:
    """Each sample has its vector, under its name."""
    assert set(load(kind)) == set(VECTOR_FRAMES[kind])
    assert json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))["protocol"] == PROTOCOL_ID


@pytest.mark.parametrize(("kind", "name"), VECTORS)
def test_a_frame_has_the_bytes_of_its_vector(kind: str, name: str) -> None:
    """What this version sends is what it has always sent."""
    assert b"".join(encode_frame(VECTOR_FRAMES[kind][name])).hex() == load(kind)[name]["hex"], CHANGED


@pytest.mark.parametrize(("kind", "name"), VECTORS)
def test_the_bytes_of_a_vector_are_read_as_its_frame(kind: str, name: str) -> None:
    """What this version has ever sent can be read."""
    stream = bytes.fromhex(load(kind)[name]["hex"])
    frame = VECTOR_FRAMES[kind][name]
    if isinstance(frame, Chunk):  # a decoder keeps it, so its body is read alone
        assert decode_body(stream[1:]) == frame
    else:
        assert FrameDecoder().feed(stream) == [frame], CHANGED


@pytest.mark.parametrize(("kind", "name"), VECTORS)
def test_the_map_of_a_vector_shows_what_its_bytes_hold(kind: str, name: str) -> None:
    """Whoever reads the JSON of a vector sees the fields of the frame, with binary in hex."""
    frame, shown = VECTOR_FRAMES[kind][name], load(kind)[name]["map"]
    assert shown["type"] == kind
    for field in dataclasses.fields(frame):
        value = getattr(frame, field.name)
        if isinstance(value, bytes):
            assert shown[field.name] == value.hex()
        elif isinstance(value, str | int | float) and field.name in shown:
            assert shown[field.name] == value


def default_of(field: "dataclasses.Field[Any]") -> object:
    """Return the default of a field; a fresh object when it has none."""
    return field.default_factory() if callable(field.default_factory) else field.default


def fields_at_default(value: Any) -> set[str]:
    """Return the names of the fields, at any level, that have their default."""
    found = set()
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item == default_of(field):
            found.add(field.name)
        if dataclasses.is_dataclass(item):
            found |= {f"{field.name}.{name}" for name in fields_at_default(item)}
    return found


@pytest.mark.parametrize("kind", FULL_FRAMES)
def test_no_field_is_at_its_default_in_every_sample(kind: str) -> None:
    """A field that is added and set in no sample would not be pinned."""
    unset = [set(fields_at_default(frame)) for frame in VECTOR_FRAMES[kind].values()]
    assert set.intersection(*unset) == set()
