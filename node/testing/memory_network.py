"""A network in memory for several nodes of one process."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import trio

from node.interfaces import Channel, ChannelHandler, Network, PeerInfo, PeerSource
from node.testing.memory_channel import MemoryChannel
from protocol import (
    ADDRESSEE,
    DEFAULT_LIMITS,
    ErrorCode,
    Frame,
    Heartbeat,
    Hello,
    Limits,
    Offer,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Role,
)

# Long enough that a session which ends at once, again and again, leaves the other tasks of the process some time.
REDIAL_S = 0.01


class Hub(Protocol):
    """What lies between the memory networks, as they see it; `MemoryHub` is one."""

    nursery: trio.Nursery

    def join(self, station: MemoryNetwork) -> None:
        """Take the network of a node in."""

    def knows(self, peer_id: PeerId) -> bool:
        """Whether there is such a node, running or not."""

    def dial(self, caller: MemoryNetwork, peer_id: PeerId) -> MemoryChannel | str:
        """Open a session and return the caller's end; or, in words, why there can be none now."""

    def redial(self) -> None:
        """Let every network dial whom it wants a session with and has none."""

    def post(self, sender: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Bring the bytes of a frame to the other end of a channel."""


_ADDRESS = re.compile(r"/memory/([^/]+)/p2p/([^/]+)")


class MemoryNetwork(Network):
    """The sessions of one node of a hub.

    Its address is ``/memory/NAME/p2p/NAME``. It sends heartbeats only when `beat` is called, and a peer that was paused
    is never given up by itself: `MemoryHub.cut` is what a heartbeat that stays out would bring about.

    Args:
        hub: brings the frames over.
        peer_id: who the node is: any text without a slash, that no other node of the hub has.
        limits: what it takes from one peer.
    """

    def __init__(self, hub: Hub, peer_id: str, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.peer_id = PeerId(peer_id)
        self.limits = limits
        self.is_running = False
        self._hub = hub
        self._sessions: dict[PeerId, MemoryChannel] = {}
        self._errors: dict[PeerId, str] = {}
        self._kept: dict[PeerId, None] = {}
        self._listeners: list[Callable[[], None]] = []
        self._handlers: dict[Role, ChannelHandler] = {}
        self._advert: Callable[[PeerId], PeerAdvert] = _no_advert
        hub.join(self)

    def __repr__(self) -> str:
        return f"<MemoryNetwork {self.peer_id} sessions={len(self._sessions)}>"

    @asynccontextmanager
    async def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AsyncIterator[None]:
        """Keep sessions for the length of the context; see `Network.running`."""
        self._handlers = {Role.WORKER: worker, Role.REQUESTER: requester}
        self._advert = advert
        self.is_running = True
        self._hub.redial()
        try:
            yield
        finally:
            self.is_running = False
            for channel in list(self._sessions.values()):
                channel.leave(ErrorCode.DRAINING, "the node is stopping")

    # --- what a node asks --------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """The one address of this node."""
        return (_address(self.peer_id),)

    async def connect(self, address: str) -> PeerId:
        """Open a session with a peer and keep it up; see `Network.connect`."""
        peer_id = self._note(address)
        channel = self._sessions.get(peer_id) or self._dial(peer_id)
        await channel.settled.wait()
        if channel.closed and peer_id not in self._sessions:  # the peer may have opened a session meanwhile
            raise PeertaskError(f"no session with {peer_id} came about: {channel.reason}", code=channel.end_code)
        self._kept[peer_id] = None
        return peer_id

    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, and let it be; see `Network.disconnect`."""
        self._kept.pop(peer_id, None)
        channel = self._sessions.get(peer_id)
        if channel is not None:
            channel.leave(ErrorCode.DRAINING, "the operator ended the session")

    def keep(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:  # noqa: ARG002 - nobody asks for it
        """Keep a session with a peer up from now on; see `Network.keep`."""
        peer_id = self._note(address)
        self._kept[peer_id] = None
        self.redial()
        return peer_id

    def is_peer_id(self, holder: str) -> bool:
        """Whether a node of the hub has the id."""
        return self._hub.knows(PeerId(holder))

    def channel(self, peer_id: PeerId) -> Channel | None:
        """Return the open session with a peer."""
        channel = self._sessions.get(peer_id)
        return channel if channel is not None and channel.hello is not None else None

    def channels(self) -> Sequence[Channel]:
        """Return all open sessions."""
        return [channel for channel in self._sessions.values() if channel.hello is not None]

    def announce(self) -> None:
        """Tell every connected peer what this node offers now."""
        for channel in self.channels():
            advert = self._advert(channel.peer_id)
            channel.send(Offer(slots=advert.slots, kinds=advert.kinds, personas=advert.personas))

    def beat(self) -> None:
        """Tell every connected peer how busy this node is."""
        for channel in self.channels():
            channel.send(Heartbeat(self._advert(channel.peer_id).load))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever sessions or adverts have changed."""
        self._listeners.append(listener)

    def peers(self) -> Sequence[PeerInfo]:
        """Return every peer that is known, the connected ones first."""
        known = dict.fromkeys((*self._sessions, *self._kept, *self._errors))
        return sorted((self._info(peer_id) for peer_id in known), key=lambda peer: not peer.connected)

    # --- dialling ----------------------------------------------------------------------------------------------------

    def redial(self) -> None:
        """Dial, soon, whom this node wants a session with and has none."""
        for peer_id in [peer for peer in self._kept if peer not in self._sessions]:
            self._hub.nursery.start_soon(self._redial, peer_id)

    async def _redial(self, peer_id: PeerId) -> None:
        await trio.sleep(REDIAL_S)
        if self.is_running and peer_id in self._kept and peer_id not in self._sessions:
            with suppress(PeertaskError):  # peers() tells why
                self._dial(peer_id)

    def _dial(self, peer_id: PeerId) -> MemoryChannel:
        dialled = self._hub.dial(self, peer_id)
        if isinstance(dialled, MemoryChannel):
            return dialled
        self._errors[peer_id] = dialled
        raise PeertaskError(
            f"{peer_id} cannot be reached from {self.peer_id}: {dialled}", code=ErrorCode.PEER_UNREACHABLE
        )

    def session_with(self, peer_id: PeerId, *, dialled: bool) -> MemoryChannel:
        """Return this node's end of a new session; a former one, which the peer has left already, is over."""
        self.lose(peer_id, "the peer has opened a new session")
        channel = self._sessions[peer_id] = MemoryChannel(self, peer_id, dialled=dialled)
        return channel

    def lose(self, peer_id: PeerId, reason: str) -> None:
        """End the session with a peer, if there is one, as a broken link does."""
        channel = self._sessions.get(peer_id)
        if channel is not None:
            channel.end(ErrorCode.PEER_LOST, reason)

    def _note(self, address: str) -> PeerId:
        if not address.startswith("/"):
            name = peer_id = address
        else:
            match = _ADDRESS.fullmatch(address)
            if match is None:
                raise PeertaskError(
                    f"{address!r} is not an address of this network",
                    code=ErrorCode.INVALID_ADDRESS,
                    remedy="An address looks like /memory/NAME/p2p/NAME",
                )
            name, peer_id = match.groups()
        return self._checked(PeerId(name), PeerId(peer_id), address)

    def _checked(self, name: PeerId, peer_id: PeerId, address: str) -> PeerId:
        if self.peer_id in (name, peer_id):
            raise PeertaskError(f"{address} is this node itself", code=ErrorCode.INVALID_ADDRESS)
        if name != peer_id and self._hub.knows(name):
            raise PeertaskError(f"{name} answers at {address}", code=ErrorCode.WRONG_PEER)
        return peer_id

    # --- what the channels tell --------------------------------------------------------------------------------------

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer about this node."""
        return Hello(agent="memory", advert=self._advert(peer_id), limits=self.limits, addresses=self.addresses)

    def carry(self, channel: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Hand a frame to the hub."""
        self._hub.post(channel, frame, pieces)

    def greeted(self, channel: MemoryChannel) -> None:
        """Tell the node that a session is open."""
        self._errors.pop(channel.peer_id, None)
        for handler in self._handlers.values():
            handler.opened(channel)
        self._tell_change()

    def received(self, channel: MemoryChannel, frame: Frame) -> None:
        """Pass a frame about a task to this node's half of the conversation."""
        self._handlers[ADDRESSEE[type(frame)]].received(channel, frame)

    def adverted(self, channel: MemoryChannel) -> None:
        """Tell the node that a peer's advert has changed."""
        if self._sessions.get(channel.peer_id) is channel:
            self._tell_change()

    def ended(self, channel: MemoryChannel) -> None:
        """Forget a session that is over; one that is to be kept up is dialled again."""
        if self._sessions.get(channel.peer_id) is channel:
            del self._sessions[channel.peer_id]
        self._errors[channel.peer_id] = channel.reason
        if channel.hello is not None:
            for handler in self._handlers.values():
                handler.closed(channel, channel.reason)
            self._tell_change()
        if self.is_running:
            self.redial()

    def _tell_change(self) -> None:
        for listener in self._listeners:
            listener()

    def _info(self, peer_id: PeerId) -> PeerInfo:
        channel = self._sessions.get(peer_id)
        hello = channel.hello if channel is not None else None
        return PeerInfo(
            peer_id,
            connected=hello is not None,
            addresses=(_address(peer_id),),
            advert=channel.advert if channel is not None else None,
            last_error=self._errors.get(peer_id, ""),
            agent=hello.agent if hello is not None else "",
        )


def _address(peer_id: PeerId) -> str:
    return f"/memory/{peer_id}/p2p/{peer_id}"


def _no_advert(_peer_id: PeerId) -> PeerAdvert:
    return PeerAdvert()
