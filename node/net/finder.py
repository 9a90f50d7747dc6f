"""Finds peers through peers: tells those that are connected of each other, takes hints, registers and lets register."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import structlog
import trio

from node.coordination.reach import Reach, reach_of
from node.interfaces import Channel, ChannelHandler, Discovery, PeerInfo, PeerSource
from node.net.address_book import AddressBook, peers_at
from node.net.admission import address_key
from node.net.errors import InvalidAddress
from node.net.introductions import Introductions, Pace
from node.net.known_peers import KnownPeers, Origin, brief
from node.net.rendezvous import Registry
from node.net.session import Initiator, Session
from protocol import (
    MAX_PEERS_TOLD,
    Discover,
    Frame,
    PeerAdvert,
    PeerHint,
    PeerId,
    Peers,
    PeertaskError,
    Register,
    Registered,
)

log = structlog.get_logger(__name__)

# How often a node registers anew and asks who else has, at each rendezvous point.
RENDEZVOUS_EVERY_S: Final = 300.0
# A registration outlives two renewals that are lost.
REGISTRATION_S: Final = 900.0
# What is found on a local network is found again long before.
FOUND_S: Final = 900.0


class Finding(NamedTuple):
    """How a node finds others.

    Attributes:
        share: whether it tells its peers of each other, and listens to what they tell.
        rendezvous: whether peers may register here.
        points: the peers to register at, whenever they are connected.
        renew_s: how often to register anew there and ask who else has, in seconds.
        pace: how often peers are told of each other.
    """

    share: bool = True
    rendezvous: bool = False
    points: frozenset[PeerId] = frozenset()
    renew_s: float = RENDEZVOUS_EVERY_S
    pace: Pace = Pace()


class PeerFinder(ChannelHandler):
    """What a network knows of peers that it is not connected to, and what it tells of those that it is.

    Args:
        own_id: the node.
        book: what is known of peers from themselves.
        sessions: the open ones, by peer.
        finding: how.
        rng: chooses whom to tell of when there are many.

    Attributes:
        finding: how.
        known: the hints.
    """

    def __init__(
        self,
        own_id: PeerId,
        book: AddressBook,
        sessions: Mapping[PeerId, Session],
        finding: Finding,
        rng: random.Random,
    ) -> None:
        self.finding = finding
        self._own_id = own_id
        self.known = KnownPeers(own_id)
        self._book = book
        self._sessions = sessions
        self._introductions = Introductions(finding.pace)
        self._registry = Registry(rng)
        self._registered_at: dict[PeerId, float] = {}
        self._news = trio.Event()

    def addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        """Return where to dial a peer: where it or the operator says that it is, else where others do."""
        return self._book.find(peer_id).addresses or self.known.addresses(peer_id, trio.current_time())

    def source(self, session: Session) -> PeerSource:
        """Return how this node came to know a peer that has said Hello."""
        known = self._book.find(session.peer_id).source
        if known is not None or session.initiator is Initiator.PEER:
            return known or PeerSource.INBOUND
        origins = self.known.origins(session.peer_id, trio.current_time())
        return origins[0].source if origins else PeerSource.ASKED

    def peers(self) -> list[PeerInfo]:
        """Return all that is known of every peer: from itself, from the operator, or else from others."""
        everyone = dict.fromkeys((*self._sessions, *(peer_id for peer_id, _ in self._book), *self.known))
        described = [self._describe(peer_id) for peer_id in everyone if peer_id != self._own_id]
        return [peer for peer in described if peer.addresses or not peer.hearsay]

    def _describe(self, peer_id: PeerId) -> PeerInfo:
        now = trio.current_time()
        entry, session = self._book.find(peer_id), self._sessions.get(peer_id)
        origins = self.known.origins(peer_id, now)
        known = partial(
            PeerInfo,
            peer_id,
            addresses=self.addresses(peer_id),
            last_error=entry.last_error,
            source=entry.source or (origins[0].source if origins else PeerSource.PEER),
            via=tuple(dict.fromkeys(origin.peer_id for origin in origins if origin.peer_id is not None)),
        )
        if session is None:
            return known(connected=False, advert=self.known.advert(peer_id, now), hearsay=entry.source is None)
        return known(
            connected=True,
            advert=session.advert,
            latency_ms=session.latency_ms,
            agent=session.hello.agent if session.hello is not None else "",
            clock_offset_ms=session.clock_offset_ms,
            relay=PeerId(session.carrier.relay_id) if session.carrier.relay_id else None,
        )

    def wake(self) -> None:
        """Look soon whether there is something to tell."""
        self._news.set()

    async def run(self) -> None:
        """Tell what is new, register again, and forget what is too old, until cancelled."""
        while True:
            with trio.move_on_after(self.finding.pace.again_s):
                await self._news.wait()
            await trio.sleep(self.finding.pace.gather_s)
            self._news = trio.Event()
            now = trio.current_time()
            self.known.drop_expired(now)
            await self._introduce_all(now)
            for peer_id in self.finding.points & self._sessions.keys():
                if now - self._registered_at.get(peer_id, float("-inf")) >= self.finding.renew_s:
                    self._register(self._sessions[peer_id])

    def register_again(self) -> None:
        """Register anew where this node is registered: it can be dialled elsewhere now."""
        for peer_id in self.finding.points & self._sessions.keys():
            self._register(self._sessions[peer_id])

    async def listen(self, discovery: Discovery) -> None:
        """Take what somebody else finds, until cancelled."""
        async for address in discovery.addresses():
            try:
                (peer_id,) = peers_at((address,))
            except InvalidAddress as error:
                log.debug("found something that is no peer's address", address=address, reason=str(error))
                continue
            hint = PeerHint(peer_id=peer_id, addresses=(address,), ttl_ms=round(FOUND_S * 1000))
            self.known.hear(Origin(PeerSource.MDNS), (hint,), trio.current_time(), Reach.PRIVATE)

    # --- what sessions bring -----------------------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Register with a rendezvous point at once; tell others of the peer, and the peer of others, soon."""
        if channel.peer_id in self.finding.points:
            self._register(channel)
        self.wake()

    def closed(self, channel: Channel, reason: str) -> None:  # noqa: ARG002 - part of the contract
        """Begin anew with the next session."""
        self._introductions.forget(channel.peer_id)
        self._registered_at.pop(channel.peer_id, None)

    def received(self, channel: Channel, frame: Frame) -> None:
        """Take a frame about peers."""
        now = trio.current_time()
        match frame:
            case Peers():
                self._hear(channel, frame, now)
            case Register() if isinstance(channel, Session):
                _send(channel, self._answer(channel, frame, now))
            case Discover():
                hints = self._registry.find(channel.peer_id, frame, now) if self.finding.rendezvous else ()
                _send(channel, Peers(hints, registered=True))
            case Registered(ttl_ms=0):
                log.warning("a rendezvous point refused", peer_id=channel.peer_id, reason=frame.message)
            case _:
                log.debug("registered", peer_id=channel.peer_id)

    def _hear(self, channel: Channel, frame: Peers, now: float) -> None:
        is_point = channel.peer_id in self.finding.points
        if not (self.finding.share or is_point):
            return
        source = PeerSource.RENDEZVOUS if frame.registered and is_point else PeerSource.PEER
        self.known.hear(Origin(source, channel.peer_id), frame.hints, now, _reach(channel))

    def _answer(self, session: Session, frame: Register, now: float) -> Registered:
        if not self.finding.rendezvous:
            return Registered(message="this node offers no rendezvous; start it with --rendezvous")
        if session.hello is None:
            return Registered(message="say Hello first: it tells where you can be dialled")
        return self._registry.register(
            session.peer_id,
            frame.ttl_ms,
            now,
            addresses=self._book.find(session.peer_id).heard,
            advert=brief(session.advert or PeerAdvert()),
            place=_place(session),
        )

    # --- what is told ------------------------------------------------------------------------------------------------

    def _register(self, channel: Channel) -> None:
        self._registered_at[channel.peer_id] = trio.current_time()
        if isinstance(channel, Session) and channel.hello is not None and channel.hello.rendezvous:
            _send(channel, Register(round(REGISTRATION_S * 1000)))
            _send(channel, Discover())
        else:
            remedy = "Start that node with --rendezvous"
            log.warning("a node offers no rendezvous, and is to be used for it", peer_id=channel.peer_id, remedy=remedy)

    async def _introduce_all(self, now: float) -> None:
        if not self.finding.share:
            return
        self._introductions.update({peer_id: hint for peer_id in self._sessions if (hint := self._hint(peer_id))})
        for session in list(self._sessions.values()):
            if session.hello is not None and session.hello.peers and not session.closed:
                self._introduce(session, now)
                await trio.lowlevel.checkpoint()  # a frame of many takes a while to encode

    def _introduce(self, session: Session, now: float) -> None:
        hints = self._introductions.due(session.peer_id, self.known.told_by(session.peer_id), now)
        if hints:
            _send(session, Peers(tuple(hints)))
        if len(hints) == MAX_PEERS_TOLD:
            self.wake()

    def _hint(self, peer_id: PeerId) -> PeerHint | None:
        addresses = self._book.find(peer_id).heard
        if not addresses:
            return None
        advert = brief(self._sessions[peer_id].advert or PeerAdvert())
        return PeerHint(
            peer_id=peer_id, addresses=addresses, advert=advert, ttl_ms=round(self.finding.pace.ttl_s * 1000)
        )


def _send(channel: Channel, frame: Frame) -> None:
    try:
        channel.send(frame)
    except PeertaskError as error:  # it is over, or takes nothing so large: nobody waits for this
        log.debug("peer not told of peers", peer_id=channel.peer_id, reason=str(error))


def _place(session: Session) -> str:
    """Return what a peer's registration is counted under; empty for this machine, which has no quota."""
    if session.carrier.relay_id:
        return f"the relay {session.carrier.relay_id}"
    return "" if _reach(session) is Reach.LOCAL else address_key(session.remote_host)


def _reach(channel: Channel) -> Reach:
    """From how far a peer comes; one that came in a way that has no address may be anywhere."""
    host = channel.remote_host if isinstance(channel, Session) else ""
    return (reach_of(host) if host else None) or Reach.PUBLIC
