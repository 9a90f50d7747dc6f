"""What lies between the nodes of a simulation: connections that are slow, break, and are cut off.

A connection is what TCP makes of a network: within it nothing is lost, doubled or overtaken. So what a bad network does
to a node is this, and nothing else:

- frames take their time, each direction its own; a large one takes longer, and frames about other tasks overtake it, as
  in a session of `node.net`;
- a connection breaks: what is under way is lost from some frame on, in each direction another, and each end learns of
  it at its own time;
- nothing comes through for a while (a partition, a machine that stands still). When that is over soon, everything
  arrives, late. Otherwise each end gives the session up by itself, some time after it has heard nothing for
  `SILENCE_S`; until then it believes in it;
- a connection that one end has given up is found out by the other when something comes through again.

What was lost is sent again by the nodes, on the next session: that is how a task comes to be submitted twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import trio

from node.config import HEARTBEAT_MS, SILENCE_MS
from node.testing.memory_channel import MemoryChannel
from node.testing.memory_network import MemoryNetwork
from node.testing.simulation.trace import Trace
from node.testing.simulation.virtual_time import Timeline
from protocol import Bye, ErrorCode, Frame, Hello, PeerId, TaskId

SILENCE_S = SILENCE_MS / 1000
HEARTBEAT_S = HEARTBEAT_MS / 1000
# As node.net waits for a Hello.
GREETING_S = 10.0
# TCP tries again at ever longer intervals; this is what is left of the last one when the link is whole again.
RESEND_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long frames take from one node to another.

    Attributes:
        shortest_s: the least, in seconds.
        longest_s: the most that a small frame takes, in seconds.
        large_share: how many of the frames about tasks are large, so that others overtake them; 0 to 1.
        large_s: what a large frame takes longer at the most, in seconds.
    """

    shortest_s: float = 0.001
    longest_s: float = 0.05
    large_share: float = 0.05
    large_s: float = 0.5

    def draw(self, rng: random.Random) -> float:
        """Return how long a small frame takes, in seconds."""
        return rng.uniform(self.shortest_s, self.longest_s)

    def draw_size(self, rng: random.Random) -> float:
        """Return how much longer a frame about a task takes because it is large, in seconds; 0 for a small one."""
        if self.large_share and rng.random() < self.large_share:
            return rng.uniform(0, self.large_s)
        return 0.0


class Station(Protocol):
    """The network of one node, as the links see it.

    Attributes:
        asleep_since: since when the node stands still, in seconds; None when it does not.
    """

    peer_id: PeerId
    is_running: bool
    asleep_since: float | None

    def when_awake(self, action: Callable[[], None]) -> None:
        """Do something now, or when the node does not stand still any more."""

    def redial(self) -> None:
        """Dial, soon, whom the node wants a session with and has none."""

    def session_with(self, peer_id: PeerId, *, dialled: bool) -> MemoryChannel:
        """Return this node's end of a new session."""


