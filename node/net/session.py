"""One stream with one peer: frames in, frames out, and the end of it.

Theory of operation. A write costs far more than a frame, so the writer lets the rest of the scheduler's pass queue its
frames before it takes them: what a busy moment produces shares a write. Large frames come in chunks, and between two
chunks everything small goes first. The reader hands frames over synchronously and never waits for anybody, because a
reader that stalls kills the peer's stream after 5 s.

Cancelling a read or a write can corrupt the whole connection under it (see `node.net.host`). So neither is ever
cancelled: they are shielded, and return by themselves when both sides have ended their half of the stream, or else when
the connection is made to go away. Deadlines are on waits in memory only. The connection may carry other sessions (two
peers that dial each other at once may find themselves on one), so a session that ends in good order closes it only when
it was the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, Protocol

import structlog
import trio
from libp2p.exceptions import BaseLibp2pError

from node.interfaces import Channel
from protocol import (
    DEFAULT_LIMITS,
    PROTOCOL_VERSION,
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
    Pieces,
    Reject,
    Role,
    Submit,
    TaskId,
    encode_frame,
)

log = structlog.get_logger(__name__)

# What so many frames bring about goes out before the next are taken, so both ends of a busy session work at a time.
FRAMES_A_PASS = 64
# What one read takes at the most; yamux's first window is as large.
READ_BYTES = 256 * 1024
# libp2p's Noise frames are 64 KiB at the most; a write below that is one of them.
WRITE_BYTES = 60 * 1024
# A peer that does not read is cut off by yamux after 5 s; until then this much of what it asked for may wait in memory.
MAX_QUEUED_BYTES = 64 * 1024 * 1024
# A simple client that neither asks nor waits for anything may stay this long.
IDLE_CLIENT_S = 300.0
# How long the last words of a session may take to be written.
FAREWELL_S = 2.0
# An event loop that was held up this long, or for a heartbeat, has not listened either: the silence may be its own.
OWN_PAUSE_S = 1.0
# A session on which nothing is under way beats at half the pace: a question is due when nothing was heard for longer.
QUIET_BEATS = 1.5
# Whoever did not open the stream leaves the asking to the other, for as long as leaves time for an answer.
PATIENT_BEATS = 1.6
# The side that is asked measures the round trip now and then too.
LATENCY_KEPT_S = 60.0
# A Bye with this much text is taken whatever the peer's limits are.
MAX_REASON_CHARS = 500
# What a peer that does not take its answers is told when it asks for more; by then it reads again, or is cut off.
BACKLOG_RETRY_MS = 1_000


class ByteStream(Protocol):
    """What a session needs of a libp2p stream."""

    async def read(self, n: int | None = None) -> bytes:
        """Return some bytes; none, or an error of libp2p, at the end."""

    async def write(self, data: bytes) -> None:
        """Write all of the bytes, or raise an error of libp2p."""

    async def close(self) -> None:
        """End this side of the stream."""


class Carrier(Protocol):
    """What a session needs of the connection under its stream."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection is gone."""

    @property
    def remote_host(self) -> str:
        """The IP address of the peer; empty when there is none."""

    @property
    def relay_id(self) -> str:
        """The peer that it goes through; empty when it goes to the peer itself."""

    @property
    def is_needed(self) -> bool:
        """Whether it has to stay open although no session has a use for it."""

    async def close(self) -> None:
        """End the connection, with a goodbye."""

    async def abort(self) -> None:
        """End the connection without waiting for the peer; readers and writers return."""


class Initiator(StrEnum):
    """Who opened the stream."""

    SELF = "self"
    PEER = "peer"


class SessionOwner(Protocol):
    """Who is told of what happens on sessions; all methods are synchronous, quick, and do not raise."""

    def hello_for(self, peer_id: PeerId) -> Hello:
        """Return what to tell a peer about this node."""

    def load(self) -> int:
        """Return how many tasks this node has, for the next heartbeat."""

    def greeted(self, session: Session) -> bool:
        """The peer has said who it is, or asked for something without a Hello: may the session go on?"""

    def received(self, session: Session, frame: Frame) -> None:
        """A frame about a task came."""

    def adverted(self, session: Session) -> None:
        """The peer's advert has changed."""

    def moved(self, session: Session, addresses: tuple[str, ...]) -> None:
        """The peer can be dialled at these addresses now, and at no others."""

    def ended(self, session: Session) -> None:
        """The session is over, for its `reason`; called once for each that `greeted` let go on."""

    def is_last(self, session: Session) -> bool:
        """Whether no other session is carried by the same connection."""


