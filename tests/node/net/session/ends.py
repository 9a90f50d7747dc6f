"""Both ends of a session without libp2p: pipes, an owner that remembers, and a peer that says what it likes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from libp2p.network.stream.exceptions import StreamEOF, StreamReset

from node.background import open_background
from node.net.session import Initiator, Pulse, Session
from protocol import Frame, FrameDecoder, Hello, Limits, PeerAdvert, PeerId, Result, Submit, TaskResult, encode_frame

HERE = PeerId("12D3KooWHere")
THERE = PeerId("12D3KooWThere")
# A pipe without room: its writer waits, as it does for a peer that does not read.
NO_ROOM = 0
PULSE = Pulse(heartbeat_s=5.0, silence_s=15.0)


def result_for(submit: Submit, text: str = "done") -> Result:
    """The end of a task."""
    return Result(task_id=submit.task_id, seq=2, result=TaskResult(submit.task_id, text, 1))


class Pipe:
    """One direction of a stream; a writer waits while the room is used up.

    Attributes:
        writes: what each write brought, in order.
        room: bytes that may lie in it unread; None for no limit.
        cancelled: how often a read or a write of it was cancelled, which would corrupt a connection of libp2p.
    """

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.room: int | None = None
        self.cancelled = 0
        self._unread = bytearray()
        self._ended = False
        self._broken = False
        self._changed = trio.Event()

    async def write(self, data: bytes) -> None:
        """Put bytes in."""
        await self._wait_until(lambda: self._broken or self.room is None or len(self._unread) < self.room)
        if self._broken or self._ended:
            raise StreamReset
        self.writes.append(data)
        self._unread += data
        self._tell_change()

    async def read(self, size: int) -> bytes:
        """Take some bytes out."""
        await self._wait_until(lambda: bool(self._unread) or self._ended or self._broken)
        if not self._unread or self._broken:
            raise StreamEOF
        data = bytes(self._unread[:size])
        del self._unread[:size]
        self._tell_change()
        return data

    def end(self) -> None:
        """Let the reader see the end after what is in it."""
        self._ended = True
        self._tell_change()

    def snap(self) -> None:
        """Lose what is in it, and fail both ends."""
        self._broken = True
        self._tell_change()

    def widen(self) -> None:
        """Make room without limit."""
        self.room = None
        self._tell_change()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        try:
            await trio.lowlevel.checkpoint()
            while not condition():
                await self._changed.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class PipeStream:
    """One end of a stream, as `node.net.session.ByteStream`."""

    def __init__(self, inbound: Pipe, outbound: Pipe) -> None:
        self.inbound = inbound
        self.outbound = outbound

    async def read(self, n: int | None = None) -> bytes:
        """Take some bytes in."""
        return await self.inbound.read(n or 65_536)

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self.outbound.write(data)

    async def close(self) -> None:
        """End this side."""
        await trio.lowlevel.checkpoint()
        self.outbound.end()


class PipeCarrier:
    """The connection under a stream, as `node.net.session.Carrier`.

    Attributes:
        endings: how it was ended, in order: "close" or "abort".
        ended: set when it is gone.
        remote_host: where the peer comes from.
        relay_id: through which relay.
        is_needed: whether somebody else has a use for it.
    """

    remote_host = "192.0.2.7"
    relay_id = ""
    is_needed = False

    def __init__(self, *pipes: Pipe) -> None:
        self._pipes = pipes
        self.endings: list[str] = []
        self.ended = trio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether it is gone."""
        return self.ended.is_set()

    async def close(self) -> None:
        """End it with a goodbye."""
        await self._end("close")

    async def abort(self) -> None:
        """End it without a word."""
        await self._end("abort")

    async def _end(self, how: str) -> None:
        self.endings.append(how)
        self.ended.set()
        for pipe in self._pipes:
            pipe.snap()
        await trio.lowlevel.checkpoint()


