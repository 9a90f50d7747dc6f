"""An answer that streams events.

It is an ASGI application of our own, because a watch of tasks must be entered and left by the same task: in the
async generator that other libraries ask for, its scopes could be torn down from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from node.gateways.http.events import encode_event

_KEEP_ALIVE: Final = b": still here\n\n"

Emit = Callable[[bytes], Awaitable[None]]


class Stopping:
    """Ends what would otherwise wait for the node to do something, when the node stops.

    hypercorn waits for every open answer before it ends.
    """

    def __init__(self) -> None:
        self.begun = False
        self._scopes: set[trio.CancelScope] = set()

    @contextmanager
    def ends(self) -> Iterator[None]:
        """Be cut short, and go on after the context, when the node stops."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self.begun:
                    scope.cancel()
                yield
            finally:
                self._scopes.discard(scope)

    def begin(self) -> None:
        """End every context of `ends`, and those to come."""
        self.begun = True
        for scope in self._scopes:
            scope.cancel()


class EventStream(Response):
    """An answer that streams events until its source ends, the client goes, or the node stops.

    Args:
        source: sends events one by one, through what it is given, and returns after the last.
        stopping: ends the stream with an event named ``stopping``.
        keep_alive_s: how often a comment goes out, in seconds.
    """

    media_type = "text/event-stream"

    def __init__(self, source: Callable[[Emit], Awaitable[None]], stopping: Stopping, keep_alive_s: float) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._stopping = stopping
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await self._stream(receive, send)
        await send(_chunk(b"", more=False))

    async def _stream(self, receive: Receive, send: Send) -> None:
        one_at_a_time = trio.Lock()

        async def emit(data: bytes) -> None:
            async with one_at_a_time:
                await send(_chunk(data, more=True))

        with self._stopping.ends():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_leave_with_client, receive, nursery.cancel_scope)
                nursery.start_soon(_keep_alive, emit, self._keep_alive_s)
                await self._source(emit)
                nursery.cancel_scope.cancel()
        if self._stopping.begun:
            await emit(encode_event("stopping"))


def _chunk(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _leave_with_client(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _keep_alive(emit: Emit, every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        await emit(_KEEP_ALIVE)
