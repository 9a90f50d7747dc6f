"""Servers that are no Redis servers, and a proxy that loses answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

Answer = Callable[[trio.SocketStream], Awaitable[None]]


async def answer_html(stream: trio.SocketStream) -> None:
    """A web server at the wrong port."""
    await stream.receive_some(4096)
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>")


async def answer_nonsense(stream: trio.SocketStream) -> None:
    """Well-formed, but no answer to what was asked."""
    await stream.receive_some(4096)
    await stream.send_all(b"+OK\r\n")


async def answer_old(stream: trio.SocketStream) -> None:
    """A Redis server before version 6."""
    await stream.receive_some(4096)
    await stream.send_all(b"-ERR unknown command 'HELLO'\r\n")


async def answer_drops(stream: trio.SocketStream) -> None:
    """A byte at a time, never to the end."""
    while True:
        await stream.send_all(b"*")
        await trio.sleep(0.05)


async def answer_nothing(_stream: trio.SocketStream) -> None:
    """A process that hangs."""


async def answer_end(stream: trio.SocketStream) -> None:
    """A proxy without a server behind it."""
    await stream.aclose()


@asynccontextmanager
async def fake_server(answer: Answer) -> AsyncIterator[int]:
    """Listen for the length of the context, and answer each connection as told; yields the port."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await answer(stream)
                await trio.sleep_forever()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class LosingProxy:
    """Stands between a node and its server, and can lose an answer with the connection.

    Attributes:
        port: where it listens.
        lose_next_answer: whether to lose the next one; false again when it is lost.
        broken: how many connections have ended with an error.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.lose_next_answer = False
        self.broken = 0
        self._server_port = server_port

    async def serve(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        try:
            async with (
                near,
                await trio.open_tcp_stream("127.0.0.1", self._server_port) as far,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._carry_requests, near, far, nursery.cancel_scope)
                await self._carry_answers(far, near)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken += 1

    async def _carry_requests(self, near: trio.SocketStream, far: trio.SocketStream, end: trio.CancelScope) -> None:
        async for data in near:
            await far.send_all(data)
        end.cancel()

    async def _carry_answers(self, far: trio.SocketStream, near: trio.SocketStream) -> None:
        async for data in far:
            if self.lose_next_answer:
                self.lose_next_answer = False
                return
            await near.send_all(data)


@asynccontextmanager
async def losing_proxy(server_port: int) -> AsyncIterator[LosingProxy]:
    """Run a proxy for the length of the context."""
    proxy = LosingProxy(server_port)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        proxy.port = listener.socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
