"""The only way in this project to make a libp2p host: TCP or WebSocket, Noise, Yamux, and the defects of 0.8.1 cured.

What the host does differently from libp2p's own (tests/integration/test_host_*.py have a contract test for each):

- a slot for an inbound connection is given back when the connection ends, not when the host does;
- an exception in a stream handler, or a malformed negotiation, ends that stream and nothing else;
- only encrypted and authenticated connections: no plaintext, no secio, no TLS, no mplex;
- peers that come and vanish are gone at once, and floods from one address are turned away;
- it dials when it is told to, without a fixed delay, and a failure does not block the peer for a minute.

One defect cannot be cured here: cancelling a read or write of a stream can corrupt its whole connection. Users of a
stream never cancel its I/O; they put deadlines on waits in memory, and end a connection as a whole.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetConn, INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.connection import swarm_connection
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from libp2p.tools.anyio_service import TrioManager
from multiaddr import Multiaddr

from node.net.addresses import dialable_endpoints, listening_endpoints, parse_peer_id
from node.net.admission import InboundLimits
from node.net.errors import HostStopped, InvalidAddress, SelfDial, WrongPeer
from node.net.libp2p_pin import require_names, require_pinned_libp2p
from node.net.locks import make_prompt
from node.net.muxer import HardenedUpgrader, HardenedYamux
from node.net.swarm import ConnectionLimits, HardenedSwarm

MAX_CONNECTIONS: Final = 512
"""Connections of one host, both directions: half of the 1,024 files that a process may open by default."""

MAX_CONNECTIONS_PER_PEER: Final = 3
"""One that works, one from a simultaneous dial of both sides, and one that is dead and not noticed yet."""

MAX_STREAMS_PER_CONNECTION: Final = 128
"""Open streams of one connection: a session needs two; js-libp2p opens up to 64 of one protocol at a time."""

SHUTDOWN_S: Final = 5.0
"""How long the orderly end of a host may take before its tasks are cancelled where they stand."""

_PRIVATE_NAMES: Final = (
    (BasicHost, "_swarm_stream_handler"),
    (BasicHost, "_schedule_identify"),
    (Swarm, "_init_connection_management"),
    (Yamux, "_write_frame"),
    (Yamux, "_cleanup_on_error"),
    (Yamux, "_measure_rtt_loop"),
    (Yamux, "_stale_stream_sweeper"),
    (Yamux, "_sweep_stale_streams"),
    (YamuxStream, "_apply_autotune_epoch"),
    (YamuxStream, "_auto_tune_and_send_window_update"),
    (swarm_connection, "logging"),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What a host is made from.

    Attributes:
        key_pair: the identity (see `node.net.identity`).
        listen: addresses to listen on, such as /ip4/0.0.0.0/tcp/4001 or /ip4/127.0.0.1/tcp/0/ws; none to only dial.
        max_connections: connections in all; an eighth is kept for outbound ones.
        max_connections_per_peer: connections with one peer.
        inbound: limits on who may come in, per remote address and second.
    """

    key_pair: KeyPair = field(repr=False)
    listen: tuple[str, ...] = ()
    max_connections: int = MAX_CONNECTIONS
    max_connections_per_peer: int = MAX_CONNECTIONS_PER_PEER
    inbound: InboundLimits = field(default_factory=InboundLimits)


