"""Sessions with peers, and how they are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum

from protocol import Frame, PeerAdvert, PeerId


class Channel(ABC):
    """An open session with one authenticated peer.

    Attributes:
        peer_id: who is at the other end, as proven by the handshake.
        advert: what the peer last said about itself; None for a simple client that sent no Hello.
        in_flight: how many tasks the peer takes from this node at once.
        local_in_flight: how many tasks this node takes from the peer at once.
        offered: how many tasks at once the peer has asked for; None when it has not asked for work.
        latency_ms: round trip of the last heartbeat; None before the first.
    """

    peer_id: PeerId
    advert: PeerAdvert | None
    in_flight: int
    local_in_flight: int
    offered: int | None
    latency_ms: float | None

    @abstractmethod
    def send(self, frame: Frame) -> None:
        """Queue a frame; the frames about one task arrive in the order of sending. Never blocks.

        Raises:
            PeertaskError: code PEER_LOST when the session is over, BUSY when the queue is full (only for Submit).
            TooLarge: the frame exceeds what the peer takes; the session goes on.
            LocalProtocolError: the conversation does not allow the frame; the session goes on.
        """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the session is over; nothing is received after that."""


class ChannelHandler(ABC):
    """Takes what channels bring. All methods are called on the event loop, must be quick, and must not raise."""

    @abstractmethod
    def opened(self, channel: Channel) -> None:
        """A session with a peer is open; `Network.channel` finds it."""

    @abstractmethod
    def received(self, channel: Channel, frame: Frame) -> None:
        """A frame came that the conversation allows; frames come in the order of sending."""

    @abstractmethod
    def closed(self, channel: Channel, reason: str) -> None:
        """The session is over, for a reason in words; called once for each `opened`."""


class PeerSource(StrEnum):
    """How a node came to know another: the operator named it, it came by itself, or somebody told of it."""

    STATIC = "static"
    BOOTSTRAP = "bootstrap"
    ASKED = "asked"
    INBOUND = "inbound"
    PEER = "peer"
    RENDEZVOUS = "rendezvous"
    MDNS = "mdns"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a node knows about another.

    Attributes:
        peer_id: who it is.
        connected: whether a session is open.
        addresses: where it can be dialled, with ``/p2p/ID``.
        advert: what it last said about itself.
        latency_ms: round trip of the last heartbeat; None before the first.
        last_error: why the last dial or session failed, in words; empty when none did.
        agent: its program and version.
        source: how this node came to know it.
        via: the peers that told of it.
        hearsay: whether everything above was told by others: nothing is known from itself or from the operator.
        clock_offset_ms: how far its clock was ahead of this node's when the session began, give or take the time that
            a message takes; None when it did not say.
        relay: the peer that passes the session on; None when there is none, or it goes straight to the peer.
    """

    peer_id: PeerId
    connected: bool
    addresses: tuple[str, ...] = ()
    advert: PeerAdvert | None = None
    latency_ms: float | None = None
    last_error: str = ""
    agent: str = ""
    source: PeerSource = PeerSource.INBOUND
    via: tuple[PeerId, ...] = ()
    hearsay: bool = False
    clock_offset_ms: int | None = None
    relay: PeerId | None = None


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """How it stands with a relay that a node is to be reached through.

    Attributes:
        peer_id: the relay.
        reserved: whether others can reach the node through it.
        last_error: why not, in words; empty when they can, or it was not tried yet.
    """

    peer_id: PeerId
    reserved: bool
    last_error: str = ""


class Network(ABC):
    """Sessions with peers.

    Attributes:
        peer_id: who this node is.
    """

    peer_id: PeerId

    @abstractmethod
    def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AbstractAsyncContextManager[None]:
        """Listen and keep sessions for the length of the context; on leaving, every session ends with Bye.

        Args:
            worker: gets what peers ask of this node: Submit, Attach, Cancel; and Decline, which answers its Offer.
            requester: gets what peers answer to this node: Accept, Reject, Progress, Result; and each Offer that asks
                for work.
            advert: what to tell a peer about this node; asked for each Hello, and for the load of each Heartbeat.
        """

    @property
    @abstractmethod
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, with ``/p2p/ID``."""

    @abstractmethod
    async def connect(self, address: str) -> PeerId:
        """Open a session with the peer at an address, or return at once when there is one; it is kept up from then on.

        Args:
            address: a multiaddr with ``/p2p/ID``, or the id of a peer that is known.

        Raises:
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE, WRONG_PEER or INCOMPATIBLE_VERSION, in words.
        """

    @abstractmethod
    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, if there is one, and do not dial it again by itself."""

    @abstractmethod
    def keep(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:
        """Dial the peer at an address, now and whenever its session is lost, with back-off.

        Does not wait, and never fails because the peer is away.

        Args:
            address: as for `connect`.
            source: what to tell of how this node came to know the peer, when it did not know it before.

        Raises:
            PeertaskError: code INVALID_ADDRESS.
        """

    @abstractmethod
    def is_peer_id(self, holder: str) -> bool:
        """Whether an id is one that a peer can have, known or not: the agents of a node have ids of their own."""

    @abstractmethod
    def channel(self, peer_id: PeerId) -> Channel | None:
        """Return the open session with a peer."""

    @abstractmethod
    def channels(self) -> Sequence[Channel]:
        """Return all open sessions."""

    @abstractmethod
    def announce(self) -> None:
        """Tell every connected peer what this node offers now."""

    @abstractmethod
    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `channels` or one of their adverts has changed; it must be quick and not raise."""

    @abstractmethod
    def peers(self) -> Sequence[PeerInfo]:
        """Return every peer that is known, the connected ones first."""


class Discovery(ABC):
    """Finds addresses of peers."""

    @abstractmethod
    def addresses(self) -> AsyncIterator[str]:
        """Yield addresses with ``/p2p/ID`` as they are found, until cancelled; the same one may come again."""