class RecordingOwner:
    """Takes note of what sessions tell, as `node.net.session.SessionOwner`.

    Attributes:
        advert: what it says about its node.
        limits: what it says that its node takes.
        accepts: whether sessions may go on.
        last: whether the connection carries one session only.
        defect: raised by everything that a session tells or asks, if it is an exception.
        greetings, frames, adverts, moves, endings: what it was told.
    """

    def __init__(self, *, limits: Limits | None = None, load: int = 3) -> None:
        self.advert = PeerAdvert(kinds=("echo",), slots=4, load=load)
        self.limits = limits or Limits()
        self.accepts = True
        self.last = True
        self.defect: Exception | None = None
        self.greetings: list[Session] = []
        self.frames: list[Frame] = []
        self.adverts: list[PeerAdvert | None] = []
        self.moves: list[tuple[str, ...]] = []
        self.endings: list[str] = []
        self._changed = trio.Event()

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer."""
        return Hello(agent=f"test, for {peer_id}", advert=self.advert, limits=self.limits)

    def load(self) -> int:
        """Return how busy its node is."""
        return self.advert.load

    def greeted(self, session: Session) -> bool:
        """Note it."""
        self.greetings.append(session)
        self._tell_change()
        return self.accepts

    def received(self, session: Session, frame: Frame) -> None:  # noqa: ARG002
        """Note it, or fail."""
        if self.defect is not None:
            raise self.defect
        self.frames.append(frame)
        self._tell_change()

    def adverted(self, session: Session) -> None:
        """Note it."""
        self.adverts.append(session.advert)
        self._tell_change()

    def moved(self, session: Session, addresses: tuple[str, ...]) -> None:  # noqa: ARG002
        """Note it."""
        self.moves.append(addresses)
        self._tell_change()

    def ended(self, session: Session) -> None:
        """Note it."""
        self.endings.append(session.reason)
        self._tell_change()

    def is_last(self, session: Session) -> bool:  # noqa: ARG002
        """Return what the test said."""
        return self.last

    async def wait_for_frames(self, count: int) -> list[Frame]:
        """Return the frames when so many have come."""
        while len(self.frames) < count:
            await self._changed.wait()
        return self.frames

    async def wait_for_greeting(self) -> Session:
        """Return the session that was greeted first."""
        while not self.greetings:
            await self._changed.wait()
        return self.greetings[0]

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class RawPeer:
    """The other end of a session, played by the test.

    Args:
        stream: its end.
    """

    def __init__(self, stream: PipeStream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()
        self._heard: list[Frame] = []

    async def say(self, *frames: Frame) -> None:
        """Send frames."""
        for frame in frames:
            for piece in encode_frame(frame):
                await self.stream.write(piece)

    async def hear(self) -> Frame:
        """Return the next frame."""
        while not self._heard:
            self._heard += self._decoder.feed(await self.stream.read())
        return self._heard.pop(0)

    async def hear_all(self) -> list[Frame]:
        """Return all frames up to the end of the stream."""
        frames: list[Frame] = []
        try:
            while True:
                frames.append(await self.hear())
        except StreamEOF:
            return frames


class Ends:
    """A stream between two ends.

    Attributes:
        ours: the end of the session under test.
        theirs: the other end.
        carrier: the connection, as our end sees it.
        their_carrier: the same, as the other end sees it.
    """

    def __init__(self) -> None:
        inbound, outbound = Pipe(), Pipe()
        self.ours = PipeStream(inbound, outbound)
        self.theirs = PipeStream(outbound, inbound)
        self.carrier = PipeCarrier(inbound, outbound)
        self.their_carrier = PipeCarrier(inbound, outbound)

    def session(
        self,
        owner: RecordingOwner,
        initiator: Initiator = Initiator.PEER,
        pulse: Pulse | None = None,
        limits: Limits | None = None,
    ) -> Session:
        """Return a session at our end, which does not run yet."""
        return Session(self.ours, self.carrier, THERE, initiator, owner, limits=limits or owner.limits, pulse=pulse)

    def their_session(self, owner: RecordingOwner, initiator: Initiator = Initiator.SELF) -> Session:
        """Return a session at the other end, which does not run yet."""
        return Session(self.theirs, self.their_carrier, HERE, initiator, owner, limits=owner.limits)


@asynccontextmanager
async def raw_peer(
    owner: RecordingOwner,
    initiator: Initiator = Initiator.PEER,
    pulse: Pulse | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Session, RawPeer, Ends]]:
    """A session that runs against a peer that the test plays; it is told to leave at the end."""
    ends = Ends()
    session = ends.session(owner, initiator, pulse, limits)
    async with open_background() as nursery:
        nursery.start_soon(session.run)
        try:
            yield session, RawPeer(ends.theirs), ends
        finally:
            ends.ours.inbound.end()


@asynccontextmanager
async def two_sessions(ours: RecordingOwner, theirs: RecordingOwner) -> AsyncIterator[tuple[Session, Session, Ends]]:
    """Two sessions that run against each other and have said Hello; the other end has opened the stream."""
    ends = Ends()
    session, other = ends.session(ours), ends.their_session(theirs)
    async with open_background() as nursery:
        nursery.start_soon(session.run)
        nursery.start_soon(other.run)
        await ours.wait_for_greeting()
        await theirs.wait_for_greeting()
        yield session, other, ends
