"""Hosts that are relays, hosts behind them, and peers that speak with relays as they like."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from libp2p.abc import IMuxedStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError

from node.background import open_background
from node.net.admission import InboundLimits
from node.net.host import MAX_CONNECTIONS_PER_PEER, HardenedHost, HostConfig, open_host
from node.net.relay.client import RelayClient
from node.net.relay.messages import HOP, STOP, Length, Message, decode_hop, encode_hop
from node.net.relay.reservations import RelayLimits
from node.net.relay.service import RelayService
from protocol import PeerId
from tests.integration.foreign_peers import ECHO, ForeignPeer
from tests.integration.host_process import echo
from tests.integration.hosts import LOOPBACK, address_of


@dataclass(frozen=True, slots=True)
class Relay:
    """A host that is a relay.

    Attributes:
        host: the host.
        service: what it does for others.
    """

    host: HardenedHost
    service: RelayService

    @property
    def address(self) -> str:
        """Where it is reached."""
        return address_of(self.host)


@dataclass(frozen=True, slots=True)
class Hidden:
    """A host that listens nowhere, and is reached through relays.

    Attributes:
        host: the host.
        client: what it has at relays.
    """

    host: HardenedHost
    client: RelayClient

    @property
    def peer_id(self) -> ID:
        """Who it is."""
        return self.host.get_id()

    def address_at(self, relay: str) -> str:
        """Where it would be reached through a relay at an address."""
        return f"{relay}/p2p-circuit/p2p/{self.peer_id}"


@asynccontextmanager
async def relay_host(
    *,
    listen: str = LOOPBACK,
    key_pair: KeyPair | None = None,
    limits: RelayLimits | None = None,
    users: frozenset[PeerId] = frozenset(),
) -> AsyncIterator[Relay]:
    """A relay."""
    async with open_host(HostConfig(key_pair=key_pair or create_new_key_pair(), listen=(listen,))) as host:
        nursery = host.get_network().nursery
        service = RelayService(host, nursery, lambda: [address_of(host)], users=users, epoch_s=time.time, limits=limits)
        host.set_stream_handler(HOP, service.serve)
        yield Relay(host, service)


class RestartableRelay:
    """A relay that goes away, and comes back where it was."""

    def __init__(self) -> None:
        self._key_pair = create_new_key_pair()
        self._listen = LOOPBACK
        self._stop = trio.Event()
        self._stopped = trio.Event()

    async def start(self, nursery: trio.Nursery) -> str:
        """Let it run, and return its address, which stays the same."""
        self._stop, self._stopped = trio.Event(), trio.Event()
        address: str = await nursery.start(self._run)
        self._listen = address.partition("/p2p/")[0]
        return address

    async def stop(self) -> None:
        """Return when it is gone."""
        self._stop.set()
        await self._stopped.wait()

    async def _run(self, task_status: trio.TaskStatus[str]) -> None:
        async with relay_host(listen=self._listen, key_pair=self._key_pair) as relay:
            task_status.started(relay.address)
            await self._stop.wait()
        self._stopped.set()


@asynccontextmanager
async def hidden_host(
    *relays: str,
    key_pair: KeyPair | None = None,
    connections_per_peer: int = MAX_CONNECTIONS_PER_PEER,
    inbound: InboundLimits | None = None,
) -> AsyncIterator[Hidden]:
    """A host that echoes, and has tried to reserve at relays."""
    made = HostConfig(
        key_pair=key_pair or create_new_key_pair(),
        max_connections_per_peer=connections_per_peer,
        inbound=inbound or InboundLimits(),
    )
    async with open_host(made) as host, open_background() as nursery:
        host.set_stream_handler(ECHO, echo)
        client = RelayClient(
            host, host.get_network(), relays, on_change=_do_nothing, epoch_s=time.time, rng=random.Random(0)
        )
        host.set_stream_handler(STOP, client.accept)
        nursery.start_soon(client.run)
        await client.wait_tried()
        yield Hidden(host, client)


async def ask(peer: ForeignPeer, question: Message | bytes) -> Message | None:
    """What a relay answers to a message, or to bytes; None when it ends the stream without a word."""
    stream = await peer.open(HOP)
    return await ask_over(stream, question)


async def ask_over(stream: IMuxedStream, question: Message | bytes) -> Message | None:
    """The same over a stream that is open."""
    try:
        await stream.write(question if isinstance(question, bytes) else encode_hop(question))
        length = Length()
        while (size := length.feed((await stream.read(1))[0])) is None:
            pass
        body = b""
        while len(body) < size:
            body += await stream.read(size - len(body))
    except (MuxedStreamEOF, MuxedStreamError):
        return None
    return decode_hop(body)


def _do_nothing() -> None:
    pass
