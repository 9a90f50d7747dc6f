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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, cast

import structlog
import trio
from libp2p.abc import IHost, INetConn, INetStream, IPeerStore
from libp2p.crypto.keys import KeyPair, PrivateKey, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.exceptions import StreamFailure
from libp2p.host.ping import ID as PING
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.connection import swarm_connection
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectError
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from libp2p.tools.anyio_service import TrioManager
from multiaddr import Multiaddr

from node.net.addresses import Endpoint, dialable_endpoints, listening_endpoints, parse_peer_id
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


class HardenedHost:
    """A libp2p host whose streams cannot hurt it and which asks nobody who they are.

    It is what libp2p's own is of which peertask has a use: streams that agree on a protocol, and answers to identify
    and ping, so that foreign peers learn what it speaks and that it lives. It does not ask for either, because the
    session's own Hello says more: that would cost a stream per connection, and an entry in memory for every peer ever
    seen. libp2p's also loads name services, web clients and port mappers: 15 MB and 0.4 s at every start.

    Args:
        swarm: its connections.
    """

    def __init__(self, swarm: HardenedSwarm) -> None:
        self._swarm = swarm
        host = cast("IHost", self)  # what the answers to identify and ping need of one
        handlers: dict[TProtocol | None, StreamHandlerFn | None] = {
            IDENTIFY: identify_handler_for(host),
            PING: PingService(host).handle_ping,
        }
        self._offered = Multiselect(handlers)
        self._wanted = MultiselectClient()
        swarm.set_stream_handler(self._serve)
        swarm.open_circuit = self._open_circuit

    def get_id(self) -> ID:
        """Who this node is."""
        return self._swarm.get_peer_id()

    def get_network(self) -> HardenedSwarm:
        """Return its connections."""
        return self._swarm

    def get_peerstore(self) -> IPeerStore:
        """Return the keys and addresses of peers."""
        return self._swarm.peerstore

    def get_public_key(self) -> PublicKey:
        """Return the key that others know this node by."""
        return self._swarm.peerstore.pubkey(self.get_id())

    def get_private_key(self) -> PrivateKey:
        """Return the key that proves who this node is."""
        return self._swarm.peerstore.privkey(self.get_id())

    def get_mux(self) -> Multiselect:
        """Return the protocols that it serves."""
        return self._offered

    def get_transport_addrs(self) -> list[Multiaddr]:
        """Return where it listens."""
        return [address for listener in self._swarm.listeners.values() for address in listener.get_addrs()]

    def get_addrs(self) -> list[Multiaddr]:
        """Return where it listens, with its peer id."""
        suffix = Multiaddr(f"/p2p/{self.get_id()}")
        return [address.encapsulate(suffix) for address in self.get_transport_addrs()]

    def set_stream_handler(self, protocol_id: TProtocol, stream_handler: StreamHandlerFn) -> None:
        """Serve the streams of a protocol."""
        self._offered.add_handler(protocol_id, stream_handler)

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream to a connected peer.

        Raises:
            StreamFailure: the peer speaks none of the protocols, or did not say so in time; its cause says why.
        """
        return await self._agree(await self._swarm.new_stream(peer_id), protocol_ids)

    async def open_stream(self, connection: INetConn, protocol: TProtocol) -> INetStream:
        """Open a stream of a certain connection.

        Raises:
            StreamFailure: the peer does not speak the protocol, or did not say so in time; its cause says why.
            MuxedStreamError: the connection has ended.
        """
        return await self._agree(await connection.new_stream(), (protocol,))

    async def _agree(self, stream: INetStream, protocol_ids: Sequence[TProtocol]) -> INetStream:
        make_prompt(stream, "_state_lock")
        limit_s = int(self._swarm.connection_config.outbound_stream_protocol_negotiation_timeout)
        try:
            protocol = await self._wanted.select_one_of(protocol_ids, MultiselectCommunicator(stream), limit_s)
        except BaseException as error:
            with trio.CancelScope(shield=True), suppress(BaseLibp2pError):
                await stream.reset()
            if isinstance(error, MultiselectClientError):
                peer_id = stream.muxed_conn.peer_id
                raise StreamFailure(f"failed to open a stream to peer {peer_id}") from error
            raise
        stream.set_protocol(protocol)
        return stream

    async def close(self) -> None:
        """Close every connection with a goodbye. Idempotent."""
        await self._swarm.close()

    async def _open_circuit(self, endpoint: Endpoint) -> trio.abc.Stream:
        from node.net.relay.dialling import open_circuit  # noqa: PLC0415 - few nodes dial through a relay

        return await open_circuit(self, self._swarm, endpoint)

    async def _serve(self, stream: INetStream) -> None:
        """Agree on a protocol, and hand the stream to its handler; what goes wrong ends the stream and nothing else."""
        make_prompt(stream, "_state_lock")
        if _too_many_streams(stream):
            await stream.reset()
            return
        try:
            handler = await self._negotiate(stream)
            if handler is None:
                await stream.reset()
            else:
                await handler(stream)
        except Exception as error:  # noqa: BLE001 - in libp2p it would end the host: this is the last place to catch it
            _report_stream_failure(stream, error)
            await stream.reset()

    async def _negotiate(self, stream: INetStream) -> StreamHandlerFn | None:
        """Return who serves the protocol that the peer asks for; None when it asks for none that is served."""
        limit_s = int(self._swarm.connection_config.inbound_stream_protocol_negotiation_timeout)
        try:
            protocol, handler = await self._offered.negotiate(MultiselectCommunicator(stream), limit_s)
        except MultiselectError:
            return None
        if protocol is not None:
            stream.set_protocol(protocol)
        return handler


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
    manager = TrioManager(host.get_network())
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


async def dial(host: HardenedHost, addresses: Sequence[str], peer_id: str = "") -> INetConn:
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
        return await host.get_network().dial_endpoints(ID.from_string(expected), endpoints)
    except WrongPeer as error:
        if own in error.message:
            raise SelfDial(f"{error.message}, and that is this node itself", remedy=error.remedy) from error
        raise


async def abort_connection(host: HardenedHost, peer_id: ID) -> None:
    """End all connections with a peer without waiting for it, frozen or not.

    Blocked readers of its streams see `StreamEOF`, writers `StreamReset`; afterwards the peer is not connected and may
    be dialled again. Nothing happens when there is no connection.
    """
    for connection in host.get_network().get_connections(peer_id):
        if isinstance(connection.muxed_conn, HardenedYamux):
            await connection.muxed_conn.abort()
        await connection.close()


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


async def _shut_down(host: HardenedHost, running: trio.CancelScope) -> None:
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
