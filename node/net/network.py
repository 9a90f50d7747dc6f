"""Sessions with peers over libp2p: who is connected, who is to be, and one session for each pair."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import get_args

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError

from node.background import open_background
from node.interfaces import Channel, ChannelHandler, Clock, Discovery, Network, PeerInfo, PeerSource
from node.net.address_book import AddressBook
from node.net.addresses import is_peer_id, parse_endpoint, parse_peer_id, reachable_endpoints
from node.net.dialing import longest_pause_s
from node.net.errors import PeerUnreachable, SelfDial
from node.net.finder import Finding, PeerFinder
from node.net.host import HardenedHost, HostConfig, abort_connection, dial, open_host
from node.net.muxer import hardened
from node.net.relay.roles import Relaying, RelayRoles
from node.net.session import Initiator, Pulse, Session, SessionOwner
from protocol import (
    ADDRESSEE,
    DEFAULT_LIMITS,
    PROTOCOL_ID,
    ErrorCode,
    Frame,
    Hello,
    Limits,
    Offer,
    PeerAdvert,
    PeerFrame,
    PeerId,
    PeertaskError,
    Role,
)

log = structlog.get_logger(__name__)

# How long a peer may take to answer a Hello: the round trip of a satellite link, several times.
GREETING_S = 10.0
# A session that ends sooner counts as a failed dial: two nodes that end each other's sessions must not do nothing else.
SETTLED_S = 5.0
# A node that says that it stops is not back at once: the first dial comes within 2 s, and not into its last moments.
FAILURES_OF_A_GOODBYE = 4
# A connection without a stream is closed after one to two of these: a simple client may pause so long between requests.
SILENT_CONNECTION_S = 60.0
# How long sessions may take to say Bye when the node stops.
FAREWELL_S = 2.5


class PeerNetwork(Network, SessionOwner):
    """Keeps sessions with peers.

    Args:
        host_config: the identity, and where to listen.
        limits: what this node takes from one peer; announced in Hello.
        pulse: how a lost peer is found.
        finding: how other peers are found.
        clock: what peers are told of this node's clock; None to tell them nothing.
        relaying: what this node has to do with relays.

    Attributes:
        agent: this program and its version, as told to peers.
        relays: what this node is to relays.
    """

    def __init__(
        self,
        host_config: HostConfig,
        *,
        limits: Limits = DEFAULT_LIMITS,
        pulse: Pulse | None = None,
        finding: Finding | None = None,
        clock: Clock | None = None,
        relaying: Relaying | None = None,
    ) -> None:
        self.peer_id = PeerId(str(ID.from_pubkey(host_config.key_pair.public_key)))
        self._host_config = host_config
        self._limits = limits
        self._pulse = pulse or Pulse()
        self.agent = f"peertask/{version('peertask')}"
        self._instance = secrets.token_hex(8)
        self._book = AddressBook()
        self._sessions: dict[PeerId, Session] = {}
        self._all: set[Session] = set()
        self._dials: dict[PeerId, _Dial] = {}
        self._keepers: dict[PeerId, trio.CancelScope] = {}
        self._listeners: list[Callable[[], None]] = []
        self._changed = trio.Event()
        self._rng = random.Random(self._instance)
        self._clock = clock
        self._finder = PeerFinder(self.peer_id, self._book, self._sessions, finding or Finding(), self._rng)
        self._host: HardenedHost | None = None
        self._nursery: trio.Nursery | None = None
        self._handlers: tuple[ChannelHandler, ...] = ()
        self._routes: dict[type[Frame], ChannelHandler] = {}
        self._advert: Callable[[PeerId], PeerAdvert] = _no_advert
        self._addresses: tuple[str, ...] = ()
        self.relays = RelayRoles(relaying or Relaying())

    def __repr__(self) -> str:
        return f"<PeerNetwork {self.peer_id} sessions={len(self._sessions)} streams={len(self._all)}>"

    @asynccontextmanager
    async def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AsyncIterator[None]:
        """Listen and keep sessions; see `Network.running`."""
        self._handlers = (worker, requester, self._finder)
        self._routes = {kind: worker if half is Role.WORKER else requester for kind, half in ADDRESSEE.items()}
        self._routes.update(dict.fromkeys(get_args(PeerFrame), self._finder))
        self._advert = advert
        async with open_host(self._host_config) as host, open_background() as nursery:
            self._host, self._nursery = host, nursery
            self._addresses = self._find_addresses(host)
            nursery.start_soon(self._tidy_connections, host)
            nursery.start_soon(self._finder.run)
            host.set_stream_handler(TProtocol(PROTOCOL_ID), self._accept)
            await self.relays.take(host, nursery, self._addresses, self._has_moved, self._rng)
            for peer_id, entry in self._book:
                if entry.kept:
                    self._start_keeper(peer_id)
            try:
                yield
            finally:
                self._nursery = self._host = None
                self._addresses = ()
                self.relays.leave()
                with trio.CancelScope(shield=True):
                    await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        for scope in self._keepers.values():
            scope.cancel()
        ending = list(self._all)
        for session in ending:
            session.leave(ErrorCode.DRAINING, "the node is stopping")
        with trio.move_on_after(FAREWELL_S):
            for session in ending:
                await session.over.wait()

    async def _tidy_connections(self, host: HardenedHost) -> None:
        """Close connections on which nothing is open, so that nobody holds a place by doing nothing."""
        silent: set[INetConn] = set()
        while True:
            await trio.sleep(SILENT_CONNECTION_S)
            connections = [one for several in host.get_network().connections.values() for one in several]
            for connection in connections:
                hardened(connection.muxed_conn).sweep()
            empty = {one for one in connections if not (one.get_streams() or hardened(one.muxed_conn).is_needed)}
            for connection in empty & silent:
                await connection.close()
            silent = empty - silent

    # --- what the node asks ------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, with ``/p2p/ID``; one for each interface where it listens on all of them.

        Those through a relay come last, and only while the relay has a reservation of this node.
        """
        return self._addresses + self.relays.addresses

    def _has_moved(self) -> None:
        """Tell peers where this node can be dialled now."""
        self._offer(self.relays.told(self._addresses))
        self._finder.register_again()
        self._tell_change()

    def _find_addresses(self, host: HardenedHost) -> tuple[str, ...]:
        listening = (parse_endpoint(str(address)) for address in host.get_addrs())
        return tuple(dict.fromkeys(str(found) for endpoint in listening for found in reachable_endpoints(endpoint)))

    async def connect(self, address: str) -> PeerId:
        """Open a session with a peer and keep it up; see `Network.connect`."""
        peer_id = self._note(address)
        if peer_id not in self._sessions:
            await self._dial(peer_id)
        self._keep_up(peer_id)
        return peer_id

    def keep(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:
        """Keep a session with a peer up from now on; see `Network.keep`."""
        peer_id = self._note(address, source)
        self._keep_up(peer_id)
        return peer_id

    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, and let it be; see `Network.disconnect`."""
        self._book.entry(peer_id).kept = False
        keeper = self._keepers.pop(peer_id, None)
        if keeper is not None:
            keeper.cancel()
        if peer_id in self._dials:
            self._dials[peer_id].wanted = False
        session = self._sessions.get(peer_id)
        if session is not None:
            session.leave(ErrorCode.DRAINING, "the operator ended the session")
            await session.over.wait()

    def keeps(self, peer_id: PeerId) -> bool:
        """Whether this node was told to keep a session with a peer up, which it is not for those who dialled in."""
        return self._book.keeps(peer_id)

    def is_peer_id(self, holder: str) -> bool:
        """Whether an id is one of libp2p, in base58."""
        return is_peer_id(holder)

    def channel(self, peer_id: PeerId) -> Channel | None:
        """Return the open session with a peer."""
        return self._sessions.get(peer_id)

    def channels(self) -> Sequence[Channel]:
        """Return all open sessions with nodes; simple clients, which only ask, are not among them."""
        return list(self._sessions.values())

    def announce(self) -> None:
        """Tell every connected peer what this node offers now."""
        self._offer()

    def _offer(self, addresses: tuple[str, ...] | None = None) -> None:
        for session in self._sessions.values():
            advert = self._advert(session.peer_id)
            try:
                session.send(
                    Offer(slots=advert.slots, kinds=advert.kinds, personas=advert.personas, addresses=addresses)
                )
            except PeertaskError as error:  # it is over, or the peer takes nothing so large: its own loss
                log.info("peer not told of an advert", peer_id=session.peer_id, reason=str(error))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever sessions or adverts have changed."""
        self._listeners.append(listener)

    def peers(self) -> Sequence[PeerInfo]:
        """Return every peer that is known, the connected ones first."""
        return sorted(self._finder.peers(), key=lambda peer: not peer.connected)

    def listen(self, discovery: Discovery) -> None:
        """Take note of the peers that somebody else finds, while the network runs."""
        self._running_nursery().start_soon(self._finder.listen, discovery)

    def _note(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:
        if not address.startswith("/"):
            return self._known(PeerId(parse_peer_id(address)))
        peer_id = self._book.learn(address, source)
        if peer_id == self.peer_id:
            raise SelfDial(f"{address} is this node itself", remedy="Give the address of another node")
        return peer_id

    def _known(self, peer_id: PeerId) -> PeerId:
        if peer_id == self.peer_id:
            raise SelfDial(f"peer {peer_id} is this node itself", remedy="Give the id of another node")
        if peer_id not in self._sessions and not self._finder.addresses(peer_id):
            raise PeerUnreachable(
                f"no address of peer {peer_id} is known", remedy="Give an address: /ip4/…/tcp/…/p2p/… of that peer"
            )
        return peer_id

    # --- dialling ----------------------------------------------------------------------------------------------------

    async def _dial(self, peer_id: PeerId) -> None:
        """Open a session, or wait for the dial that is under way; cancelling only ends the wait."""
        attempt = self._dials.get(peer_id)
        if attempt is None:
            attempt = self._dials[peer_id] = _Dial()
            self._running_nursery().start_soon(self._run_dial, peer_id, attempt)
        attempt.wanted = True
        await attempt.ended.wait()
        if attempt.error is not None:
            raise attempt.error

    def _running_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise PeertaskError("the node is not running", code=ErrorCode.DRAINING)
        return self._nursery

    async def _run_dial(self, peer_id: PeerId, attempt: _Dial) -> None:
        try:
            session = await self._open_session(peer_id)
            self._running_nursery().start_soon(self._run, session)
            await self._await_greeting(peer_id, session)
            attempt.error = None
            if not attempt.wanted:
                session.leave(ErrorCode.DRAINING, "the operator ended the session")
        except PeertaskError as error:
            # The peer may have opened a session meanwhile, and ended this one.
            attempt.error = None if peer_id in self._sessions else error
        finally:
            self._book.entry(peer_id).last_error = str(attempt.error or "")
            del self._dials[peer_id]
            attempt.ended.set()

    async def _open_session(self, peer_id: PeerId) -> Session:
        host = self._running_host()
        await dial(host, self._finder.addresses(peer_id), peer_id)
        try:
            stream = await host.new_stream(ID.from_string(peer_id), [TProtocol(PROTOCOL_ID)])
        except Exception as error:
            if not any(session.peer_id == peer_id for session in self._all):
                await abort_connection(host, ID.from_string(peer_id))
            raise _no_stream(peer_id, error) from error
        return self._session(stream, Initiator.SELF)

    def _running_host(self) -> HardenedHost:
        if self._host is None:
            raise PeertaskError("the node is not running", code=ErrorCode.DRAINING)
        return self._host

    async def _await_greeting(self, peer_id: PeerId, session: Session) -> None:
        """Return when a session with the peer is open, be it this one or one that the peer opened meanwhile."""
        with trio.move_on_after(GREETING_S):
            while peer_id not in self._sessions and not session.over.is_set():
                changed = self._changed
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_first_of, nursery.cancel_scope, changed)
                    nursery.start_soon(_first_of, nursery.cancel_scope, session.over)
        if peer_id in self._sessions:
            return
        code = session.end_code or ErrorCode.PEER_UNREACHABLE
        reason = session.reason or f"it did not say Hello within {GREETING_S:.0f} s"
        session.leave(ErrorCode.PEER_UNREACHABLE, "no Hello came")
        raise PeertaskError(f"peer {peer_id} answered, but no session came about: {reason}", code=code)

    def _keep_up(self, peer_id: PeerId) -> None:
        self._book.entry(peer_id).kept = True
        self._tell_change()
        if self._nursery is not None and peer_id not in self._keepers:
            self._start_keeper(peer_id)

    def _start_keeper(self, peer_id: PeerId) -> None:
        scope = self._keepers[peer_id] = trio.CancelScope()
        self._running_nursery().start_soon(self._run_keeper, peer_id, scope)

    async def _run_keeper(self, peer_id: PeerId, scope: trio.CancelScope) -> None:
        with scope:
            failures = 0
            while True:
                if peer_id in self._sessions or await self._redial(peer_id):
                    failures = await self._outlive(peer_id, failures)
                else:
                    failures += 1
                await self._pause(peer_id, failures)

    async def _outlive(self, peer_id: PeerId, failures: int) -> int:
        """Wait for the end of the session with a peer, and return how many failures in a row that makes."""
        since, end_code = trio.current_time(), None
        while (session := self._sessions.get(peer_id)) is not None:
            await session.over.wait()
            end_code = session.end_code
        if end_code is ErrorCode.DRAINING:
            return max(failures + 1, FAILURES_OF_A_GOODBYE)
        return 0 if trio.current_time() - since >= SETTLED_S else failures + 1

    async def _redial(self, peer_id: PeerId) -> bool:
        try:
            await self._dial(peer_id)
        except PeertaskError as error:
            log.info("peer is away", peer_id=peer_id, code=error.code.value, reason=error.message)
            return False
        return True

    async def _pause(self, peer_id: PeerId, failures: int) -> None:
        """Wait for the next dial; a session that the peer opens ends the wait."""
        with trio.move_on_after(self._rng.uniform(0, longest_pause_s(failures))):
            while peer_id not in self._sessions:
                await self._changed.wait()

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def _accept(self, stream: INetStream) -> None:
        if self._nursery is None:
            await stream.reset()
        else:
            await self._run(self._session(stream, Initiator.PEER))

    async def _run(self, session: Session) -> None:
        self._all.add(session)
        try:
            await session.run()
        finally:
            self._all.discard(session)

    def _session(self, stream: INetStream, initiator: Initiator) -> Session:
        carrier = hardened(stream.muxed_conn)
        peer_id = PeerId(str(carrier.peer_id))
        return Session(stream, carrier, peer_id, initiator, self, limits=self._limits, pulse=self._pulse)

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer about this node."""
        return Hello(
            agent=self.agent,
            advert=self._advert(peer_id),
            limits=self._limits,
            instance=self._instance,
            addresses=self.relays.told(self._addresses),
            peers=self._finder.finding.share,
            rendezvous=self._finder.finding.rendezvous,
            time=self._clock.now() if self._clock is not None else None,
        )

    def load(self) -> int:
        """Return how many tasks this node has."""
        return self._advert(self.peer_id).load

    def greeted(self, session: Session) -> bool:
        """Let a session go on unless the pair has a better one."""
        if session.hello is None:
            return True
        rival = self._sessions.get(session.peer_id)
        if rival is not None and not self._replaces(session, rival):
            session.leave(ErrorCode.CONFLICT, "another session of this pair goes on")
            return False
        if rival is not None:
            rival.leave(ErrorCode.CONFLICT, "another session of this pair replaces this one")
            self._drop(rival)
        self._book.hear(session.peer_id, session.hello.addresses)
        self._book.entry(session.peer_id).source = self._finder.source(session)
        if self._clock is not None and session.hello.time is not None:
            session.clock_offset_ms = session.hello.time - self._clock.now()
        self._sessions[session.peer_id] = session
        log.info("peer connected", peer_id=session.peer_id, opened_by=session.initiator.value)
        for handler in self._handlers:
            handler.opened(session)
        self._tell_change()
        return True

    def _replaces(self, new: Session, old: Session) -> bool:
        """Decide between two sessions of a pair so that both sides choose the same."""
        restarted = new.hello is not None and old.hello is not None and new.hello.instance != old.hello.instance
        if old.closed or restarted or new.initiator is old.initiator:
            return True
        preferred = Initiator.SELF if self.peer_id < new.peer_id else Initiator.PEER
        return new.initiator is preferred

    def received(self, session: Session, frame: Frame) -> None:
        """Pass a frame about a task to this node's half of the conversation."""
        self._routes[type(frame)].received(session, frame)

    def adverted(self, session: Session) -> None:
        """Tell that a peer's advert has changed."""
        if self._sessions.get(session.peer_id) is session:
            self._tell_change()

    def moved(self, session: Session, addresses: tuple[str, ...]) -> None:
        """Take a note of where a peer is now."""
        if self._sessions.get(session.peer_id) is session:
            self._book.hear(session.peer_id, addresses)
            self._tell_change()

    def ended(self, session: Session) -> None:
        """Forget a session that is over."""
        if self._sessions.get(session.peer_id) is session:
            self._drop(session)
            log.info("peer disconnected", peer_id=session.peer_id, reason=session.reason)

    def is_last(self, session: Session) -> bool:
        """Whether nobody else has a use for the connection under a session."""
        return not session.carrier.is_needed and not any(
            other.carrier is session.carrier for other in self._all - {session}
        )

    def _drop(self, session: Session) -> None:
        del self._sessions[session.peer_id]
        if session.end_code is not ErrorCode.CONFLICT:
            self._book.entry(session.peer_id).last_error = session.reason
        for handler in self._handlers:
            handler.closed(session, session.reason)
        self._tell_change()

    def _tell_change(self) -> None:
        self._finder.wake()
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        for listener in self._listeners:
            listener()


class _Dial:
    """A dial that is under way, for everyone who waits for it.

    Attributes:
        ended: set when it is over.
        error: why no session came about; None when one did.
        wanted: whether somebody still wants the session.
    """

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.error: PeertaskError | None = PeertaskError("the node is stopping", code=ErrorCode.DRAINING)
        self.wanted = True


async def _first_of(scope: trio.CancelScope, event: trio.Event) -> None:
    await event.wait()
    scope.cancel()


def _no_stream(peer_id: PeerId, error: Exception) -> PeerUnreachable:
    refusal = error.__cause__
    if isinstance(refusal, MultiselectClientError) and "not supported" in str(refusal):
        return PeerUnreachable(
            f"peer {peer_id} answers, but does not speak {PROTOCOL_ID}",
            code=ErrorCode.INCOMPATIBLE_VERSION,
            remedy="Check that a peertask node of this version runs there",
        )
    return PeerUnreachable(
        f"peer {peer_id} answers, but no stream could be opened: {refusal or error}",
        remedy="Try again; when it stays so, check that node",
    )


def _no_advert(_peer_id: PeerId) -> PeerAdvert:
    return PeerAdvert()
