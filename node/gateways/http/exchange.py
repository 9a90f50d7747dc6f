"""One request and its answer over a Unix socket.

Plain h11 on a trio stream. Each request has a connection of its own, which costs a fifth of a millisecond; a client
library takes a quarter of a second to import, and leaves it to the garbage collector to end a stream that is left
early.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import h11
import trio

# More than any answer of a node (a thousand summaries, or a task with its result, with every character escaped).
MAX_ANSWER_BYTES: Final = 128 * 1024 * 1024
_RECEIVE_BYTES = 65_536


class NoAnswerError(Exception):
    """Nobody answers at the socket, or not in HTTP; the text says why."""


@asynccontextmanager
async def open_exchange(
    socket: str, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> AsyncIterator[Answer]:
    """Send a request, and give its answer once the status is there; leaving the context ends the connection.

    Raises:
        NoAnswerError: nobody answers.
    """
    try:
        stream = await trio.open_unix_socket(socket)
    except OSError as error:
        raise NoAnswerError(error.strerror or str(error)) from error
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        names = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        request = connection.send(h11.Request(method=method, target=target, headers=list(names.items()))) or b""
        rest = (connection.send(h11.Data(data=body)) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        with suppress(trio.BrokenResourceError):  # a server that refuses a body need not read all of it
            await stream.send_all(request + rest)
        answer = Answer(stream, connection)
        await answer.begin()
        yield answer


class Answer:
    """What the other side answers; for one reader.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self.status = 0
        self._stream = stream
        self._connection = connection

    async def begin(self) -> None:
        """Wait for the status."""
        event = await self._next_event()
        if not isinstance(event, h11.Response):
            raise NoAnswerError(f"the answer begins with {type(event).__name__}")
        self.status = event.status_code

    async def receive(self) -> bytes:
        """Return the next piece of the content; empty at its end.

        Cancelling is safe: the piece is not lost.

        Raises:
            NoAnswerError: the connection ended before the content did.
        """
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read(self, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the whole content.

        Raises:
            NoAnswerError: the connection ended before the content did, or it is larger than `max_bytes`.
        """
        content = bytearray()
        while piece := await self.receive():
            content += piece
            if len(content) > max_bytes:
                raise NoAnswerError(f"the answer is larger than {max_bytes:,} bytes")
        return bytes(content)

    async def _next_event(self) -> object:
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
                if not data and not self.status:
                    raise NoAnswerError("it closed the connection without an answer")
                self._connection.receive_data(data)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise NoAnswerError(str(error) or "the connection was lost") from error
        return event
