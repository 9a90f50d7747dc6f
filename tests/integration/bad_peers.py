"""Peers that do not keep to the session protocol, or only to the letter of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libp2p.abc import IMuxedStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError

from node.net.identity import peer_id_of
from protocol import PROTOCOL_ID, Bye, Frame, FrameDecoder, Limits, PeerId, RemoteProtocolError, encode_frame
from tests.integration.foreign_peers import ForeignPeer, foreign_peer

READ_BYTES = 65_536
# What a peer may announce, so that it can send what no honest one would.
BOUNDLESS = Limits(frame=64 * 1024 * 1024, chunk=64 * 1024 * 1024, payload=2**40)


class RawStream:
    """A stream of the session protocol without a session behind it."""

    def __init__(self, stream: IMuxedStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._heard: list[Frame] = []

    async def say(self, *frames: Frame) -> None:
        """Send frames, in one write."""
        await self.stream.write(b"".join(piece for frame in frames for piece in encode_frame(frame, BOUNDLESS)))

    async def hear(self) -> Frame | None:
        """Return the next frame; None at the end."""
        while not self._heard:
            try:
                data = await self.stream.read(READ_BYTES)
            except (MuxedStreamEOF, MuxedStreamError):
                return None
            self._heard += self._decoder.feed(data)
        return self._heard.pop(0)

    async def hear_bye(self) -> Bye:
        """Skip frames until the peer says goodbye."""
        while (frame := await self.hear()) is not None:
            if isinstance(frame, Bye):
                return frame
        raise RemoteProtocolError("the stream ended without a Bye")


class BadPeer:
    """A connected peer of a node that the test plays.

    Attributes:
        peer_id: who it is.
        foreign: its connection.
    """

    def __init__(self, key_pair: KeyPair, foreign: ForeignPeer) -> None:
        self.peer_id: PeerId = peer_id_of(key_pair)
        self.foreign = foreign

    async def open(self) -> RawStream:
        """Open a stream for the session protocol."""
        return RawStream(await self.foreign.open(TProtocol(PROTOCOL_ID)))


@asynccontextmanager
async def bad_peer(address: str) -> AsyncIterator[BadPeer]:
    """A connected peer; at the end it vanishes without a goodbye."""
    key_pair = create_new_key_pair()
    async with foreign_peer(address, key_pair) as foreign:
        yield BadPeer(key_pair, foreign)
