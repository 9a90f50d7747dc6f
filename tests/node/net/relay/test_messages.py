"""The bytes of what is said with relays, those that other programs send, and those that nobody should."""

from __future__ import annotations

import pytest
from libp2p.utils.varint import encode_uvarint

from node.net.relay.messages import (
    MAX_ADDRESSES,
    MAX_MESSAGE_BYTES,
    Answer,
    Connect,
    Length,
    Message,
    Reserve,
    Status,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from protocol import PeerId, RemoteProtocolError

PEER = PeerId("12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H")
PEER_FIELD = "12280a260024080112205aab2d0b5c830bd3cd035c7eb0449a7fe8799d36a26ebc804548ba778580e30e"
ADDRESS = f"/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"

# The bodies as the schema of the specification has them: a tag for each field, in the order of their numbers.
HOP_MESSAGES: dict[str, Message] = {
    "0800": Reserve(),
    f"0801{PEER_FIELD}": Connect(PEER),
    "08022864": Answer(Status.OK),
    "080228cc01": Answer(Status.NO_RESERVATION),
}
STOP_MESSAGES: dict[str, Connect | Answer] = {
    f"0800{PEER_FIELD}": Connect(PEER),
    "08012064": Answer(Status.OK),
    "080120ca01": Answer(Status.PERMISSION_DENIED),
}


def body_of(framed: bytes) -> bytes:
    """A message without its length, which is checked."""
    length, at = Length(), 0
    while (size := length.feed(framed[at])) is None:
        at += 1
    body = framed[at + 1 :]
    assert len(body) == size
    return body


@pytest.mark.parametrize("text", HOP_MESSAGES)
def test_a_message_with_a_relay_has_the_bytes_of_the_specification(text: str) -> None:
    """Both ways."""
    assert body_of(encode_hop(HOP_MESSAGES[text])).hex() == text
    assert decode_hop(bytes.fromhex(text)) == HOP_MESSAGES[text]


@pytest.mark.parametrize("text", STOP_MESSAGES)
def test_a_message_of_a_relay_to_who_is_behind_it_has_the_bytes_of_the_specification(text: str) -> None:
    """Both ways."""
    assert body_of(encode_stop(STOP_MESSAGES[text])).hex() == text
    assert decode_stop(bytes.fromhex(text)) == STOP_MESSAGES[text]


def test_a_reservation_tells_its_end_and_as_many_addresses_as_fit() -> None:
    """Other programs announce themselves at these addresses; a node knows by which it has come."""
    framed = encode_hop(Answer(Status.OK, expires_at=1_700_000_000, addresses=(ADDRESS,) * 100))
    assert len(framed) < MAX_MESSAGE_BYTES
    assert framed.count(bytes.fromhex(PEER_FIELD[4:])[2:]) == MAX_ADDRESSES
    assert decode_hop(body_of(framed)) == Answer(Status.OK, expires_at=1_700_000_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", Reserve()),  # a type that is left out is the first one, as go-libp2p reads it
        ("08001a0432026869", Reserve()),  # a reservation of which nothing is known here
        ("0800320568656c6c6f", Reserve()),  # py-libp2p's own record of the sender
        ("08027a03616263", Answer(0)),  # a field that is not known
        ("080228e707", Answer(999)),
    ],
)
def test_what_other_programs_leave_out_or_add_does_no_harm(text: str, message: Message) -> None:
    """Also an answer with a number that nobody knows yet."""
    assert decode_hop(bytes.fromhex(text)) == message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ff", "not the protobuf"),
        ("0801120300", "not the protobuf"),
        ("084d", "a type that is not known"),
        ("0801", "names no peer"),
        ("080112020a00", "names no peer"),
        ("080112050a03787878", "names no peer"),
    ],
)
def test_a_malformed_message_is_refused_in_words(text: str, said: str) -> None:
    """By either side."""
    with pytest.raises(RemoteProtocolError, match=said):
        decode_hop(bytes.fromhex(text))
    stop = text.replace("0801", "0800", 1)
    with pytest.raises(RemoteProtocolError, match=said):
        decode_stop(bytes.fromhex(stop))


@pytest.mark.parametrize("size", [0, 1, 127, 128, MAX_MESSAGE_BYTES])
def test_the_length_of_a_message_is_read_byte_by_byte(size: int) -> None:
    """And known with the last of them."""
    length, told = Length(), encode_uvarint(size)
    assert [length.feed(byte) for byte in told] == [None] * (len(told) - 1) + [size]


@pytest.mark.parametrize(
    "told",
    [encode_uvarint(MAX_MESSAGE_BYTES + 1), encode_uvarint(2**63), b"\x80\x80\x00", b"\xff" * 20],
    ids=["one too many", "huge", "longer than it need be", "endless"],
)
def test_a_length_that_no_message_has_is_refused_before_anything_is_kept(told: bytes) -> None:
    """After two bytes at the most."""
    length = Length()
    with pytest.raises(RemoteProtocolError, match="larger than 4,096 bytes"):
        list(map(length.feed, told[:2]))
