"""A channel handler that remembers everything."""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.interfaces import Channel, ChannelHandler
from protocol import Frame, PeerId


class RecordingHandler(ChannelHandler):
    """Keeps what channels bring, and lets a test wait for it.

    Attributes:
        openings: the channels that were opened, in order.
        arrivals: who sent which frame, in order.
        endings: whose session ended for which reason, in order.
    """

    def __init__(self) -> None:
        self.openings: list[Channel] = []
        self.arrivals: list[tuple[PeerId, Frame]] = []
        self.endings: list[tuple[PeerId, str]] = []
        self._changed = trio.Event()

    @property
    def frames(self) -> list[Frame]:
        """The frames that arrived, whoever sent them."""
        return [frame for _, frame in self.arrivals]

    def opened(self, channel: Channel) -> None:
        """Note the channel."""
        self.openings.append(channel)
        self._tell_change()

    def received(self, channel: Channel, frame: Frame) -> None:
        """Note the frame."""
        self.arrivals.append((channel.peer_id, frame))
        self._tell_change()

    def closed(self, channel: Channel, reason: str) -> None:
        """Note the end."""
        self.endings.append((channel.peer_id, reason))
        self._tell_change()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds; it is looked at after each thing that this handler is told."""
        while not condition():
            await self._changed.wait()

    async def wait_for_frames(self, count: int) -> list[Frame]:
        """Return the frames when so many have arrived, in all."""
        await self.wait_until(lambda: len(self.arrivals) >= count)
        return self.frames

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
