"""The network of one node of a simulation: sessions that take time, and rival each other as those of node.net do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from node.interfaces import ChannelHandler
from node.testing.memory_channel import MemoryChannel
from node.testing.memory_network import MemoryNetwork
from node.testing.simulation.links import HEARTBEAT_S, Links
from protocol import DEFAULT_LIMITS, ErrorCode, Frame, Heartbeat, Hello, Limits, PeerAdvert, PeerId

# As in node.net: waits between two dials of a peer that is away, with full jitter.
FIRST_REDIAL_S = 0.25
LONGEST_REDIAL_S = 30.0
FAILURES_OF_A_GOODBYE = 4
_DOUBLINGS = 7


class SimulatedNetwork(MemoryNetwork):
    """The sessions of one process of a node.

    Args:
        links: bring the frames over.
        peer_id: who the node is.
        rng: draws when it dials again.
        limits: what it takes from one peer.
        listener: called with every frame that is to be sent, before it is.

    Attributes:
        asleep_since: since when it stands still, in seconds; None when it does not.
    """

    def __init__(
        self,
        links: Links,
        peer_id: str,
        rng: random.Random,
        *,
        limits: Limits = DEFAULT_LIMITS,
        listener: Callable[[MemoryChannel, Frame], None] = lambda _channel, _frame: None,
    ) -> None:
        super().__init__(links, peer_id, limits=limits)
        self.asleep_since: float | None = None
        self._links = links
        self._rng = rng
        self._listener = listener
        self._instance = f"{rng.getrandbits(64):016x}"
        self._open: dict[MemoryChannel, None] = {}
        self._dialling: set[PeerId] = set()
        self._failures: dict[PeerId, int] = {}
        self._told_loads: dict[MemoryChannel, int] = {}
        self._inbox: list[Callable[[], None]] = []
        self._dead = False

    @asynccontextmanager
    async def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AsyncIterator[None]:
        """Keep sessions for the length of the context; see `Network.running`."""
        async with super().running(worker, requester, advert):
            self._links.timeline.after(HEARTBEAT_S, partial(self.when_awake, self._beat))
            try:
                yield
            finally:
                self.is_running = False
                for channel in list(self._open):
                    channel.leave(ErrorCode.DRAINING, "the node is stopping")

    # --- standing still and dying ------------------------------------------------------------------------------------

    def fall_asleep(self) -> None:
        """Take nothing in until `wake_up`."""
        self.asleep_since = trio.current_time()

    def wake_up(self) -> None:
        """Take in what came meanwhile, in order."""
        self.asleep_since = None
        inbox, self._inbox = self._inbox, []
        for action in inbox:
            action()

    def when_awake(self, action: Callable[[], None]) -> None:
        """Do something now, or when this node does not stand still any more."""
        if self.asleep_since is None:
            action()
        else:
            self._inbox.append(action)

    def die(self) -> None:
        """Stop at once, as the process does: nobody at this node is told, and nothing more leaves it."""
        self._dead = True
        self.is_running = False
        self.asleep_since = None
        self._inbox.clear()
        self._links.die(self.peer_id)

    # --- dialling ----------------------------------------------------------------------------------------------------

    def redial(self) -> None:
        """Dial, soon, whom this node wants a session with and has none."""
        for peer_id in [peer for peer in self._kept if peer not in self._sessions and peer not in self._dialling]:
            self._dialling.add(peer_id)
            failures = self._failures.get(peer_id, 0)
            longest = min(LONGEST_REDIAL_S, FIRST_REDIAL_S * 2.0 ** min(failures - 1, _DOUBLINGS)) if failures else 0.0
            action = partial(self.when_awake, partial(self._redial_now, peer_id))
            self._links.timeline.after(self._rng.uniform(0, longest), action)

    def _redial_now(self, peer_id: PeerId) -> None:
        if not self.is_running or peer_id not in self._kept or peer_id in self._sessions:
            self._dialling.discard(peer_id)
        else:
            self._dial(peer_id)

    def _dial(self, peer_id: PeerId) -> MemoryChannel:
        self._dialling.add(peer_id)
        under_way = (channel for channel in self._open if channel.peer_id == peer_id and channel.dialled)
        return next(under_way, None) or self._links.dial(self, peer_id)

    def session_with(self, peer_id: PeerId, *, dialled: bool) -> MemoryChannel:
        """Return this node's end of a new session; it counts when the peer has said Hello."""
        channel = MemoryChannel(self, peer_id, dialled=dialled)
        self._open[channel] = None
        return channel

    # --- what the channels tell --------------------------------------------------------------------------------------

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer about this node."""
        return replace(super().hello_for(peer_id), instance=self._instance)

    def carry(self, channel: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Hand a frame to the links."""
        if not self._dead:
            self._listener(channel, frame)
            super().carry(channel, frame, pieces)

    def greeted(self, channel: MemoryChannel) -> None:
        """Let a session go on, unless the pair has a better one."""
        peer_id = channel.peer_id
        rival = self._sessions.get(peer_id)
        if rival is not None:
            if not self._replaces(channel, rival):
                channel.leave(ErrorCode.CONFLICT, "another session of this pair goes on")
                return
            rival.leave(ErrorCode.CONFLICT, "another session of this pair replaces this one")
        self._sessions[peer_id] = channel
        self._failures.pop(peer_id, None)
        self._dialling.discard(peer_id)
        super().greeted(channel)

    def _replaces(self, new: MemoryChannel, old: MemoryChannel) -> bool:
        """Decide between two sessions of a pair so that both sides choose the same; as node.net does."""
        restarted = new.hello is not None and old.hello is not None and new.hello.instance != old.hello.instance
        if old.closed or restarted or new.dialled is old.dialled:
            return True
        return new.dialled is (self.peer_id < new.peer_id)

    def ended(self, channel: MemoryChannel) -> None:
        """Forget a session that is over; one that is to be kept up is dialled again."""
        self._links.close(channel)
        self._open.pop(channel, None)
        self._told_loads.pop(channel, None)
        if self._dead:
            return
        peer_id = channel.peer_id
        self._errors[peer_id] = channel.reason
        if channel.dialled:
            self._dialling.discard(peer_id)
        counted = self._sessions.get(peer_id) is channel
        self._note_failure(channel, counted=counted)
        if counted:
            del self._sessions[peer_id]
            for handler in self._handlers.values():
                handler.closed(channel, channel.reason)
            self._tell_change()
        if self.is_running:
            self.redial()

    def _note_failure(self, channel: MemoryChannel, *, counted: bool) -> None:
        failures = self._failures.get(channel.peer_id, 0)
        if channel.end_code is ErrorCode.DRAINING:
            self._failures[channel.peer_id] = max(failures + 1, FAILURES_OF_A_GOODBYE)
        elif channel.dialled and not counted:
            self._failures[channel.peer_id] = failures + 1

    def _beat(self) -> None:
        """Tell every peer how busy this node is, when that has changed; `Links` knows without a word who is silent."""
        if not self.is_running:
            return
        for channel in self._sessions.values():
            load = self._advert(channel.peer_id).load
            if self._told_loads.get(channel) != load:
                self._told_loads[channel] = load
                channel.send(Heartbeat(load))
        self._links.timeline.after(HEARTBEAT_S, partial(self.when_awake, self._beat))
