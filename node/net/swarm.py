"""libp2p's connection layer with its defects cured: what comes in, what goes out, and when a connection ends.

Theory of operation. libp2p 0.8.1 parks a task, and holds a slot, for every connection ever accepted; lets an exception
of one connection stop all of them; waits for ever on a peer that does not read; and dials with a fixed delay, on its
own initiative too. The classes here replace those parts and nothing else. `accept` takes a connection in and lives
exactly as long as the connection; `dial_addr` makes one; both meet in `add_conn`, which registers it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio
from libp2p.abc import IMuxedConn, INetConn
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, PeerStoreError
from multiaddr import Multiaddr

from node.net.addresses import Endpoint, dialable_endpoints, listening_endpoints, parse_endpoint
from node.net.admission import OUTBOUND_SHARE, InboundGate, InboundLimits, Refusal, Visit
from node.net.dialing import first_connection
from node.net.listener import Listener
from node.net.muxer import HardenedUpgrader, HardenedYamux
from node.net.streams import ByteStream, open_tcp, remote_address, websocket_client, websocket_server
from protocol import PeertaskError

HANDSHAKE_S: Final = 5.0
"""From the first byte to a usable connection: five round trips, so enough for a satellite link."""

CONNECT_S: Final = 5.0
"""How long TCP may take to connect: three SYN packets."""

REFUSAL_LOG_INTERVAL_S: Final = 10.0
"""Refused connections are logged together, this often at most: a flood must not fill the disk."""

OpenCircuit = Callable[[Endpoint], Awaitable[trio.abc.Stream]]
"""Makes a circuit to the peer at an address that leads through a relay; cancelling it is safe."""

InboundTransport = Callable[[trio.Nursery], Awaitable[ByteStream]]
"""Makes a connection that came in ready for encryption; what it needs runs in the nursery."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a host keeps.

    Attributes:
        total: both directions together; a part is kept for outbound ones.
        per_peer: with one peer, both directions together.
        inbound: limits on who comes in.
    """

    total: int
    per_peer: int
    inbound: InboundLimits


class PassiveAutoConnector(AutoConnector):
    """Dials nobody and remembers nobody: whom to dial is the node's decision."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Do nothing, where libp2p looks for peers to dial every 30 s."""

    async def maybe_connect(self) -> None:
        """Do nothing, where libp2p dials whoever it has heard of when a connection ends."""

    def record_disconnect(self, peer_id: ID) -> None:
        """Forget the peer, where libp2p keeps an entry for everybody who ever disconnected."""


@dataclass(slots=True)
class _RefusalLog:
    """Sums up refusals."""

    unreported: int = 0
    next_report: float = field(default=float("-inf"))

    def note(self, refusal: Refusal, now: float) -> None:
        self.unreported += 1
        if now >= self.next_report:
            _log.warning("refused inbound connections", number=self.unreported, **_as_fields(refusal))
            self.unreported, self.next_report = 0, now + REFUSAL_LOG_INTERVAL_S


def _as_fields(refusal: Refusal) -> dict[str, str]:
    return {"last_address": refusal.address, "last_reason": refusal.reason}


