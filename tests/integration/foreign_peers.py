"""Peers that node.net.host did not make: libp2p's own parts, put together by hand, polite or not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from libp2p.abc import IMuxedStream, ISecureTransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TMuxerClass, TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.upgrader import TransportUpgrader

from node.net.addresses import Endpoint, parse_endpoint
from node.net.streams import ByteStream

ECHO = TProtocol("/test/echo/1.0.0")

Muxers = Mapping[TProtocol, TMuxerClass]
Securities = Mapping[TProtocol, ISecureTransport]

YAMUX_ONLY: Muxers = {TProtocol(YAMUX): Yamux}


def noise_only(key_pair: KeyPair) -> Securities:
    """What an honest peer offers."""
    return {NOISE: NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)}


@dataclass(frozen=True, slots=True)
class ForeignPeer:
    """A connection that libp2p's own Yamux carries."""

    connection: Yamux

    async def open(self, protocol: TProtocol = ECHO) -> IMuxedStream:
        """Open a stream and agree on a protocol."""
        stream = await self.connection.open_stream()
        await MultiselectClient().select_one_of((protocol,), MultiselectCommunicator(stream))
        return stream

    async def is_served(self, text: bytes = b"hello") -> bool:
        """Whether an echo comes back over a new stream."""
        stream = await self.open()
        await stream.write(text)
        echo = b""
        while len(echo) < len(text):
            echo += await stream.read(len(text) - len(echo))
        await stream.close()
        return echo == text


async def upgrade(tcp: trio.SocketStream, peer_id: str, securities: Securities, muxers: Muxers = YAMUX_ONLY) -> Yamux:
    """Encrypt and multiplex a fresh TCP connection the way libp2p's dialler does."""
    upgrader = TransportUpgrader(securities, muxers)
    raw = RawConnection(ByteStream(tcp, None), initiator=True)
    secured = await upgrader.upgrade_security(raw, is_initiator=True, peer_id=ID.from_string(peer_id))
    muxed = await upgrader.upgrade_connection(secured, secured.get_remote_peer())
    assert isinstance(muxed, Yamux)
    return muxed


async def tcp_from(endpoint: Endpoint, source: str) -> trio.SocketStream:
    """A TCP connection from a chosen address of this machine."""
    return await trio.open_tcp_stream(endpoint.host, endpoint.port, local_address=source)


@asynccontextmanager
async def foreign_peer(
    address: str, key_pair: KeyPair | None = None, source: str = "127.0.0.1"
) -> AsyncIterator[ForeignPeer]:
    """A connected peer; at the end it vanishes without a goodbye."""
    endpoint = parse_endpoint(address)
    async with await tcp_from(endpoint, source) as tcp, trio.open_nursery() as nursery:
        connection = await upgrade(tcp, endpoint.peer_id, noise_only(key_pair or create_new_key_pair()))
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        yield ForeignPeer(connection)
        nursery.cancel_scope.cancel()


async def connect_and_vanish(address: str) -> None:
    """Become an authenticated peer of a host, and close the socket in the same moment."""
    endpoint = parse_endpoint(address)
    async with await tcp_from(endpoint, "127.0.0.1") as tcp:
        await upgrade(tcp, endpoint.peer_id, noise_only(create_new_key_pair()))


async def hears_the_end(tcp: trio.SocketStream) -> None:
    """Read until the other side closes, whatever it says before."""
    while await tcp.receive_some(65_536):
        pass


async def is_turned_away(address: str, source: str) -> bool:
    """Whether a connection from an address of this machine is closed before the first word of libp2p."""
    endpoint = parse_endpoint(address)
    async with await tcp_from(endpoint, source) as tcp:
        return await tcp.receive_some(1) == b""
