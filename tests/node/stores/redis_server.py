"""A real Redis server on a free port of loopback, with a folder of its own, that a test can kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from node.stores.redis import RedisSettings
from node.stores.redis.connection import RedisConnection, connected

PROGRAM = shutil.which("redis-server")
_MISSING = "no redis-server on the PATH (scripts/install-system-packages)"
_Test = TypeVar("_Test", bound=Callable[..., object])
# A server is up in 20 ms; another test may have both cores meanwhile.
START_LIMIT_S = 20


every_test_needs_redis = [pytest.mark.redis, pytest.mark.skipif(PROGRAM is None, reason=_MISSING)]


def needs_redis(test: _Test) -> _Test:
    """Mark a test that needs a server; without the program it is skipped."""
    marked: _Test = pytest.mark.redis(pytest.mark.skipif(PROGRAM is None, reason=_MISSING)(test))
    return marked


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A server that keeps every command that it has answered, on disk.

    Args:
        folder: where it keeps its data.
        options: further options of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, **changed: object) -> RedisSettings:
        """Return settings that lead here, with time for a busy machine."""
        given = {"connection_string": f"127.0.0.1:{self.port}", **changed}
        return RedisSettings(**given)  # type: ignore[arg-type]

    async def start(self) -> None:
        """Start it, and return when it answers."""
        command = [str(PROGRAM), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        lasting = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        self._process = subprocess.Popen(
            [*command, *lasting, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        with trio.fail_after(START_LIMIT_S):
            while not await self._answers():
                await trio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(b"PING\r\n")
                return (await stream.receive_some(64)).startswith((b"+PONG", b"-NOAUTH"))
        except (OSError, trio.BrokenResourceError):
            return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @asynccontextmanager
    async def client(self, **changed: object) -> AsyncIterator[RedisConnection]:
        """Hold a connection to it, for a look at its keys."""
        async with connected(self.settings(**changed)) as connection:
            yield connection


@asynccontextmanager
async def open_server(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """Run a server for the length of the context."""
    server = RedisServer(folder, *options)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