class HardenedSwarm(Swarm):
    """All connections of a host.

    Args:
        peer_id: this node.
        peerstore: where libp2p keeps what it knows about peers.
        upgrader: encryption and multiplexing.
        limits: how many connections.

    Attributes:
        open_circuit: how a peer behind a relay is reached; the host says so.
    """

    open_circuit: OpenCircuit

    def __init__(self, peer_id: ID, peerstore: PeerStore, upgrader: HardenedUpgrader, limits: ConnectionLimits) -> None:
        config = ConnectionConfig(
            max_connections=limits.total,
            high_watermark=limits.total,  # libp2p closes connections of its own choice above this
            low_watermark=limits.total,
            min_connections=0,
            max_connections_per_peer=limits.per_peer,
        )
        super().__init__(peer_id, peerstore, upgrader, transports=[], connection_config=config)
        self.auto_connector = PassiveAutoConnector(self)
        self._limits = limits
        self._gate = InboundGate(limits.inbound, limits.total - limits.total // OUTBOUND_SHARE)
        self._refusals = _RefusalLog()
        self._handshakes: dict[Visit, trio.CancelScope] = {}
        self._registering: Counter[ID] = Counter()
        self._dials: dict[tuple[ID, bool], trio.Event] = {}

    async def listen(self, *multiaddrs: Multiaddr) -> bool:
        """Listen on all of the addresses.

        Raises:
            InvalidAddress: one cannot be listened on.
            CannotListen: the operating system refused one; those before it are open.
        """
        await self.event_background_nursery_created.wait()
        for endpoint in listening_endpoints(map(str, multiaddrs)):
            listener = Listener(self.nursery, self.accept)
            await listener.listen(Multiaddr(str(endpoint)))
            self.listeners[str(listener.get_addrs()[0])] = listener
        return True

    async def accept(self, tcp: trio.SocketStream, endpoint: Endpoint) -> None:
        """Take a connection in, or turn it away; returns when it has ended, and then its socket may be closed."""
        remote = remote_address(tcp)
        if remote is None:
            return

        async def transport(nursery: trio.Nursery) -> ByteStream:
            return ByteStream(await websocket_server(nursery, tcp) if endpoint.websocket else tcp, remote)

        await self._welcome(remote[0], transport)

    async def accept_circuit(self, circuit: trio.abc.Stream, relay_id: ID, peer_id: ID) -> None:
        """Take a connection in that comes through a relay, as `accept` does; the limits of an address are the relay's.

        Args:
            circuit: to the peer.
            relay_id: the relay.
            peer_id: who is there, by the word of the relay; anybody else is turned away.
        """

        async def transport(_nursery: trio.Nursery) -> ByteStream:
            return ByteStream(circuit, None)

        await self._welcome(f"relay {relay_id}", transport, relay_id=str(relay_id), expected=peer_id)

    async def _welcome(
        self, address: str, transport: InboundTransport, *, relay_id: str = "", expected: ID | None = None
    ) -> None:
        now = trio.current_time()
        visit = self._gate.enter(address, now)
        if isinstance(visit, Refusal):
            self._refusals.note(visit, now)
            return
        try:
            if visit.displaces:
                self._handshakes[visit.displaces].cancel()
            await self._receive(visit, transport, relay_id, expected)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes provoke ends that connection only
            _log.debug("an inbound connection failed", remote=address, error=repr(error))
        finally:
            self._gate.leave(visit)

    async def dial_addr(self, addr: Multiaddr, peer_id: ID, source: tuple[str, int] | None = None) -> INetConn:
        """Make one attempt at one address. Cancelling it closes the socket and leaves nothing behind.

        Args:
            addr: where.
            peer_id: who must answer.
            source: not supported: a node does no hole punching.

        Raises:
            OSError, TooSlowError: no TCP connection.
            CircuitFailed: no circuit.
            Exception: whatever a failed handshake raises in libp2p.
        """
        if source is not None:
            raise SwarmException("a connection cannot be dialled from a chosen port")
        endpoint = parse_endpoint(str(addr))
        transport = await self._connect(endpoint)
        try:
            with trio.fail_after(HANDSHAKE_S):
                muxed = await self._secure(await self._outbound_stream(transport, endpoint), peer_id)
            muxed.relay_id = endpoint.relay_id
            return await self.add_conn(muxed, "outbound")
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(transport)
            raise

    async def dial_endpoints(self, peer_id: ID, endpoints: tuple[Endpoint, ...], *, direct: bool = False) -> INetConn:
        """The connection with a peer; made at the first of the addresses that answers when there is none.

        Concurrent calls for the same peer share one connection.

        Args:
            peer_id: who must answer.
            endpoints: where.
            direct: whether a connection through a relay will not do; then no address may lead through one.

        Raises:
            PeerUnreachable: none of the addresses answers.
            WrongPeer: another peer answers.
        """
        key = peer_id, direct  # a dial through a relay waits for a direct one, which so waits for no other
        while key in self._dials:
            await self._dials[key].wait()
        live = self.live_connections(peer_id)
        if usable := [one for one in live if not (direct and relay_of(one))]:
            return usable[0]
        done = self._dials[key] = trio.Event()
        try:
            return await first_connection(endpoints, peer_id, self.dial_addr)
        finally:
            del self._dials[key]
            done.set()

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """The connections with a peer; made at an address in the peer store when there is none.

        Raises:
            SwarmException: there is none and none can be made.
        """
        if live := self.live_connections(peer_id):
            return live
        try:
            addresses = [str(address) for address in self.peerstore.addrs(peer_id)]
            return [await self.dial_endpoints(peer_id, dialable_endpoints(addresses))]
        except (PeerStoreError, PeertaskError) as error:
            raise SwarmException(f"no connection with {peer_id}: {error}") from error

    def live_connections(self, peer_id: ID) -> list[INetConn]:
        """The connections with a peer that have not ended."""
        return [connection for connection in self.get_connections(peer_id) if not connection.is_closed]

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        """Register a connection and start it. It is closed when that is refused.

        Raises:
            SwarmException: one connection too many, or the peer has this node's own identity.
        """
        peer_id = muxed_conn.peer_id
        if reason := self._objection(peer_id):
            await muxed_conn.close()
            raise SwarmException(reason)
        self._registering[peer_id] += 1
        try:
            # It waits for local tasks only; libp2p takes an interruption for a failure and logs it with a traceback.
            with trio.CancelScope(shield=True):
                connection = await super().add_conn(muxed_conn, direction)
        finally:
            self._registering -= Counter([peer_id])
        if connection.is_closed:
            self.remove_conn(connection)  # it ended, and was removed, before libp2p had entered it in its table
            raise SwarmException(f"the connection with {peer_id} ended while it was being registered")
        return connection

    async def close(self) -> None:
        """Close every connection, side by side, then the listeners."""
        async with trio.open_nursery() as nursery:
            for connection in self.get_connections():
                nursery.start_soon(connection.close)
        await super().close()

    def _objection(self, peer_id: ID) -> str:
        if peer_id == self.self_id:
            return "a peer uses the identity of this very node"
        if len(self.get_connections(peer_id)) + self._registering[peer_id] >= self._limits.per_peer:
            return f"already {self._limits.per_peer} connections with {peer_id}"
        if self.get_total_connections() + self._registering.total() >= self._limits.total:
            return f"already {self._limits.total} connections in all"
        return ""

    @property
    def nursery(self) -> trio.Nursery:
        """Where what the connections need runs, while the host does."""
        if self.background_nursery is None:
            raise SwarmException("the host is not running")
        return self.background_nursery

    async def _receive(self, visit: Visit, transport: InboundTransport, relay_id: str, expected: ID | None) -> None:
        async with trio.open_nursery() as nursery:
            muxed = await self._shake_hands(visit, transport, nursery)
            if muxed is not None and expected not in {None, muxed.peer_id}:
                _log.warning("a relay lied about who comes", relay=relay_id, told=str(expected), is_=str(muxed.peer_id))
                await muxed.close()
            elif muxed is not None:
                muxed.relay_id = relay_id
                await self.add_conn(muxed, "inbound")
                await muxed.event_closed.wait()
            nursery.cancel_scope.cancel()

    async def _shake_hands(
        self, visit: Visit, transport: InboundTransport, nursery: trio.Nursery
    ) -> HardenedYamux | None:
        muxed = None
        try:
            with trio.move_on_after(HANDSHAKE_S) as self._handshakes[visit]:
                muxed = await self._secure(await transport(nursery), None)
        finally:
            del self._handshakes[visit]
            self._gate.end_handshake(visit)
        return muxed

    async def _connect(self, endpoint: Endpoint) -> trio.abc.Stream:
        if not endpoint.relay_id:
            with trio.fail_after(CONNECT_S):
                return await open_tcp(endpoint)
        return await self.open_circuit(endpoint)

    async def _outbound_stream(self, transport: trio.abc.Stream, endpoint: Endpoint) -> ByteStream:
        if not isinstance(transport, trio.SocketStream):
            return ByteStream(transport, None)
        wrapped = await self.nursery.start(_run_websocket, transport, endpoint) if endpoint.websocket else transport
        return ByteStream(wrapped, remote_address(transport))

    async def _secure(self, stream: ByteStream, peer_id: ID | None) -> HardenedYamux:
        raw = RawConnection(stream, initiator=peer_id is not None)
        secured = await self.upgrader.upgrade_security(raw, raw.is_initiator, peer_id)
        muxed = await self.upgrader.upgrade_connection(secured, secured.get_remote_peer())
        if not isinstance(muxed, HardenedYamux):
            raise SwarmException(f"the upgrader made a {type(muxed).__name__}")
        return muxed


def relay_of(connection: INetConn) -> str:
    """Return the relay that a connection goes through; empty when it goes through none."""
    return connection.muxed_conn.relay_id if isinstance(connection.muxed_conn, HardenedYamux) else ""


async def _run_websocket(
    tcp: trio.SocketStream, endpoint: Endpoint, task_status: trio.TaskStatus[trio.abc.Stream]
) -> None:
    started = False
    try:
        async with trio.open_nursery() as nursery:
            task_status.started(await websocket_client(nursery, tcp, endpoint))
            started = True
    except Exception as error:
        if not started:
            raise
        _log.debug("a WebSocket broke", endpoint=str(endpoint), error=repr(error))
