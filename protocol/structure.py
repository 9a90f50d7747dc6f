"""Judges the structure of a msgpack body before anything is built from it.

Unpacking allocates what the header of an array or map announces before it looks for the items, and makes a Python
object of 50 to 200 bytes from each byte or two. So a body is walked over first: what passes really holds what it says,
and not more values than a frame may have.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from protocol.json_value import MAX_JSON_VALUES

# Keys and values of the params and the metadata of a task, and room for everything else that a frame has.
MAX_VALUES = 4 * MAX_JSON_VALUES + 20_000
# A body of this size makes 5 MB of objects at the worst, so its values need no counting, and C walks over it in no
# time.
SMALL_BYTES = 64 * 1024


# Kept, because making one costs more than a walk. One that is in use is not in the list, so threads do not share it,
# and one that met bad bytes does not come back.
_idle_walkers: list[msgpack.Unpacker] = []


def check_structure(body: bytes | bytearray) -> None:
    """Walk over a body without building anything.

    Raises:
        ValueError: the body is cut off, has more than one value, nests too deep, or holds too many values.
        msgpack.UnpackException: the same, said by msgpack.
    """
    if len(body) > SMALL_BYTES:
        _count(body)
        return
    try:
        walker = _idle_walkers.pop()
    except IndexError:
        walker = msgpack.Unpacker(max_buffer_size=SMALL_BYTES)
    walker.feed(body)
    walker.skip()
    if walker.read_bytes(1):
        raise ValueError("bytes follow the value")
    _idle_walkers.append(walker)


class _Layout(NamedTuple):
    """What the first byte of a value tells.

    Attributes:
        size: the bytes of the value without what its length counts.
        children: values in it.
        length_bytes: how many bytes after the first are a length, most significant first.
        counts: how many children one unit of the length stands for; 0 when it stands for a byte.
    """

    size: int
    children: int = 0
    length_bytes: int = 0
    counts: int = 0


def _count(body: bytes | bytearray) -> None:
    position, left, seen, size = 0, 1, 0, len(body)
    while left:
        if position >= size:
            raise ValueError("the body is cut off")
        width, children, length_bytes, counts = _LAYOUTS[body[position]]
        if length_bytes:
            length = int.from_bytes(body[position + 1 : position + 1 + length_bytes], "big")
            children = length * counts
            width += 0 if counts else length
        position += width
        seen += 1
        left += children - 1
        if seen + left > MAX_VALUES:
            raise ValueError(f"the body holds more than {MAX_VALUES:,} values")
    if position != size:
        raise ValueError("the body is cut off" if position > size else "bytes follow the value")


def _layouts() -> list[_Layout]:
    layouts = [_Layout(1)] * 256  # integers of one byte, nil, and the booleans
    for length in range(16):
        layouts[0x80 + length] = _Layout(1, children=2 * length)
        layouts[0x90 + length] = _Layout(1, children=length)
    for length in range(32):
        layouts[0xA0 + length] = _Layout(1 + length)
    for power in range(3):
        length_bytes = 1 << power
        layouts[0xC4 + power] = layouts[0xD9 + power] = _Layout(1 + length_bytes, 0, length_bytes)  # bin, str
        layouts[0xC7 + power] = _Layout(2 + length_bytes, 0, length_bytes)  # ext: a byte for its type
    for power in range(4):
        layouts[0xCC + power] = layouts[0xD0 + power] = _Layout(1 + (1 << power))  # unsigned, signed
    layouts[0xCA], layouts[0xCB] = _Layout(5), _Layout(9)  # floats
    for power in range(5):
        layouts[0xD4 + power] = _Layout(2 + (1 << power))  # ext of a fixed length
    for power in (1, 2):
        length_bytes = 1 << power
        layouts[0xDB + power] = _Layout(1 + length_bytes, 0, length_bytes, counts=1)  # array
        layouts[0xDD + power] = _Layout(1 + length_bytes, 0, length_bytes, counts=2)  # map
    return layouts


_LAYOUTS = _layouts()
