"""The raw floor: what a request and its answer cost over one open libp2p stream, without any bookkeeping of tasks.

Through the same host factory as a node, with the same coalescing writer, and with msgpack and pydantic at both ends:
what peertask adds is the difference to this.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from node.net.host import HardenedHost, HostConfig, dial, open_host

ECHO = TProtocol("/peertask-bench/echo/1.0.0")
STREAM = TProtocol("/peertask-bench/stream/1.0.0")
SINK_READ_BYTES = 256 * 1024
WRITE_BYTES = 60 * 1024
_PREFIX_BYTES = 4


@dataclass(frozen=True, slots=True)
class Request:
    """As large as a no-op task: an id to answer to, and a body."""

    id: int
    body: str


_validate = TypeAdapter(Request).validator.validate_python


def _encode(request: Request) -> bytes:
    body: bytes = msgpack.packb({"id": request.id, "body": request.body})
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


class Pipe:
    """Correlates requests and answers on one stream, with a coalescing writer."""

    def __init__(self, stream: INetStream, *, answers: bool) -> None:
        self._stream = stream
        self._answers = answers
        self._queue: list[bytes] = []
        self._news = trio.Event()
        self._waiting: dict[int, trio.Event] = {}
        self._next_id = 0

    async def call(self, body: str) -> None:
        """Send a request, and return when it is answered."""
        self._next_id += 1
        request = Request(self._next_id, body)
        answered = self._waiting[request.id] = trio.Event()
        self._send(request)
        await answered.wait()

    def _send(self, request: Request) -> None:
        self._queue.append(_encode(request))
        self._news.set()

    async def write(self) -> None:
        """Write what is queued until cancelled, which must come after the end of the connection."""
        while True:
            if not self._queue:
                self._news = trio.Event()
                await self._news.wait()
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            batch, self._queue = b"".join(self._queue), []
            for start in range(0, len(batch), WRITE_BYTES):
                await self._stream.write(batch[start : start + WRITE_BYTES])

    async def read(self) -> None:
        """Read until the stream ends."""
        buffer = bytearray()
        while True:
            try:
                data = await self._stream.read(SINK_READ_BYTES)
            except BaseLibp2pError:
                return
            if not data:
                return
            buffer += data
            self._take_all(buffer)

    def _take_all(self, buffer: bytearray) -> None:
        data, start = bytes(buffer), 0
        while len(data) - start >= _PREFIX_BYTES:
            end = start + _PREFIX_BYTES + int.from_bytes(data[start : start + _PREFIX_BYTES], "big")
            if end > len(data):
                break
            self._take(_validate(msgpack.unpackb(data[start + _PREFIX_BYTES : end])))
            start = end
        del buffer[:start]

    def _take(self, request: Request) -> None:
        if self._answers:
            self._send(Request(request.id, request.body))
        else:
            self._waiting.pop(request.id).set()


async def _serve_echo(stream: INetStream) -> None:
    try:
        while data := await stream.read(SINK_READ_BYTES):
            for start in range(0, len(data), WRITE_BYTES):
                await stream.write(data[start : start + WRITE_BYTES])
    except BaseLibp2pError:
        return


async def _serve_stream(stream: INetStream) -> None:
    pipe = Pipe(stream, answers=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.write)
        await pipe.read()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serve_floor() -> AsyncIterator[str]:
    """Answer floor requests for the length of the context; gives the address to dial."""
    async with open_host(HostConfig(key_pair=create_new_key_pair(), listen=("/ip4/127.0.0.1/tcp/0",))) as host:
        host.set_stream_handler(ECHO, _serve_echo)
        host.set_stream_handler(STREAM, _serve_stream)
        yield str(host.get_addrs()[0])


class Floor:
    """The client side of the floor."""

    def __init__(self, host: HardenedHost, address: str) -> None:
        self._host = host
        self._peer = ID.from_string(address.rsplit("/", 1)[1])

    async def echo_ms(self, rounds: int, size: int) -> list[float]:
        """Return the round trips, in milliseconds, of bytes echoed one after the other."""
        stream = await self._host.new_stream(self._peer, [ECHO])
        samples, data = [], b"x" * size
        for _ in range(rounds):
            begin = time.perf_counter()
            await stream.write(data)
            await self._receive(stream, size)
            samples.append((time.perf_counter() - begin) * 1000)
        await stream.close()
        return samples

    async def _receive(self, stream: INetStream, size: int) -> None:
        missing = size
        while missing > 0:
            missing -= len(await stream.read(min(missing, SINK_READ_BYTES)))

    async def payload_s(self, size: int) -> float:
        """Return how long a payload takes there and back, in seconds, written and read at the same time."""
        stream = await self._host.new_stream(self._peer, [ECHO])
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, stream, size)
            for _ in range(size // WRITE_BYTES):
                await stream.write(bytes(WRITE_BYTES))
            await stream.write(bytes(size % WRITE_BYTES))
        taken = time.perf_counter() - begin
        await stream.close()
        return taken

    async def rate(self, seconds: float, loops: int, body: str) -> float:
        """Return requests per second of so many callers, each one request after the other."""
        pipe = Pipe(await self._host.new_stream(self._peer, [STREAM]), answers=False)
        done = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.write)
            nursery.start_soon(pipe.read)
            begin = time.perf_counter()

            async def caller() -> None:
                nonlocal done
                while True:
                    await pipe.call(body)
                    done += 1
                    if time.perf_counter() - begin >= seconds:
                        return

            async with trio.open_nursery() as callers:
                for _ in range(loops):
                    callers.start_soon(caller)
            taken = time.perf_counter() - begin
            nursery.cancel_scope.cancel()
        return done / taken


@asynccontextmanager
async def open_floor(address: str) -> AsyncIterator[Floor]:
    """Connect to a process that serves the floor."""
    async with open_host(HostConfig(key_pair=create_new_key_pair())) as host:
        await dial(host, [address])
        yield Floor(host, address)