class Pulse(NamedTuple):
    """How a session finds out that its peer is gone.

    Attributes:
        heartbeat_s: how often one side asks and the other answers while they have work, in seconds; half as often else.
        silence_s: after how long without a word the peer is given up, in seconds.
    """

    heartbeat_s: float = 5.0
    silence_s: float = 15.0


class _Piece(NamedTuple):
    """A piece of a large frame, or one that must not overtake it; `ends` is the task whose frame it completes."""

    pieces: Sequence[bytes]
    number: int
    nbytes: int
    ends: TaskId | None


class Session(Channel):
    """A session over an open stream.

    Args:
        stream: opened for the session protocol.
        carrier: the connection under it.
        peer_id: who is at the other end, as authenticated.
        initiator: who opened the stream.
        owner: told of everything.
        limits: what this node takes.
        pulse: how a lost peer is found.

    Attributes:
        carrier: the connection under it.
        hello: what the peer said about itself; None for a simple client, and before it did.
        latency_ms: the round trip of the last heartbeat; None before the first.
        clock_offset_ms: how far the peer's clock is ahead, as the owner reckons; None when it cannot.
        over: set when the session has ended.
        reason: why, in words.
        end_code: why, for programs.
    """

    def __init__(
        self,
        stream: ByteStream,
        carrier: Carrier,
        peer_id: PeerId,
        initiator: Initiator,
        owner: SessionOwner,
        *,
        limits: Limits = DEFAULT_LIMITS,
        pulse: Pulse | None = None,
    ) -> None:
        self.peer_id = peer_id
        self.initiator = initiator
        self.advert: PeerAdvert | None = None
        self.hello: Hello | None = None
        self.in_flight = DEFAULT_LIMITS.in_flight
        self.local_in_flight = limits.in_flight
        self.offered: int | None = None
        self.latency_ms: float | None = None
        self.clock_offset_ms: int | None = None
        self.over = trio.Event()
        self.reason = ""
        self.end_code: ErrorCode | None = None
        self._stream = stream
        self.carrier = carrier
        self._owner = owner
        self._pulse = pulse or Pulse()
        self._peer_limits = DEFAULT_LIMITS
        self._decoder = FrameDecoder(limits)
        self._conversation = Conversation()
        self._small: list[bytes] = []
        self._large: deque[_Piece] = deque()
        self._large_tasks: set[TaskId] = set()
        self._queued = 0
        self._news = trio.Event()
        self._ending = trio.Event()
        self._written = trio.Event()
        self._read_out = trio.Event()
        self._greeted = False
        self._welcome = False
        self._silent = False
        self._refused = False
        self._heard_at = trio.current_time()
        self._measured_at = self._asked_at = float("-inf")

    def __repr__(self) -> str:
        state = "over" if self.closed else "open"
        return f"<Session with {self.peer_id} opened by {self.initiator}, {state}, queued={self._queued}>"

    __hash__ = object.__hash__

    @property
    def closed(self) -> bool:
        """Whether the session is over, or about to be."""
        return self.end_code is not None

    @property
    def remote_host(self) -> str:
        """The IP address that the peer comes from; empty when there is none."""
        return self.carrier.remote_host

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Queue a frame; see `Channel.send`."""
        if self.closed:
            raise PeertaskError(
                f"the session with peer {self.peer_id} is over: {self.reason}", code=ErrorCode.PEER_LOST
            )
        if self._queued > MAX_QUEUED_BYTES and isinstance(frame, Submit):
            raise PeertaskError(
                f"{self._queued:,} bytes wait to be sent to peer {self.peer_id}, and {MAX_QUEUED_BYTES:,} is the limit",
                code=ErrorCode.BUSY,
            )
        pieces = encode_frame(frame, self._peer_limits)
        self._conversation.send(frame)
        self._queue(frame, pieces)
        if self._read_out.is_set():
            self._end_unless_answers_are_due()

    def _queue(self, frame: Frame, pieces: list[bytes] | Pieces) -> None:
        task_id = getattr(frame, "task_id", None)
        behind_large = task_id in self._large_tasks or (type(frame) is Bye and bool(self._large))
        if isinstance(pieces, list) and not behind_large:
            self._small += pieces
            self._queued += len(pieces[0])
        else:
            self._queue_behind(pieces, task_id)
        self._news.set()

    def _queue_behind(self, pieces: list[bytes] | Pieces, task_id: TaskId | None) -> None:
        nbytes, each = (pieces.nbytes, pieces.piece_bytes) if isinstance(pieces, Pieces) else (len(pieces[0]),) * 2
        last = len(pieces) - 1
        self._large.extend(_Piece(pieces, number, each, None) for number in range(last))
        self._large.append(_Piece(pieces, last, nbytes - last * each, task_id))
        self._queued += nbytes
        if task_id is not None:
            self._large_tasks.add(task_id)

    def leave(self, code: ErrorCode, reason: str) -> None:
        """Say Bye, and end the session when everything that waits is written; no effect when it is over."""
        if not self.closed:
            self.send(Bye(code, reason[:MAX_REASON_CHARS]))
            self._finish(code, reason)

    def _refuse(self, error: PeertaskError) -> None:
        log.warning("session ended by this node", peer_id=self.peer_id, code=error.code.value, reason=error.message)
        self._large.clear()
        self._refused = True
        self.leave(error.code, str(error))

    def _refuse_defect(self, error: Exception) -> None:
        log.error("a defect of this node ended a session", peer_id=self.peer_id, exc_info=error)
        self._refuse(PeertaskError("the node has a defect; its log has the details"))

    def _drop_queue(self) -> None:
        self._small.clear()
        self._large.clear()
        self._queued = 0

    def _finish(self, code: ErrorCode, reason: str) -> None:
        if self.closed:
            return
        self.end_code = code
        self.reason = reason
        self._news.set()
        self._ending.set()

    async def _write(self) -> None:
        try:
            while await self._anything_to_write():
                for data in self._next_writes():
                    await self._stream.write(data)
        except BaseLibp2pError as error:
            self._finish(ErrorCode.PEER_LOST, f"writing to the peer failed: {type(error).__name__}")

    async def _anything_to_write(self) -> bool:
        while not (self._small or self._large):
            if self.closed:
                return False
            self._news = trio.Event()
            await self._news.wait()
            # The rest of this pass of the scheduler, and of the one that it wakes, queues its frames too.
            await trio.lowlevel.checkpoint()
        return True

    def _next_writes(self) -> list[bytes]:
        """Take everything small, and one piece of what is large."""
        small, self._small = b"".join(self._small), []
        self._queued -= len(small)
        writes = [small[start : start + WRITE_BYTES] for start in range(0, len(small), WRITE_BYTES)]
        if self._large:
            piece = self._large.popleft()
            self._queued -= piece.nbytes
            writes.append(piece.pieces[piece.number])
            if piece.ends is not None:
                self._large_tasks.discard(piece.ends)
        return writes

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while not self.closed and (data := await self._stream.read(READ_BYTES)):
                self._heard_at = trio.current_time()
                await self._take_all(self._decoder.feed(data))
        except BaseLibp2pError as error:
            log.debug("stream ended", peer_id=self.peer_id, reason=type(error).__name__)
        except PeertaskError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - a defect of the owner must not end the other sessions
            self._refuse_defect(error)

    async def _read_away(self) -> None:
        """Drop what comes after the end: closing a connection with bytes unread may lose this side's last words."""
        try:
            while await self._stream.read(READ_BYTES):
                pass
        except BaseLibp2pError as error:
            log.debug("stream ended", peer_id=self.peer_id, reason=type(error).__name__)

    def _end_unless_answers_are_due(self) -> None:
        """End with the peer's side of the stream; a simple client may have closed it and wait for its results."""
        if self.hello is not None or not self._conversation.under_way(Role.WORKER):
            self._finish(ErrorCode.PEER_LOST, "the peer ended the session without a Bye")

    async def _take_all(self, frames: list[Frame]) -> None:
        for start in range(0, len(frames), FRAMES_A_PASS):
            if start:
                await trio.lowlevel.checkpoint()
            for frame in frames[start : start + FRAMES_A_PASS]:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        self._conversation.receive(frame)
        if not self._greeted and not isinstance(frame, Bye):
            self._greet(frame)
        match frame:
            case Hello():
                pass
            case Heartbeat():
                self._take_heartbeat(frame)
            case Offer():
                self._take_offer(frame)
            case Bye():
                self._drop_queue()
                self._finish(frame.code, f"the peer said goodbye: {frame.message or frame.code.value}")
            case Submit() if self._queued > MAX_QUEUED_BYTES:
                self._refuse_task(frame)
            case _ if self._welcome and not self.closed:
                self._owner.received(self, frame)

    def _refuse_task(self, frame: Submit) -> None:
        message = f"{self._queued:,} bytes of answers wait for you to read them. Read them first"
        self.send(Reject(task_id=frame.task_id, code=ErrorCode.BUSY, message=message, retry_after_ms=BACKLOG_RETRY_MS))

    def _greet(self, frame: Frame) -> None:
        self._greeted = True
        if isinstance(frame, Hello):
            self._check_version(frame)
            self.hello = frame
            self.advert = frame.advert
            self.in_flight = frame.limits.in_flight
            self._peer_limits = frame.limits
            if self.initiator is Initiator.PEER:
                self.send(self._owner.hello_for(self.peer_id))
        self._welcome = self._owner.greeted(self)

    def _check_version(self, hello: Hello) -> None:
        own_major = PROTOCOL_VERSION.split(".", maxsplit=1)[0]
        if own_major not in {version.split(".")[0] for version in hello.versions}:
            raise PeertaskError(
                f"peer {self.peer_id} speaks versions {', '.join(hello.versions)} of the protocol, "
                f"and this node speaks {PROTOCOL_VERSION}",
                code=ErrorCode.INCOMPATIBLE_VERSION,
                remedy="Update the older of the two nodes",
            )

    def _take_offer(self, offer: Offer) -> None:
        self.offered = offer.slots if offer.pull else self.offered
        self._update_advert(kinds=offer.kinds, personas=offer.personas, slots=offer.slots)
        if offer.addresses is not None and self._welcome:
            self._owner.moved(self, offer.addresses)
        if offer.pull and self._welcome and not self.closed:
            self._owner.received(self, offer)

    def _take_heartbeat(self, beat: Heartbeat) -> None:
        if beat.ping and not self.closed:
            self.send(Heartbeat(self._owner.load(), pong=beat.ping))
        if beat.pong:
            self._measured_at = trio.current_time()
            self.latency_ms = max(0, _microseconds() - beat.pong) / 1000
        if self.advert is not None and self.advert.load != beat.load:
            self._update_advert(load=beat.load)

    def _update_advert(self, **changes: object) -> None:
        self.advert = replace(self.advert or PeerAdvert(), **changes)  # type: ignore[arg-type]
        if self._welcome:
            self._owner.adverted(self)

    # --- living and ending -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until the session is over; why it ended stands in `reason` then.

        Cancelling it ends the session with Bye; it returns when that is written, or could not be for some seconds.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._speak)
                try:
                    await self._live()
                finally:
                    with trio.CancelScope(shield=True):
                        self.leave(ErrorCode.DRAINING, "the node is stopping")
                        self._tell_end()
                        await self._go()
        finally:
            self._drop_queue()
            self.over.set()

    async def _listen(self) -> None:
        with trio.CancelScope(shield=True):
            await self._read()
            await self._read_away()
            self._read_out.set()
            self._end_unless_answers_are_due()

    async def _speak(self) -> None:
        with trio.CancelScope(shield=True):
            await self._write()
            await self._close_stream()
            self._written.set()

    def _tell_end(self) -> None:
        if self._welcome:
            self._welcome = False
            try:
                self._owner.ended(self)
            except Exception:
                log.exception("a defect of this node came up at the end of a session", peer_id=self.peer_id)

    async def _live(self) -> None:
        """Say Hello if it is this node's turn, and keep the session alive until something ends it."""
        try:
            if self.initiator is Initiator.SELF:
                self.send(self._owner.hello_for(self.peer_id))
            await self._keep_alive()
        except Exception as error:  # noqa: BLE001 - a defect of the owner must not end the other sessions
            self._refuse_defect(error)

    async def _keep_alive(self) -> None:
        next_beat = self._next_beat()
        while not self._ending.is_set():
            wake_at = min(next_beat, self._heard_at + self._patience_s())
            with trio.move_on_at(wake_at):
                await self._ending.wait()
                return
            if trio.current_time() - wake_at > min(OWN_PAUSE_S, self._pulse.heartbeat_s):
                self._heard_at = trio.current_time()
            if trio.current_time() >= next_beat:
                self._beat()
                next_beat = self._next_beat()
            self._check_silence()

    def _next_beat(self) -> float:
        """Return when there may be something to ask, if nothing is heard until then.

        All sessions of a process beat at the same moments: it sleeps between, and what it runs then stays warm. The
        sides that are asked do so half a beat later, when they have heard what others of the same process asked.
        """
        interval = self._pulse.heartbeat_s
        lag = 0 if self.initiator is Initiator.SELF else interval / 2
        return ((max(trio.current_time(), self._due_at()) - lag) // interval + 1) * interval + lag

    def _due_at(self) -> float:
        """Return after when this side has to ask, if it hears nothing; see `_has_to_ask`."""
        if self.hello is None or self.latency_ms is None or self._conversation.busy:
            return 0.0
        quiet_s = (QUIET_BEATS if self.initiator is Initiator.SELF else PATIENT_BEATS) * self._pulse.heartbeat_s
        due = max(self._heard_at, self._asked_at) + quiet_s
        return due if self.initiator is Initiator.SELF else min(due, self._measured_at + LATENCY_KEPT_S)

    def _beat(self) -> None:
        if self.carrier.is_closed:
            self._finish(ErrorCode.PEER_LOST, "the connection is gone")
        elif self.hello is not None and not self.closed and self._has_to_ask():
            self._asked_at = trio.current_time()
            self.send(Heartbeat(self._owner.load(), ping=_microseconds()))

    def _has_to_ask(self) -> bool:
        """Whoever opened the stream asks; the other does so when it hears nothing, and to measure the round trip."""
        now = trio.current_time()
        unheard_beats = (now - self._heard_at) / self._pulse.heartbeat_s
        if self.initiator is Initiator.SELF:
            return self._conversation.busy or unheard_beats > QUIET_BEATS or self.latency_ms is None
        return unheard_beats > PATIENT_BEATS or now - self._measured_at > LATENCY_KEPT_S

    def _patience_s(self) -> float:
        if self.hello is not None or not self._greeted:
            return self._pulse.silence_s
        return float("inf") if self._conversation.under_way(Role.WORKER) else IDLE_CLIENT_S

    def _check_silence(self) -> None:
        silence = trio.current_time() - self._heard_at
        if silence < self._patience_s():
            return
        if self.hello is None:
            self.leave(ErrorCode.DRAINING, f"this stream was not used for {silence:.0f} s")
            return
        self._silent = True
        self._finish(ErrorCode.PEER_LOST, f"nothing was heard from the peer for {silence:.0f} s")

    async def _go(self) -> None:
        """Let the last words be written and the peer end its side; if it does not, end the connection."""
        with trio.move_on_after(0 if self._silent else FAREWELL_S):
            await self._written.wait()
            await self._read_out.wait()
        if self._silent or not self._written.is_set():
            await self.carrier.abort()
        elif self._refused or not self._read_out.is_set() or (self.hello is not None and self._owner.is_last(self)):
            await self.carrier.close()

    async def _close_stream(self) -> None:
        try:
            await self._stream.close()
        except BaseLibp2pError as error:
            log.debug("stream was gone already", peer_id=self.peer_id, reason=type(error).__name__)


def _microseconds() -> int:
    return round(trio.current_time() * 1_000_000) + 1
