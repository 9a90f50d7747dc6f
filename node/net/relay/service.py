"""The relay: lets peers be reached through this node, and passes on what they and their visitors say.

A circuit may last, and carry, as much as its ends want: a task node keeps its sessions for days, and would only open
again what was cut off. What bounds the relay is the number of circuits, the window of a stream in each direction, and
an end when nothing has gone through for a while. A slow end slows the other one down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.network.stream.net_stream import NetStream

from node.coordination.reach import Reach, reach_of
from node.net.admission import address_key
from node.net.muxer import HardenedYamux, hardened
from node.net.relay.messages import (
    STOP,
    Answer,
    Connect,
    Message,
    Reserve,
    Status,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from node.net.relay.reservations import RelayLimits, Reservations
from node.net.relay.streams import CancellableStream, Opener, cancellable, open_stream, receive_body
from protocol import PeerId, RemoteProtocolError

QUESTION_S: Final = 5.0
"""How long whoever has opened a stream may take to say what it wants: it can say so at once."""

STOP_S: Final = 5.0
"""How long a peer with a reservation may take to answer: a stream and a message, three round trips."""

IDLE_S: Final = 600.0
"""After so long without a byte a circuit is over: a session beats every ten seconds, a simple client waits five
minutes."""

HALF_CLOSED_S: Final = 5.0
"""How long one end may keep its half of a circuit when the other has ended: there is nobody to speak with."""

_log = structlog.get_logger(__name__)


class RelayService:
    """Answers the hop protocol.

    Args:
        opener: opens streams to those who have a reservation.
        nursery: where these streams run.
        addresses: where it is reached, with its peer id.
        users: who may be reached through it; everybody when there is none.
        epoch_s: the time, in seconds since the epoch.
        limits: how much it does.
    """

    def __init__(
        self,
        opener: Opener,
        nursery: trio.Nursery,
        addresses: Callable[[], Sequence[str]],
        *,
        users: frozenset[PeerId],
        epoch_s: Callable[[], float],
        limits: RelayLimits | None = None,
    ) -> None:
        self._opener = opener
        self._nursery = nursery
        self._addresses = addresses
        self._users = users
        self._epoch_s = epoch_s
        self._limits = limits or RelayLimits()
        self.reservations: Reservations[INetConn] = Reservations(self._limits, lambda connection: connection.is_closed)

    async def serve(self, stream: INetStream) -> None:
        """Answer what one stream asks for, and carry the circuit if it becomes one."""
        connection = stream.swarm_conn if isinstance(stream, NetStream) else None
        if connection is None:
            raise TypeError("the stream is not one of a host")
        async with cancellable(stream) as visitor:
            try:
                await self._serve(visitor, connection)
            except (trio.TooSlowError, trio.BrokenResourceError) as error:
                _log.info("a peer went without an answer", peer_id=_peer(connection), reason=type(error).__name__)

    async def _serve(self, visitor: CancellableStream, connection: INetConn) -> None:
        try:
            with trio.fail_after(QUESTION_S):
                question = decode_hop(await receive_body(visitor))
        except RemoteProtocolError as error:
            _log.info("a peer sent a relay what it cannot read", peer_id=_peer(connection), reason=error.message)
            await _answer(visitor, Status.MALFORMED_MESSAGE)
        else:
            await self._take(visitor, connection, question)

    async def _take(self, visitor: CancellableStream, connection: INetConn, question: Message) -> None:
        peer_id, now = _peer(connection), trio.current_time()
        if not self.reservations.may_ask(peer_id, now):
            await _answer(visitor, Status.RESOURCE_LIMIT_EXCEEDED)
        elif hardened(connection.muxed_conn).relay_id:
            await _answer(visitor, Status.PERMISSION_DENIED)  # else circuits could be put together to chains and rings
        elif isinstance(question, Reserve):
            await visitor.send_all(encode_hop(self._reserve(peer_id, connection, now)))
        elif isinstance(question, Connect):
            await self._connect(visitor, peer_id, question.peer_id)
        else:
            await _answer(visitor, Status.UNEXPECTED_MESSAGE)

    def _reserve(self, peer_id: PeerId, connection: INetConn, now: float) -> Answer:
        if self._users and peer_id not in self._users:
            _log.info("no reservation for a peer", peer_id=peer_id, reason="it is none of those that may have one")
            return Answer(Status.PERMISSION_DENIED)
        carrier, known = hardened(connection.muxed_conn), self.reservations.line(peer_id, now) is not None
        reason = self.reservations.reserve(peer_id, connection, _place(carrier), now)
        if reason:
            _log.info("no reservation for a peer", peer_id=peer_id, reason=reason)
            return Answer(Status.RESERVATION_REFUSED)
        if not known:
            _log.info("a peer is reached through this node", peer_id=peer_id)
        carrier.promised_until = now + self._limits.reservation_s
        return Answer(
            Status.OK,
            expires_at=round(self._epoch_s() + self._limits.reservation_s),
            addresses=tuple(self._addresses()),
        )

    async def _connect(self, visitor: CancellableStream, peer_id: PeerId, wanted: PeerId) -> None:
        line = self.reservations.line(wanted, trio.current_time())
        if wanted == peer_id:
            await _answer(visitor, Status.PERMISSION_DENIED)
        elif line is None:
            await _answer(visitor, Status.NO_RESERVATION)
        elif not self.reservations.open_circuit(peer_id, wanted):
            _log.info("no circuit for a peer", peer_id=peer_id, wanted=wanted, reason="there are too many")
            await _answer(visitor, Status.RESOURCE_LIMIT_EXCEEDED)
        else:
            try:
                await self._carry(visitor, peer_id, wanted, line)
            finally:
                self.reservations.close_circuit(peer_id, wanted)

    async def _carry(self, visitor: CancellableStream, peer_id: PeerId, wanted: PeerId, line: INetConn) -> None:
        host = await self._knock(line, peer_id, wanted)
        if host is None:
            await _answer(visitor, Status.CONNECTION_FAILED)
            return
        try:
            await _answer(visitor, Status.OK)
            await Circuit(visitor, host).run()
        finally:
            host.end()

    async def _knock(self, line: INetConn, visitor: PeerId, wanted: PeerId) -> CancellableStream | None:
        """Open a stream to a peer with a reservation, and return it when the peer takes the visitor."""
        try:
            with trio.fail_after(STOP_S):
                stream = await open_stream(self._opener, self._nursery, line, STOP)
                try:
                    await stream.send_all(encode_stop(Connect(visitor)))
                    answer = decode_stop(await receive_body(stream))
                except BaseException:
                    stream.end()
                    raise
        except Exception as error:  # noqa: BLE001 - libp2p raises what it likes at what a peer sends
            reason = str(error) or type(error).__name__
        else:
            if answer == Answer(Status.OK):
                return stream
            stream.end()
            reason = f"it answers {answer}"
        _log.info("a peer behind this relay does not take a visitor", peer_id=wanted, visitor=visitor, reason=reason)
        return None


class Circuit:
    """Two streams, each of which gets what comes from the other.

    Args:
        one: a stream.
        other: a stream.
    """

    def __init__(self, one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
        self._one = one
        self._other = other
        self._ended = 0

    async def run(self) -> None:
        """Pass on until both sides have ended, one breaks, or nothing moves any more."""
        async with trio.open_nursery() as nursery:
            over = nursery.cancel_scope
            over.deadline = trio.current_time() + IDLE_S
            nursery.start_soon(self._pass_on, self._one, self._other, over)
            nursery.start_soon(self._pass_on, self._other, self._one, over)

    async def _pass_on(
        self, source: trio.abc.HalfCloseableStream, target: trio.abc.HalfCloseableStream, over: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some():
                if not self._ended:
                    over.deadline = trio.current_time() + IDLE_S
                await target.send_all(data)
            await target.send_eof()
        except trio.BrokenResourceError:
            over.cancel()
        self._ended += 1
        over.deadline = trio.current_time() + HALF_CLOSED_S


async def _answer(stream: CancellableStream, status: Status) -> None:
    await stream.send_all(encode_hop(Answer(status)))


def _peer(connection: INetConn) -> PeerId:
    return PeerId(str(connection.muxed_conn.peer_id))


def _place(carrier: HardenedYamux) -> str:
    """Return what a peer's reservation is counted under; empty for this machine."""
    host = carrier.remote_host
    return "" if reach_of(host) is Reach.LOCAL else address_key(host)
