"""Streams of libp2p whose reads and writes may be cancelled, so that deadlines can be put around them.

Theory of operation. Cancelling a read or write of a stream of libp2p can corrupt the whole connection under it. Here
two tasks that are never cancelled read and write it, and whoever uses it waits in memory only. They end when both sides
have ended the stream, when it is reset, or when the connection under it ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import ConnectionClosedError

from node.background import open_background
from node.net.muxer import hardened
from node.net.relay.messages import Length
from protocol import RemoteProtocolError

CHUNK_BYTES: Final = 60 * 1024
"""What one read or write takes at the most: with its headers one frame of Noise and one of Yamux."""

WAITING_CHUNKS: Final = 1
"""How many chunks wait in each direction: one is on its way while the next is made, and a slow end slows the other."""

FAREWELL_S: Final = 2.0
"""How long the other side may take to end a stream that this side has ended, before it is reset."""

_log = structlog.get_logger(__name__)


class Opener(Protocol):
    """What is needed of a host."""

    async def open_stream(self, connection: INetConn, protocol: TProtocol) -> INetStream:
        """Open a stream of a connection."""


class CancellableStream(trio.abc.HalfCloseableStream):
    """A stream of libp2p.

    One task reads and one writes at a time. `run` must run for as long as it is used.

    Args:
        stream: of libp2p; nobody else uses it any more.
    """

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._keep, self._receive = trio.open_memory_channel[bytes](WAITING_CHUNKS)
        self._send, self._take = trio.open_memory_channel[bytes](WAITING_CHUNKS)
        self._rest = b""
        self._closing = trio.Event()
        self._written = trio.Event()
        self._read_out = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, or raise what `trio.abc.SendStream.send_all` does; cancelling may have sent a part."""
        for start in range(0, len(data), CHUNK_BYTES):
            await self._send.send(bytes(data[start : start + CHUNK_BYTES]))

    async def wait_send_all_might_not_block(self) -> None:
        """Not known here: returns at once."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return some bytes; none at the end, be it a good one or not. Cancelling loses nothing."""
        if not self._rest:
            try:
                self._rest = await self._receive.receive()
            except trio.EndOfChannel:
                return b""
        taken = len(self._rest) if max_bytes is None else max_bytes
        data, self._rest = self._rest[:taken], self._rest[taken:]
        return data

    async def send_eof(self) -> None:
        """End this side of the stream, when what was sent is written."""
        self._send.close()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End both sides; what was sent is still written, for a moment. Returns at once."""
        self.end()
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """Close, as `aclose` does."""
        self._send.close()
        self._receive.close()
        self._closing.set()

    async def run(self) -> None:
        """Read and write until the stream is closed and over, or its connection; cannot be cancelled."""
        carrier = hardened(self._stream.muxed_conn)
        with trio.CancelScope(shield=True), carrier.in_use():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                nursery.start_soon(self._end_after, carrier.event_closed)
                await self._closing.wait()
                with trio.move_on_after(FAREWELL_S):
                    await self._wait_over()
                if not (self._written.is_set() and self._read_out.is_set()):
                    await self._stream.reset()
                    await self._wait_over()
                nursery.cancel_scope.cancel()

    async def _wait_over(self) -> None:
        await self._written.wait()
        await self._read_out.wait()

    async def _end_after(self, connection_closed: trio.Event) -> None:
        await connection_closed.wait()
        self._keep.close()
        self._take.close()
        self._closing.set()

    async def _read(self) -> None:
        try:
            async with self._keep:
                while data := await self._stream.read(CHUNK_BYTES):
                    await self._keep_unless_closed(data)
        except (BaseLibp2pError, trio.ClosedResourceError) as error:
            _log.debug("a stream ended", reason=type(error).__name__)
        self._read_out.set()

    async def _keep_unless_closed(self, data: bytes) -> None:
        try:
            await self._keep.send(data)
        except trio.BrokenResourceError:  # nobody wants it any more; the other side must not be kept from its end
            _log.debug("the rest of a stream is dropped")

    async def _write(self) -> None:
        try:
            async with self._take:
                async for data in self._take:
                    await self._stream.write(data)
            await self._stream.close()
        except (BaseLibp2pError, trio.ClosedResourceError) as error:
            _log.debug("a stream broke", reason=type(error).__name__)
        self._written.set()


@asynccontextmanager
async def cancellable(stream: INetStream) -> AsyncIterator[CancellableStream]:
    """Make a stream cancellable for the length of a block, and end it then."""
    safe = CancellableStream(stream)
    async with open_background() as nursery:
        nursery.start_soon(safe.run)
        try:
            yield safe
        finally:
            await safe.aclose()


async def open_stream(
    opener: Opener, nursery: trio.Nursery, connection: INetConn, protocol: TProtocol
) -> CancellableStream:
    """Open a stream to be closed by the caller. Cancelling is safe.

    Args:
        opener: opens it.
        nursery: where its tasks run, until it is closed and over.
        connection: what is to carry it.
        protocol: what is to be spoken.

    Raises:
        Exception: whatever libp2p raises when none can be opened.
    """
    opening = _Opening()
    nursery.start_soon(opening.run, opener, connection, protocol)
    try:
        await opening.over.wait()
    except trio.Cancelled:
        opening.give_up()
        raise
    if opening.stream is None:
        raise opening.error or ConnectionClosedError("the connection ended")
    return opening.stream


class _Opening:
    """A stream that is being opened."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self._given_up = False
        self.stream: CancellableStream | None = None
        self.error: Exception | None = None

    async def run(self, opener: Opener, connection: INetConn, protocol: TProtocol) -> None:
        with trio.CancelScope(shield=True):
            try:
                self.stream = CancellableStream(await opener.open_stream(connection, protocol))
            except Exception as error:  # noqa: BLE001 - raised again where it was asked for
                self.error = error
            self.over.set()
            if self.stream is not None:
                if self._given_up:
                    self.stream.end()
                await self.stream.run()

    def give_up(self) -> None:
        """Nobody waits for the stream any more; it may have been opened since whoever did was cancelled."""
        self._given_up = True
        if self.stream is not None:
            self.stream.end()


async def receive_body(stream: trio.abc.ReceiveStream) -> bytes:
    """Read a message, and nothing that comes behind it; without its length.

    Raises:
        RemoteProtocolError: it is too large, its length is malformed, or the stream ended first.
    """
    length = Length()
    while (size := length.feed((await _receive_exactly(stream, 1))[0])) is None:
        pass
    return await _receive_exactly(stream, size)


async def _receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        if not part:
            raise RemoteProtocolError("the stream ended where a message was due")
        data += part
    return data
