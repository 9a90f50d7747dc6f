"""Bytes to frames and back: an unsigned varint length, then a body; large frames go in chunks.

The decoder is fed whatever the stream gave and returns the frames that are complete; it does no IO. A length over the limit
is refused when it is read, so a peer can make a node hold no more than one frame and one payload.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.errors import RemoteProtocolError, TooLarge
from protocol.frames import DEFAULT_LIMITS, Chunk, Frame, Limits, decode_body, encode_body

# Five groups of seven bits hold any length below 32 GiB; more bytes than that are garbage.
_MAX_VARINT_BYTES = 5
# What a frame adds to the task or result in it: its type, the task id, and the keys.
_ENVELOPE_BYTES = 1024


def encode_length(length: int) -> bytes:
    """Return the unsigned varint of a length, in its shortest form."""
    out = bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def encode_frame(frame: Frame, limits: Limits = DEFAULT_LIMITS) -> list[bytes]:
    """Return what goes on the stream for a frame: one piece, or the chunks of a large one in order.

    Args:
        frame: what to send.
        limits: what the receiver takes.

    Raises:
        TooLarge: the frame is larger than the receiver's payload limit; nothing must be sent.
        LocalProtocolError: a value in the frame cannot be carried by msgpack.
    """
    body = encode_body(frame)
    if len(body) <= limits.chunk:
        return [encode_length(len(body)) + body]
    if len(body) > limits.payload + _ENVELOPE_BYTES:
        raise TooLarge(
            f"a {type(frame).__name__} of {len(body):,} bytes is larger than the receiver's limit of "
            f"{limits.payload:,} bytes for one task or result",
            remedy="Put large data where both peers can reach it, and name the place in the task",
        )
    return list(_chunks(body, limits.chunk))


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        piece = encode_body(Chunk(body[start : start + size], start + size >= len(body)))
        yield encode_length(len(piece)) + piece


class FrameDecoder:
    """Turns the bytes of one stream into frames.

    Args:
        limits: what this node takes.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._payload = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes in, and return the frames that they complete, in order.

        Raises:
            RemoteProtocolError: the bytes are not the protocol; nothing may be fed after that.
        """
        self._buffer += data
        return [frame for body in self._bodies() if (frame := self._frame(body)) is not None]

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._buffer and not self._payload

    def _bodies(self) -> list[bytes]:
        data = bytes(self._buffer)
        bodies, start = [], 0
        while (header := self._read_length(data, start)) is not None:
            length, body_start = header
            end = body_start + length
            if end > len(data):
                break
            bodies.append(data[body_start:end])
            start = end
        del self._buffer[:start]
        return bodies

    def _read_length(self, data: bytes, start: int) -> tuple[int, int] | None:
        length = 0
        for index, byte in enumerate(data[start : start + _MAX_VARINT_BYTES]):
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                self._check_length(length, minimal=byte != 0 or index == 0)
                return length, start + index + 1
        if len(data) - start >= _MAX_VARINT_BYTES:
            raise RemoteProtocolError(f"the length of a frame has more than {_MAX_VARINT_BYTES} bytes")
        return None

    def _check_length(self, length: int, *, minimal: bool) -> None:
        if not minimal:
            raise RemoteProtocolError("the length of a frame is not in its shortest form")
        if not 0 < length <= self._limits.frame:
            raise RemoteProtocolError(f"a frame of {length:,} bytes is outside 1 to {self._limits.frame:,} bytes")

    def _frame(self, body: bytes) -> Frame | None:
        frame = decode_body(body)
        if isinstance(frame, Chunk):
            return self._assemble(frame)
        return frame

    def _assemble(self, chunk: Chunk) -> Frame | None:
        self._payload += chunk.data
        if len(self._payload) > self._limits.payload + _ENVELOPE_BYTES:
            raise RemoteProtocolError(f"chunks add up to more than the limit of {self._limits.payload:,} bytes")
        if not chunk.last:
            return None
        body, self._payload = bytes(self._payload), bytearray()
        frame = decode_body(body)
        if isinstance(frame, Chunk):
            raise RemoteProtocolError("a chunk holds another chunk")
        return frame
