"""A session in memory: real frames, encoded, decoded and judged as on a wire, without the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import trio

from node.interfaces import Channel
from protocol import (
    DEFAULT_LIMITS,
    Bye,
    Conversation,
    ErrorCode,
    Frame,
    FrameDecoder,
    Heartbeat,
    Hello,
    Limits,
    Offer,
    PeerAdvert,
    PeerId,
    PeertaskError,
    RemoteProtocolError,
    Submit,
    encode_frame,
)

# Twice what a peer may have in flight: a test reaches it quickly.
MAX_QUEUED_FRAMES = 512


class ChannelOwner(Protocol):
    """The end of the network that a channel belongs to; all methods are called on the event loop."""

    peer_id: PeerId
    limits: Limits

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer about this node."""

    def carry(self, channel: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Bring the bytes of a frame to the other end of a channel."""

    def greeted(self, channel: MemoryChannel) -> None:
        """The peer has said Hello."""

    def received(self, channel: MemoryChannel, frame: Frame) -> None:
        """A frame about a task came."""

    def adverted(self, channel: MemoryChannel) -> None:
        """The peer's advert has changed."""

    def ended(self, channel: MemoryChannel) -> None:
        """The session is over."""


class MemoryChannel(Channel):
    """One end of a session.

    Args:
        owner: the network at this end.
        peer_id: who is at the other end.
        dialled: whether this end opened the session; then it says Hello first.

    Attributes:
        dialled: whether this end opened the session.
        own_id: who is at this end.
        other: the other end.
        hello: what the peer said about itself; None before it did.
        reason: why the session is over; empty before.
        end_code: the same, for programs.
        settled: set when the peer has said Hello, and when the session is over.
        queued: how many pieces of frames are on their way to the other end.
    """

    def __init__(self, owner: ChannelOwner, peer_id: PeerId, *, dialled: bool) -> None:
        self.own_id = owner.peer_id
        self.peer_id = peer_id
        self.other: MemoryChannel | None = None
        self.advert: PeerAdvert | None = None
        self.in_flight = DEFAULT_LIMITS.in_flight
        self.local_in_flight = owner.limits.in_flight
        self.offered: int | None = None
        self.latency_ms: float | None = None
        self.hello: Hello | None = None
        self.reason = ""
        self.end_code = ErrorCode.PEER_LOST
        self.settled = trio.Event()
        self.queued = 0
        self._owner = owner
        self.dialled = dialled
        self._peer_limits = DEFAULT_LIMITS
        self._decoder = FrameDecoder(owner.limits)
        self._conversation = Conversation()
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"<MemoryChannel {self.own_id} -> {self.peer_id}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self._over

    def greet(self) -> None:
        """Say Hello to the peer."""
        self.send(self._owner.hello_for(self.peer_id))

    def send(self, frame: Frame) -> None:
        """Queue a frame; see `Channel.send`. All frames arrive in the order of sending."""
        if self._over:
            raise PeertaskError(f"the session with {self.peer_id} is over: {self.reason}", code=ErrorCode.PEER_LOST)
        if self.queued >= MAX_QUEUED_FRAMES and isinstance(frame, Submit):
            raise PeertaskError(f"{self.queued} frames wait for {self.peer_id}", code=ErrorCode.BUSY)
        pieces = encode_frame(frame, self._peer_limits)
        self._conversation.send(frame)
        self._owner.carry(self, frame, pieces)

    def leave(self, code: ErrorCode, reason: str) -> None:
        """Say Bye, and end the session."""
        if not self._over:
            self.send(Bye(code, reason))
            self.end(code, reason)

    def end(self, code: ErrorCode, reason: str) -> None:
        """End the session at this end, without a word to the peer."""
        if self._over:
            return
        self._over = True
        self.end_code, self.reason = code, reason
        self._owner.ended(self)
        self.settled.set()

    def receive(self, data: bytes) -> None:
        """Take what came from the peer; what comes after the end is dropped."""
        try:
            for frame in [] if self._over else self._decoder.feed(data):
                self._take(frame)
        except RemoteProtocolError as error:
            self.leave(ErrorCode.PROTOCOL, str(error))

    def _take(self, frame: Frame) -> None:
        self._conversation.receive(frame)
        match frame:
            case Hello():
                self._take_hello(frame)
            case Bye():
                self.end(frame.code, frame.message or frame.code.value)
            case Heartbeat():
                self._update_advert(load=frame.load)
            case Offer():
                self._take_offer(frame)
            case _:
                self._owner.received(self, frame)

    def _take_offer(self, offer: Offer) -> None:
        self.offered = offer.slots if offer.pull else self.offered
        self._update_advert(slots=offer.slots, kinds=offer.kinds, personas=offer.personas)
        if offer.pull:
            self._owner.received(self, offer)

    def _take_hello(self, hello: Hello) -> None:
        self.hello = hello
        self.advert = hello.advert
        self.in_flight = hello.limits.in_flight
        self._peer_limits = hello.limits
        if not self.dialled:
            self.greet()
        self._owner.greeted(self)
        self.settled.set()

    def _update_advert(self, **changes: object) -> None:
        self.advert = replace(self.advert or PeerAdvert(), **changes)  # type: ignore[arg-type]
        self._owner.adverted(self)
