"""Hosts under test, in this process and in others."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from node.net.admission import InboundLimits
from node.net.host import MAX_CONNECTIONS, HardenedHost, HostConfig, open_host
from tests.integration.foreign_peers import ECHO
from tests.integration.host_process import echo

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def config(*listen: str, key_pair: KeyPair | None = None) -> HostConfig:
    """A host of a test, with an identity of its own unless given."""
    return HostConfig(key_pair=key_pair or create_new_key_pair(), listen=listen)


@asynccontextmanager
async def server(
    *listen: str,
    key_pair: KeyPair | None = None,
    max_connections: int = MAX_CONNECTIONS,
    inbound: InboundLimits | None = None,
) -> AsyncIterator[HardenedHost]:
    """A host that listens and echoes."""
    made = HostConfig(
        key_pair=key_pair or create_new_key_pair(),
        listen=listen or (LOOPBACK,),
        max_connections=max_connections,
        inbound=inbound or InboundLimits(),
    )
    async with open_host(made) as host:
        host.set_stream_handler(ECHO, echo)
        yield host


def address_of(host: HardenedHost) -> str:
    """Where a host is reached, with its peer id."""
    return str(host.get_addrs()[0])


async def echoes(client: HardenedHost, peer_id: ID, text: bytes = b"hello") -> bool:
    """Whether a peer answers over a new stream of the connection that there is."""
    stream = await client.new_stream(peer_id, [ECHO])
    await stream.write(text)
    answer = b""
    while len(answer) < len(text):
        answer += await stream.read(len(text) - len(answer))
    await stream.close()
    return answer == text


async def becomes_true(condition: Callable[[], bool]) -> None:
    """Wait for something that real sockets bring about; the caller bounds the wait."""
    while not condition():
        await trio.sleep(0.02)


@dataclass
class HostProcess:
    """A host in another process."""

    process: subprocess.Popen[str]
    address: str

    async def weigh(self) -> dict[str, int]:
        """Its memory, open files, tasks and connections."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return await self._answer()

    async def _answer(self) -> dict[str, int]:
        assert self.process.stdout is not None
        line = await trio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
        return dict(json.loads(line))


@asynccontextmanager
async def host_process() -> AsyncIterator[HostProcess]:
    """A running host; it is gone at the end, also when it is frozen."""
    command = [sys.executable, "-m", "tests.integration.host_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            line = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
            yield HostProcess(process, json.loads(line)["address"])
        finally:
            process.kill()


async def free_port() -> int:
    """A port of this machine that nobody listens on."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    return int(port)
