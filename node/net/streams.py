"""Byte streams as libp2p wants them, over TCP or over WebSocket on TCP."""

from typing import Final

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream

from node.net.addresses import Endpoint

RECEIVE_BYTES: Final = 64 * 1024
"""What one system call may bring: the largest Noise message."""

WEBSOCKET_GOODBYE_S: Final = 1.0
"""How long the closing handshake of a WebSocket may take: a frozen peer never answers it."""

_TRANSPORT_FAILURES = (trio.BrokenResourceError, trio.ClosedResourceError)


class ByteStream(ReadWriteCloser):
    """One connection, before encryption.

    `read(n)` returns exactly n bytes. libp2p 0.8.1 asks for the rest of a short read 100 times and then gives up, so
    that a large frame which arrives in small segments, as on a slow link, would break the connection; and after the
    peer has gone it asks as often for bytes that cannot come, which is what makes it slow to clean up.

    At most one task reads and one task writes at a time. Cancelling a read loses nothing; cancelling a write leaves the
    connection unusable.

    Args:
        stream: the transport.
        remote: the address of the other end.
    """

    def __init__(self, stream: trio.abc.Stream, remote: tuple[str, int] | None) -> None:
        self._stream = stream
        self._remote = remote
        self._received = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes; without `n`, whatever is there, at least one byte.

        Raises:
            ConnectionClosedError: the connection ended first, at either side.
        """
        wanted = 1 if n is None else n
        while len(self._received) < wanted:
            self._received += await self._receive()
        taken = len(self._received) if n is None else n
        with memoryview(self._received) as view:
            data = bytes(view[:taken])
        del self._received[:taken]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            ConnectionClosedError: the connection ended, at either side.
        """
        try:
            await self._stream.send_all(data)
        except _TRANSPORT_FAILURES as error:
            raise ConnectionClosedError("the connection ended while sending") from error

    async def close(self) -> None:
        """Close at once; a blocked reader or writer wakes with `ConnectionClosedError`. Idempotent."""
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        """The address of the other end."""
        return self._remote

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except _TRANSPORT_FAILURES as error:
            raise ConnectionClosedError("the connection ended while receiving") from error
        if not data:
            raise ConnectionClosedError("the peer closed the connection")
        return bytes(data)


class WebSocketStream(trio.abc.Stream):
    """The binary messages of a WebSocket as a stream of bytes."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one message."""
        try:
            await self._connection.send_message(bytes(data))
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the WebSocket is closed") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Not known to a WebSocket: returns at once."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - a message is never split
        """The next message that has bytes, whole; empty at the end."""
        try:
            while not (message := await self._connection.get_message()):
                continue  # js-libp2p sends empty messages too, and they are not the end
        except ConnectionClosed:
            return b""
        if isinstance(message, str):
            raise trio.BrokenResourceError("the peer sent text where libp2p sends bytes")
        return message

    async def aclose(self) -> None:
        """Say goodbye for a moment, then close."""
        with trio.move_on_after(WEBSOCKET_GOODBYE_S):
            await self._connection.aclose()


async def open_tcp(endpoint: Endpoint) -> trio.SocketStream:
    """Connect.

    Raises:
        OSError: nobody answers there, or the name does not resolve.
    """
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


async def websocket_client(nursery: trio.Nursery, stream: trio.SocketStream, endpoint: Endpoint) -> WebSocketStream:
    """Turn a fresh TCP connection into a WebSocket; its reader runs in `nursery` until the stream is closed."""
    host = f"[{endpoint.host}]" if endpoint.kind == "ip6" else endpoint.host
    connection = await wrap_client_stream(nursery, stream, f"{host}:{endpoint.port}", "/")
    return WebSocketStream(connection)


async def websocket_server(nursery: trio.Nursery, stream: trio.SocketStream) -> WebSocketStream:
    """Answer the WebSocket handshake of a fresh TCP connection; its reader runs in `nursery` until it is closed."""
    request = await wrap_server_stream(nursery, stream)
    return WebSocketStream(await request.accept())


def remote_address(stream: trio.SocketStream) -> tuple[str, int] | None:
    """The address of the other end; None when it has gone already."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)
