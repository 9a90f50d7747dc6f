"""What lies between memory networks, with faults on request."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from node.background import open_background
from node.testing.memory_channel import MemoryChannel
from protocol import Frame, PeerId


class Station(Protocol):
    """The network of one node, as the hub sees it."""

    peer_id: PeerId
    is_running: bool

    def redial(self) -> None:
        """Dial, soon, whom the node wants a session with and has none."""

    def lose(self, peer_id: PeerId, reason: str) -> None:
        """End the session with a peer, if there is one, as a broken link does."""

    def session_with(self, peer_id: PeerId, *, dialled: bool) -> MemoryChannel:
        """Return this node's end of a new session."""


@asynccontextmanager
async def open_memory_hub() -> AsyncIterator[MemoryHub]:
    """Open a hub for the length of the context; networks run within it."""
    async with open_background() as nursery:
        hub = MemoryHub(nursery)
        nursery.start_soon(hub.deliver)
        yield hub


@dataclass(frozen=True, slots=True)
class _Parcel:
    sender: MemoryChannel
    data: bytes


class MemoryHub:
    """What lies between memory networks: brings frames over, all in the order in which they were sent.

    One task delivers, so the same sends always arrive in the same order. Faults take effect at once.

    Args:
        nursery: for the tasks of the hub and its networks; `open_memory_hub` opens it.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._stations: dict[PeerId, Station] = {}
        self._wire: deque[_Parcel] = deque()
        self._held: list[_Parcel] = []
        self._cuts: set[frozenset[PeerId]] = set()
        self._paused: set[PeerId] = set()
        self._losses: list[tuple[PeerId, PeerId, type[Frame] | None]] = []
        self._news = trio.Event()

    def join(self, station: Station) -> None:
        """Take the network of a node in.

        Raises:
            ValueError: another node of this hub has the id.
        """
        if station.peer_id in self._stations:
            raise ValueError(f"the hub has a node {station.peer_id} already")
        self._stations[station.peer_id] = station

    # --- faults ------------------------------------------------------------------------------------------------------

    def cut(self, one: PeerId, other: PeerId, reason: str = "the link was cut") -> None:
        """Break the link between two nodes: their session ends without a Bye, what is on its way is lost.

        Dials fail until `heal`.
        """
        self._cuts.add(frozenset((one, other)))
        self._stations[one].lose(other, reason)
        self._stations[other].lose(one, reason)

    def heal(self, one: PeerId, other: PeerId) -> None:
        """Mend a link that was cut; those who keep a session up dial again."""
        self._cuts.discard(frozenset((one, other)))
        self.redial()

    def pause(self, peer_id: PeerId) -> None:
        """Freeze a node: nothing reaches it or leaves it, its sessions stay open, and nobody is told."""
        self._paused.add(peer_id)

    def resume(self, peer_id: PeerId) -> None:
        """Let a frozen node go on; what was held up arrives in the order of sending."""
        self._paused.discard(peer_id)
        self._wire.extendleft(reversed(self._held))
        self._held.clear()
        self._news.set()
        self.redial()

    def drop_next(self, sender: PeerId, receiver: PeerId, frame_type: type[Frame] | None = None) -> None:
        """Lose the next frame (of a type) from one node to another, although the sender has sent it.

        A stream never does that, but a peer with a defect does.
        """
        self._losses.append((sender, receiver, frame_type))

    # --- what the networks use ---------------------------------------------------------------------------------------

    def knows(self, peer_id: PeerId) -> bool:
        """Whether there is such a node, running or not."""
        return peer_id in self._stations

    def dial(self, caller: Station, peer_id: PeerId) -> MemoryChannel | str:
        """Open a session between two nodes, and return the caller's end; or, in words, why there can be none now."""
        if frozenset((caller.peer_id, peer_id)) in self._cuts:
            return "the link is cut"
        station = self._stations.get(peer_id)
        if station is None or not station.is_running:
            return f"{peer_id} is not running"
        if not self._paused.isdisjoint((caller.peer_id, peer_id)):
            return f"{peer_id} does not answer"
        near, far = caller.session_with(peer_id, dialled=True), station.session_with(caller.peer_id, dialled=False)
        near.other, far.other = far, near
        near.greet()
        return near

    def redial(self) -> None:
        """Let every network dial whom it wants a session with and has none."""
        for station in self._stations.values():
            station.redial()

    def post(self, sender: MemoryChannel, frame: Frame, pieces: Sequence[bytes]) -> None:
        """Bring the bytes of a frame to the other end of a channel, soon."""
        for loss in self._losses:
            if loss[:2] == (sender.own_id, sender.peer_id) and (loss[2] is None or isinstance(frame, loss[2])):
                self._losses.remove(loss)
                return
        self._wire.extend(_Parcel(sender, piece) for piece in pieces)
        sender.queued += len(pieces)
        self._news.set()

    async def deliver(self) -> None:
        """Bring frames over until cancelled."""
        while True:
            while self._wire:
                self._hand_over(self._wire.popleft())
                await trio.lowlevel.checkpoint()
            self._news = trio.Event()
            await self._news.wait()

    def _hand_over(self, parcel: _Parcel) -> None:
        sender, receiver = parcel.sender, parcel.sender.other
        if not self._paused.isdisjoint((sender.own_id, sender.peer_id)):
            self._held.append(parcel)
        elif receiver is not None:
            sender.queued -= 1
            receiver.receive(parcel.data)