class HardenedHost(BasicHost):
    """A libp2p host whose streams cannot hurt it and which asks nobody who they are.

    It answers identify, so that foreign peers learn its protocols; it does not ask, because the session's own Hello
    says more: that would cost a stream per connection, and an entry in memory for every peer ever seen.
    """

    def __init__(self, swarm: HardenedSwarm) -> None:
        super().__init__(swarm, disable_identify_address_discovery=True)
        self.remove_stream_handler(ID_PUSH)  # what a peer pushes would be kept for hours, and nobody reads it

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream to a connected peer."""
        stream = await super().new_stream(peer_id, protocol_ids)
        make_prompt(stream, "_state_lock")
        return stream

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        make_prompt(net_stream, "_state_lock")
        if _too_many_streams(net_stream):
            await net_stream.reset()
            return
        try:
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:  # noqa: BLE001 - in libp2p it would end the host: this is the last place to catch it
            _report_stream_failure(net_stream, error)
            await net_stream.reset()

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        """Ask nobody."""


def create_host(config: HostConfig) -> HardenedHost:
    """Make a host; it does nothing until it runs (see `open_host`).

    Raises:
        InvalidAddress: an address cannot be listened on.
        UnsupportedLibp2p: libp2p is not the pinned one.
    """
    require_pinned_libp2p()
    require_names(_PRIVATE_NAMES)
    _keep_root_logger_untouched()
    listening_endpoints(config.listen)
    noise = NoiseTransport(config.key_pair, noise_privkey=create_noise_key_pair().private_key)
    upgrader = HardenedUpgrader({NOISE: noise}, {TProtocol(YAMUX): HardenedYamux})
    limits = ConnectionLimits(config.max_connections, config.max_connections_per_peer, config.inbound)
    peer_id = ID.from_pubkey(config.key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, config.key_pair)
    return HardenedHost(HardenedSwarm(peer_id, peerstore, upgrader, limits))


@asynccontextmanager
async def open_host(config: HostConfig) -> AsyncIterator[HardenedHost]:
    """Run a host that listens, for the length of the block.

    However the block ends, connections are closed with a goodbye, ports are free again and no task is left, within
    `SHUTDOWN_S`. Exceptions of the block come out as they are, not in groups.

    Raises:
        InvalidAddress: an address cannot be listened on.
        CannotListen: the operating system refused an address.
        HostStopped: the host ended by itself; the block was cancelled.
    """
    host = create_host(config)
    manager = TrioManager(_swarm_of(host))
    running = trio.CancelScope(shield=True)  # cancelled, it would leave its sockets open: it ends when it is told to
    failure: BaseException | None = None
    defect: list[Exception] = []
    async with trio.open_nursery() as nursery:
        try:
            with trio.CancelScope() as block:
                nursery.start_soon(_run, manager, running, block, defect)
                with trio.CancelScope(shield=True):
                    await manager.wait_started()
                await host.get_network().listen(*map(Multiaddr, config.listen))
                yield host
        except BaseException as error:  # noqa: BLE001 - raised again below, outside of the nursery that would wrap it
            failure = error
        with trio.CancelScope(shield=True):
            await _shut_down(host, running)
    if defect:
        raise HostStopped("the libp2p host ended by itself", remedy="Restart the node and report this") from defect[0]
    if failure is not None:
        raise failure


async def dial(host: IHost, addresses: Sequence[str], peer_id: str = "") -> INetConn:
    """Connect to a peer, or return the connection that there is.

    Addresses are tried in their order, overlapping. Cancelling is safe at any time and leaves no connection behind.

    Args:
        host: this node.
        addresses: where the peer may be.
        peer_id: who must answer; may be left out when the addresses end in /p2p/<peer id>.

    Raises:
        InvalidAddress: an address or the peer id is malformed, or they contradict each other.
        SelfDial: the peer is this node.
        PeerUnreachable: no address answers, or none can be used; the message has the reason for each.
        WrongPeer: another peer answers.
    """
    endpoints = dialable_endpoints(addresses)
    expected = _expected_peer({endpoint.peer_id for endpoint in endpoints} - {""}, peer_id)
    own = str(host.get_id())
    if expected == own:
        raise SelfDial(f"peer {own} is this node itself", remedy="Give the address of another node")
    try:
        return await _swarm_of(host).dial_endpoints(ID.from_string(expected), endpoints)
    except WrongPeer as error:
        if own in error.message:
            raise SelfDial(f"{error.message}, and that is this node itself", remedy=error.remedy) from error
        raise


async def abort_connection(host: IHost, peer_id: ID) -> None:
    """End all connections with a peer without waiting for it, frozen or not.

    Blocked readers of its streams see `StreamEOF`, writers `StreamReset`; afterwards the peer is not connected and may
    be dialled again. Nothing happens when there is no connection.
    """
    for connection in _swarm_of(host).get_connections(peer_id):
        if isinstance(connection.muxed_conn, HardenedYamux):
            await connection.muxed_conn.abort()
        await connection.close()


def _swarm_of(host: IHost) -> HardenedSwarm:
    network = host.get_network()
    if not isinstance(network, HardenedSwarm):
        raise TypeError("the host was not made by node.net.host")
    return network


def _expected_peer(named: set[str], peer_id: str) -> str:
    expected = named | ({parse_peer_id(peer_id)} if peer_id else set())
    if len(expected) != 1:
        found = f"the addresses and the peer id name {len(expected)} peers" if expected else "nobody is named"
        raise InvalidAddress(f"cannot tell whom to dial: {found}", remedy="End the address with /p2p/<peer id>")
    return expected.pop()


async def _run(
    manager: TrioManager, running: trio.CancelScope, block: trio.CancelScope, defect: list[Exception]
) -> None:
    try:
        with running:
            await manager.run()
    except Exception as error:  # noqa: BLE001 - reported by open_host, which has to shut down first
        defect.append(error)
        block.cancel()


async def _shut_down(host: BasicHost, running: trio.CancelScope) -> None:
    with trio.move_on_after(SHUTDOWN_S):
        await host.close()
    running.cancel()


def _keep_root_logger_untouched() -> None:
    # This module of libp2p logs through the functions of `logging` itself, the first call of which gives the root
    # logger a handler on stderr, behind the back of whoever configures logging later.
    vars(swarm_connection)["logging"] = logging.getLogger(swarm_connection.__name__)


def _too_many_streams(stream: INetStream) -> bool:
    connection = stream.swarm_conn if isinstance(stream, NetStream) else None
    return connection is not None and len(connection.streams) > MAX_STREAMS_PER_CONNECTION


def _report_stream_failure(stream: INetStream, error: Exception) -> None:
    peer_id, protocol = str(stream.muxed_conn.peer_id), stream.get_protocol()
    if protocol is None:
        _log.info("a peer sent a malformed negotiation", peer_id=peer_id, error=repr(error))
    elif isinstance(error, StreamError):  # what every peer can cause must not fill the log with tracebacks
        _log.info("a peer ended a stream early", peer_id=peer_id, protocol=str(protocol), error=repr(error))
    else:
        _log.error("a stream handler failed", peer_id=peer_id, protocol=str(protocol), exc_info=error)