@dataclass(slots=True)
class _Parcel:
    """A frame on its way; without a frame it tells that the sender has ended the connection."""

    pipe: _Pipe
    number: int
    pieces: Sequence[bytes]
    frame: Frame | None


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of a connection."""

    sender: MemoryChannel
    sent: int = 0
    arrived: int = 0
    lost_after: int | None = None
    not_before: float = 0.0
    resumes_at: float = 0.0
    latest: float = 0.0
    latest_small: float = 0.0
    latest_of: dict[TaskId, float] = field(default_factory=dict)
    held: list[_Parcel] = field(default_factory=list)

    def line_up(
        self, at: float, frame: Frame | None = None, task_id: TaskId | None = None, larger: float = 0.0
    ) -> float:
        """Return when a frame arrives that would do so at a time if it were alone; with none, the end of the pipe."""
        at = max(at, self.not_before)
        if frame is None or isinstance(frame, Hello | Bye):
            at = self.not_before = max(at, self.latest)
        else:
            if larger:
                at += larger
            else:
                at = self.latest_small = max(at, self.latest_small)
            if task_id is not None:
                at = self.latest_of[task_id] = max(at, self.latest_of.get(task_id, 0.0))
        self.latest = max(at, self.latest)
        return at

    def cut(self, rng: random.Random) -> None:
        """Lose what is under way, from some frame on, and all that is still sent."""
        if self.lost_after is None:
            self.lost_after = rng.randint(min(self.arrived, self.sent), self.sent)


class Links:
    """Brings frames from node to node, and brings about what a bad network does.

    Args:
        nursery: for tasks of the networks.
        timeline: when.
        rng: draws how long things take, and what is lost.
        trace: told of everything.
        latency: how long frames take.
    """

    def __init__(
        self, nursery: trio.Nursery, timeline: Timeline, rng: random.Random, trace: Trace, latency: Latency
    ) -> None:
        self.nursery = nursery
        self.timeline = timeline
        self.latency = latency
        self._rng = rng
        self._trace = trace
        self._stations: dict[PeerId, Station] = {}
        self._pipes: dict[MemoryChannel, _Pipe] = {}
        self._blocked: dict[frozenset[PeerId], float] = {}

    def join(self, station: MemoryNetwork) -> None:
        """Take the network of a node in; it replaces the one that the node had before its restart."""
        self._stations[station.peer_id] = cast("Station", station)

    def knows(self, peer_id: PeerId) -> bool:
        """Whether there is such a node, running or not."""
        return peer_id in self._stations

    def redial(self) -> None:
        """Let every network dial whom it wants a session with and has none."""
        for station in self._stations.values():
            station.redial()

    # --- what happens to links ---------------------------------------------------------------------------------------

    def block(self, one: PeerId, other: PeerId) -> None:
        """Let nothing through between two nodes until `unblock`."""
        pair = frozenset((one, other))
        if pair in self._blocked:
            return
        self._blocked[pair] = trio.current_time()
        for channel in self._open_between(one, other):
            self._expect_silence(channel, pair, trio.current_time())

    def unblock(self, one: PeerId, other: PeerId) -> None:
        """Let everything through again: what is held up arrives, late."""
        if self._blocked.pop(frozenset((one, other)), None) is None:
            return
        for pipe in list(self._pipes.values()):
            if pipe.held and {pipe.sender.own_id, pipe.sender.peer_id} == {one, other}:
                self._send_held(pipe)

    def blocked(self, one: PeerId, other: PeerId) -> bool:
        """Whether nothing comes through between two nodes."""
        return bool(self._blocked) and frozenset((one, other)) in self._blocked

    @property
    def any_blocked(self) -> bool:
        """Whether nothing comes through between some nodes."""
        return bool(self._blocked)

    def break_between(self, one: PeerId, other: PeerId) -> None:
        """Break the connections between two nodes; each end learns of it soon, at its own time."""
        for channel in self._open_between(one, other):
            self._pipes[channel].cut(self._rng)
            self.timeline.after(self._draw(), self._when_awake(channel.own_id, partial(_break, channel)))

    def die(self, peer_id: PeerId) -> None:
        """End all connections of a node whose process has died: of its last frames some arrive, and some do not."""
        for channel in [channel for channel in self._pipes if channel.own_id == peer_id and not channel.closed]:
            self._pipes[channel].cut(self._rng)
            channel.end(ErrorCode.PEER_LOST, "the process died")

    def stand_still(self, peer_id: PeerId) -> None:
        """Let the peers of a node that stands still find out."""
        for channel in [channel for channel in self._pipes if channel.peer_id == peer_id and not channel.closed]:
            self._expect_silence(channel, peer_id, trio.current_time())

    def _open_between(self, one: PeerId, other: PeerId) -> list[MemoryChannel]:
        pair = {one, other}
        return [pipe for pipe in self._pipes if {pipe.own_id, pipe.peer_id} == pair and not pipe.closed]

    def _expect_silence(self, channel: MemoryChannel, cause: frozenset[PeerId] | PeerId, since: float) -> None:
        """Let one end give a session up, unless it hears something in time."""
        seconds = SILENCE_S + self._rng.uniform(0, HEARTBEAT_S)
        self.timeline.after(seconds, partial(self._judge_silence, channel, cause, since))

    def _judge_silence(self, channel: MemoryChannel, cause: frozenset[PeerId] | PeerId, since: float) -> None:
        begun = self._stations[cause].asleep_since if isinstance(cause, str) else self._blocked.get(cause)
        if channel.closed or begun != since:
            return
        if self._stations[channel.own_id].asleep_since is not None:  # it hears nothing because it stands still itself
            self._expect_silence(channel, cause, since)
            return
        pipe = self._pipes[channel]
        pipe.lost_after = pipe.arrived
        channel.end(ErrorCode.PEER_LOST, f"nothing was heard from the peer for {SILENCE_S:.0f} s")

    # --- what the networks use ---------------------------------------------------------------------------------------

    def dial(self, caller: MemoryNetwork, peer_id: PeerId) -> MemoryChannel:
        """Open a connection, and return the caller's end: its Hello makes the other."""
        channel = caller.session_with(peer_id, dialled=True)
        self._pipes[channel] = _Pipe(channel)
        channel.greet()
        self.timeline.after(GREETING_S, self._when_awake(channel.own_id, partial(_give_up, channel)))
        return channel

    def post(self, channel: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Bring the bytes of a frame to the other end of a channel, in time."""
        task_id = getattr(frame, "task_id", None)
        self._trace.note(channel.own_id, f"sends {type(frame).__name__} to {channel.peer_id}", task_id)
        channel.queued += len(pieces)
        pipe = self._pipes[channel]
        pipe.sent += 1
        parcel = _Parcel(pipe, pipe.sent, pieces, frame)
        at = trio.current_time() + self.latency.draw(self._rng)
        larger = self.latency.draw_size(self._rng) if task_id is not None else 0.0
        self.timeline.at(pipe.line_up(at, frame, task_id, larger), partial(self._arrive, parcel))

    def close(self, channel: MemoryChannel) -> None:
        """Tell the other end that this one has ended the connection, after all that was sent."""
        pipe = self._pipes[channel]
        at = pipe.line_up(trio.current_time() + self._draw())
        self.timeline.at(at, partial(self._arrive, _Parcel(pipe, 0, (), None)))

    def _arrive(self, parcel: _Parcel) -> None:
        pipe = parcel.pipe
        sender = pipe.sender
        if self.blocked(sender.own_id, sender.peer_id):
            pipe.held.append(parcel)
        elif trio.current_time() < pipe.resumes_at:  # what was held up comes first
            self.timeline.at(pipe.resumes_at, partial(self._arrive, parcel))
        else:
            self._stations[sender.peer_id].when_awake(partial(self._hand_over, parcel))

    def _send_held(self, pipe: _Pipe) -> None:
        """Send what was held up again; it takes as long as the other end takes to find out that it can."""
        held, pipe.held = pipe.held, []
        at = trio.current_time() + self._rng.uniform(0, RESEND_S)
        pipe.resumes_at = at
        pipe.not_before = max(at, pipe.not_before)
        self.timeline.at(at, partial(self._deliver_all, held))

    def _deliver_all(self, parcels: list[_Parcel]) -> None:
        for parcel in parcels:
            self._arrive(parcel)

    def _hand_over(self, parcel: _Parcel) -> None:
        pipe = parcel.pipe
        sender, receiver = pipe.sender, pipe.sender.other
        if parcel.frame is None:
            self._forget(pipe)
            if receiver is not None:
                receiver.end(ErrorCode.PEER_LOST, "the peer ended the session without a Bye")
            return
        sender.queued -= len(parcel.pieces)
        if pipe.lost_after is not None and parcel.number > pipe.lost_after:
            self._trace.note(sender.peer_id, f"never gets {type(parcel.frame).__name__} of {sender.own_id}")
            return
        pipe.arrived = max(pipe.arrived, parcel.number)
        if receiver is None:
            receiver = self._answer(sender)
        if receiver is not None and not receiver.closed:
            for piece in parcel.pieces:
                receiver.receive(piece)

    def _answer(self, near: MemoryChannel) -> MemoryChannel | None:
        """Return the other end of a new connection, unless nobody listens there."""
        station = self._stations[near.peer_id]
        if near.closed:
            return None
        if not station.is_running:
            reason = f"{near.peer_id} is not running"
            action = partial(near.end, ErrorCode.PEER_UNREACHABLE, reason)
            self.timeline.after(self._draw(), self._when_awake(near.own_id, action))
            return None
        far = station.session_with(near.own_id, dialled=False)
        near.other, far.other = far, near
        self._pipes[far] = _Pipe(far)
        return far

    def _forget(self, pipe: _Pipe) -> None:
        self._pipes.pop(pipe.sender, None)

    def _draw(self) -> float:
        return self.latency.draw(self._rng)

    def _when_awake(self, peer_id: PeerId, action: partial[None]) -> partial[None]:
        return partial(self._stations[peer_id].when_awake, action)


def _break(channel: MemoryChannel) -> None:
    channel.end(ErrorCode.PEER_LOST, "the connection broke")


def _give_up(channel: MemoryChannel) -> None:
    if channel.hello is None:
        channel.end(ErrorCode.PEER_UNREACHABLE, f"it did not say Hello within {GREETING_S:.0f} s")
