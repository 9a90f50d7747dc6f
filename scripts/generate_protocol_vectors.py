"""Writes tests/protocol/vectors/: the bytes of every frame, for tests and for whoever writes a client.

The bytes of a frame never change within a version of the protocol: only run this when a frame or a field is new, and
look at what it changes.
"""

from __future__ import annotations

import json
import sys

import msgpack
from generated_part import PROJECT

sys.path.insert(0, str(PROJECT))  # the tests are no package that is installed

from protocol import FRAME_TYPES, PROTOCOL_ID, Frame, encode_body, encode_length
from tests.protocol.samples import VECTOR_FRAMES

FOLDER = PROJECT / "tests" / "protocol" / "vectors"


def vector(name: str, frame: Frame) -> dict[str, object]:
    """Return a frame as it goes over the stream, and the map that its body holds, with binary shown in hex."""
    body = encode_body(frame)
    fields = {key: value.hex() if isinstance(value, bytes) else value for key, value in msgpack.unpackb(body).items()}
    return {"name": name, "hex": (encode_length(len(body)) + body).hex(), "map": fields}


def main() -> None:
    """Write a file for each type of frame."""
    for kind in FRAME_TYPES:
        vectors = [vector(name, frame) for name, frame in VECTOR_FRAMES[kind].items()]
        text = json.dumps({"protocol": PROTOCOL_ID, "vectors": vectors}, indent=1, ensure_ascii=False)
        (FOLDER / f"{kind}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
