"""What a relay and those who use it say to each other, and the bytes of it. Pure.

A message is an unsigned varint, its length, and a protobuf body. What is unknown in a body is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Reservation, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerInfo
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from node.net.addresses import parse_peer_id
from node.net.errors import InvalidAddress
from protocol import PeerId, RemoteProtocolError

HOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/hop")
"""Spoken with a relay: by who wants to be reached through it, and by who wants to reach such a peer."""

STOP: Final = TProtocol("/libp2p/circuit/relay/0.2.0/stop")
"""Spoken by a relay with a peer that is to be reached through it."""

MAX_MESSAGE_BYTES: Final = 4096
"""What the specification allows; what is said here takes some hundreds."""

MAX_ADDRESSES: Final = 16
"""As many addresses of the relay as stand in a Hello; they take a quarter of a message."""

_CONTINUES, _SEVEN_BITS = 0x80, 0x7F
_LENGTH_BYTES = 2  # of a varint up to 16,383


class Status(IntEnum):
    """How a relay, or the peer behind it, answers."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


@dataclass(frozen=True, slots=True)
class Reserve:
    """Asks a relay to let others reach the sender through it."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Asks a relay for a circuit, or tells the other end of one.

    Attributes:
        peer_id: who is wanted (hop), or who wants it (stop).
    """

    peer_id: PeerId


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    Attributes:
        status: a `Status`, or a number that this node does not know.
        expires_at: when the reservation that was made ends, in seconds since the epoch; None when none was made.
        addresses: where the relay is reached, with its peer id; written, and not read: who reserves knows how it has
            come.
    """

    status: int
    expires_at: int | None = None
    addresses: tuple[str, ...] = ()


Message = Reserve | Connect | Answer


def encode_hop(message: Message) -> bytes:
    """Return the bytes of a message to or from a relay, with their length in front."""
    match message:
        case Reserve():
            body = HopMessage(type=HopMessage.RESERVE)
        case Connect():
            body = HopMessage(type=HopMessage.CONNECT, peer=_peer(message.peer_id))
        case Answer():
            body = HopMessage(type=HopMessage.STATUS, status=message.status)  # type: ignore[arg-type]
            if message.expires_at is not None:
                addresses = [Multiaddr(address).to_bytes() for address in message.addresses[:MAX_ADDRESSES]]
                body.reservation.CopyFrom(Reservation(expire=message.expires_at, addrs=addresses))
    return _framed(body.SerializeToString())


def encode_stop(message: Connect | Answer) -> bytes:
    """Return the bytes of a message between a relay and who is behind it, with their length in front."""
    if isinstance(message, Connect):
        body = StopMessage(type=StopMessage.CONNECT, peer=_peer(message.peer_id))
    else:
        body = StopMessage(type=StopMessage.STATUS, status=message.status)  # type: ignore[arg-type]
    return _framed(body.SerializeToString())


def decode_hop(body: bytes) -> Message:
    """Read a message to or from a relay, without its length.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    message = HopMessage()
    _parse(message, body)
    if message.type == HopMessage.RESERVE:
        return Reserve()
    if message.type == HopMessage.CONNECT:
        return Connect(_peer_id(message.peer))
    _require(message.type == HopMessage.STATUS)
    expires_at = message.reservation.expire if message.HasField("reservation") else None
    return Answer(message.status, expires_at)


def decode_stop(body: bytes) -> Connect | Answer:
    """Read a message between a relay and who is behind it, without its length.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    message = StopMessage()
    _parse(message, body)
    if message.type == StopMessage.CONNECT:
        return Connect(_peer_id(message.peer))
    _require(message.type == StopMessage.STATUS)
    return Answer(message.status)


class Length:
    """Reads the length of a message, byte by byte."""

    def __init__(self) -> None:
        self._value = 0
        self._bytes = 0

    def feed(self, byte: int) -> int | None:
        """Take the next byte, and return the length when it is the last one.

        Raises:
            RemoteProtocolError: the message would be larger than any may be.
        """
        self._value |= (byte & _SEVEN_BITS) << (7 * self._bytes)
        self._bytes += 1
        more = bool(byte & _CONTINUES)
        if self._value > MAX_MESSAGE_BYTES or (more and self._bytes == _LENGTH_BYTES):
            raise RemoteProtocolError(f"a message is larger than {MAX_MESSAGE_BYTES:,} bytes, or its length malformed")
        return None if more else self._value


def _framed(body: bytes) -> bytes:
    return encode_uvarint(len(body)) + body


def _parse(message: HopMessage | StopMessage, body: bytes) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise RemoteProtocolError(f"a message is not the protobuf of a relay: {error}") from error


def _require(known: bool) -> None:  # noqa: FBT001 - there is nothing else to say
    if not known:
        raise RemoteProtocolError("a message is of a type that is not known")


def _peer(peer_id: PeerId) -> PeerInfo:
    return PeerInfo(id=ID.from_string(peer_id).to_bytes())


def _peer_id(peer: PeerInfo) -> PeerId:
    try:
        return PeerId(parse_peer_id(str(ID(peer.id))))
    except (InvalidAddress, ValueError) as error:
        raise RemoteProtocolError("a message names no peer, or one whose id is malformed") from error
