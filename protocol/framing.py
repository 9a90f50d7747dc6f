"""Bytes to frames and back: an unsigned varint length, then a body; large frames go in chunks.

The decoder is fed whatever the stream gave and returns the frames that are complete; it does no IO. A length over the
limit is refused when it is read, so a peer can make a node hold no more than one frame and one payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import overload

from protocol.codec import decode_body, encode_body
from protocol.errors import RemoteProtocolError, TooLarge
from protocol.frames import DEFAULT_LIMITS, MIN_LIMIT_BYTES, Chunk, Frame, Limits

# Each byte of a varint holds seven bits of the number, the lowest first; all but the last have the eighth bit set.
_LOW_BITS = 0x7F
_MORE_BIT = 0x80
_BITS_PER_BYTE = 7
# Five groups of seven bits hold any length below 32 GiB; more bytes than that are garbage.
_MAX_VARINT_BYTES = 5
# What a frame adds to the task or result in it: its type, the task id, and the keys.
ENVELOPE_BYTES = 1024
# What a Chunk adds to the bytes in it: the map, its keys, its type, and the length of the bytes; 27 today.
_CHUNK_ENVELOPE_BYTES = 32
# A body of this size goes whole, whatever the receiver's limits are.
_ALWAYS_WHOLE_BYTES = MIN_LIMIT_BYTES - _CHUNK_ENVELOPE_BYTES


@lru_cache(maxsize=1024)  # most frames are small, and have the length of another
def encode_length(length: int) -> bytes:
    """Return the unsigned varint of a length, in its shortest form."""
    out = bytearray()
    while length > _LOW_BITS:
        out.append(length & _LOW_BITS | _MORE_BIT)
        length >>= _BITS_PER_BYTE
    out.append(length)
    return bytes(out)


class Pieces(Sequence[bytes]):
    """The chunks of a large body, each encoded when it is asked for, so that nobody waits for all of them.

    Attributes:
        nbytes: the size of the body.
        piece_bytes: how much of it is in a piece; the last one may have less.
    """

    def __init__(self, body: bytes, piece_bytes: int) -> None:
        self._body = body
        self.nbytes = len(body)
        self.piece_bytes = piece_bytes

    def __len__(self) -> int:
        return (self.nbytes + self.piece_bytes - 1) // self.piece_bytes

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start = range(0, self.nbytes, self.piece_bytes)[index]
        end = start + self.piece_bytes
        piece = encode_body(Chunk(self._body[start:end], end >= self.nbytes))
        return encode_length(len(piece)) + piece


def encode_frame(frame: Frame, limits: Limits = DEFAULT_LIMITS) -> list[bytes] | Pieces:
    """Return what goes on the stream for a frame: one piece, or the chunks of a large one in order.

    Args:
        frame: what to send.
        limits: what the receiver takes.

    Raises:
        TooLarge: the frame is larger than the receiver's payload limit; nothing must be sent.
        LocalProtocolError: a value in the frame cannot be carried by msgpack.
    """
    body = encode_body(frame)
    if len(body) <= _ALWAYS_WHOLE_BYTES:
        return [encode_length(len(body)) + body]
    if len(body) > limits.payload + ENVELOPE_BYTES:
        raise TooLarge(
            f"a {type(frame).__name__} of {len(body):,} bytes is larger than the receiver's limit of "
            f"{limits.payload:,} bytes for one task or result",
            remedy="Put large data where both peers can reach it, and name the place in the task",
        )
    whole = min(limits.chunk, limits.frame - _CHUNK_ENVELOPE_BYTES)
    if len(body) <= whole:
        return [encode_length(len(body)) + body]
    return Pieces(body, whole)


class FrameDecoder:
    """Turns the bytes of one stream into frames.

    Args:
        limits: what this node takes.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._payload = bytearray()
        # The beginning of a frame whose rest has not come, and how many bytes it takes to get on with it. Until those
        # are there, bytes are only gathered, so that a large frame in many small reads is not gone through at each of
        # them.
        self._buffer = bytearray()
        self._wanted = 1

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes in, and return the frames that they complete, in order.

        Raises:
            RemoteProtocolError: the bytes are not the protocol; nothing may be fed after that.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data, self._buffer = bytes(self._buffer), bytearray()
        frames: list[Frame] = []
        start = 0
        while start < len(data):
            body_start, end = _next_body(data, start, self._limits.frame)
            if end > len(data):
                self._buffer += data[start:]
                self._wanted = end - start
                break
            frame = decode_body(data[body_start:end])
            if type(frame) is not Chunk:
                frames.append(frame)
            elif (whole := self._assemble(frame)) is not None:
                frames.append(whole)
            start = end
        return frames

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._buffer and not self._payload

    def _assemble(self, chunk: Chunk) -> Frame | None:
        if len(self._payload) + len(chunk.data) > self._limits.payload + ENVELOPE_BYTES:
            raise RemoteProtocolError(f"chunks add up to more than the limit of {self._limits.payload:,} bytes")
        self._payload += chunk.data
        if not chunk.last:
            return None
        body, self._payload = self._payload, bytearray()
        frame = decode_body(body)
        if isinstance(frame, Chunk):
            raise RemoteProtocolError("a chunk holds another chunk")
        return frame


def _next_body(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return where the body of the next frame begins and ends; the end is as far as can be told, and may lie beyond."""
    length = shift = 0
    for byte in data[start : start + _MAX_VARINT_BYTES]:
        start += 1
        length |= (byte & _LOW_BITS) << shift
        if byte <= _LOW_BITS:
            if not 0 < length <= limit:
                raise RemoteProtocolError(f"a frame of {length:,} bytes is outside 1 to {limit:,} bytes")
            if not byte:
                raise RemoteProtocolError("the length of a frame is not in its shortest form")
            return start, start + length
        shift += _BITS_PER_BYTE
    if shift >= _BITS_PER_BYTE * _MAX_VARINT_BYTES:
        raise RemoteProtocolError(f"the length of a frame has more than {_MAX_VARINT_BYTES} bytes")
    return start, start + 1
