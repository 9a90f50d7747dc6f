"""Whatever the bytes are, decoding gives a frame or a RemoteProtocolError with the reason, and nothing else."""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import (
    FRAME_TYPES,
    ErrorCode,
    Frame,
    FrameDecoder,
    Progress,
    RemoteProtocolError,
    decode_body,
    encode_body,
    encode_frame,
    encode_length,
)
from protocol.structure import SMALL_BYTES
from tests.protocol import strategies
from tests.protocol.samples import FAILED_RESULT, FULL_FRAMES, OTHER_ID, PLAIN_FRAMES, TASK_ID

# An error's words go into a Bye and into a log; a peer cannot make them long.
MAX_REASON_CHARS = 512

HEARTBEAT = encode_body(PLAIN_FRAMES["heartbeat"])
SUBMIT = msgpack.unpackb(encode_body(FULL_FRAMES["submit"]))
RESULT = msgpack.unpackb(encode_body(FULL_FRAMES["result"]))


def with_field(key: bytes, value: bytes) -> bytes:
    """Return the body of a heartbeat with one more field, both given as msgpack."""
    return b"\x82" + HEARTBEAT[1:] + key + value


def pack(value: Any) -> bytes:
    """Return the msgpack of a value."""
    return msgpack.packb(value)  # type: ignore[no-any-return]


def refuse(body: bytes) -> str:
    """Return why a body is refused; fails when it is not."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_body(body)
    assert caught.value.code is ErrorCode.PROTOCOL
    assert 0 < len(str(caught.value)) <= MAX_REASON_CHARS
    return str(caught.value)


def decode_or_refuse(body: bytes) -> Frame | None:
    """Return the frame of a body, or None when it is refused; anything else comes out as an error of the test."""
    try:
        return decode_body(body)
    except RemoteProtocolError as error:
        assert 0 < len(str(error)) <= MAX_REASON_CHARS  # noqa: PT017 - both ways are right, and this belongs to one
        return None


BROKEN_MSGPACK = {
    "nothing": b"",
    "a type that msgpack does not have": b"\xc1",
    "an array header of 4 G items": b"\xdd\xff\xff\xff\xff",
    "a map header of 4 G pairs": b"\xdf\xff\xff\xff\xff",
    "500 arrays in each other, each announced with 1 M items": b"\xdd\x00\x0f\xff\xff" * 500,
    "500 maps in each other, each announced with 1 M pairs": b"\xdf\x00\x0f\xff\xff\xa1a" * 500,
    "20,000 arrays in each other, each announced with 4 G items": b"\xdd\xff\xff\xff\xff" * 20_000,
    "a text of 4 GB that is not there": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB that are not there": b"\xc6\xff\xff\xff\xff",
    "an extension of 4 GB that is not there": b"\xc9\xff\xff\xff\xff\x01",
    "2,000 arrays in each other": b"\x91" * 2_000 + b"\xc0",
    "2,000 maps in each other": b"\x81\xa1a" * 2_000 + b"\xc0",
    "100,000 arrays in each other": b"\x91" * 100_000 + b"\xc0",
    "500 arrays in each other in a field": with_field(b"\xa1a", b"\x91" * 500),
    "bytes after the map": HEARTBEAT + b"\xc0",
    "a second map": HEARTBEAT * 2,
    "bytes after a large map": with_field(b"\xa1a", pack("x" * SMALL_BYTES)) + b"\xc0",
    "a large map that is cut off": with_field(b"\xa1a", pack("x" * SMALL_BYTES))[:-1],
    "a million values": with_field(b"\xa1a", pack([None] * 1_000_000)),
    "the same key twice": b"\x82" + HEARTBEAT[1:] * 2,
    "the same key twice, deep": with_field(b"\xa1a", b"\x91\x82\xa1b\x01\xa1b\x02"),
    "a number as a key": with_field(b"\x01", b"\x02"),
    "nil as a key": with_field(b"\xc0", b"\x02"),
    "an array as a key": with_field(b"\x90", b"\x02"),
    "text that is not UTF-8": with_field(b"\xa1a", b"\xa1\xff"),
    "an overlong form of UTF-8": with_field(b"\xa1a", b"\xa2\xc0\x80"),
    "a lone surrogate": with_field(b"\xa1a", b"\xa3\xed\xa0\x80"),
    "a key that is not UTF-8": with_field(b"\xa1\xff", b"\x01"),
    "a timestamp of 5 bytes": with_field(b"\xa1a", b"\xc7\x05\xff12345"),
    "a timestamp with too many nanoseconds": with_field(b"\xa1a", b"\xd7\xff" + b"\xff" * 8),
}


@pytest.mark.parametrize("body", BROKEN_MSGPACK.values(), ids=BROKEN_MSGPACK)
def test_a_body_that_is_not_good_msgpack_is_refused(body: bytes) -> None:
    """The reason says that the bytes are at fault, not a field."""
    assert refuse(body).startswith("a frame is not valid msgpack: ")


NO_FRAMES = {
    "nil": (None, "a frame is a NoneType and not a map"),
    "a number": (5, "a frame is a int and not a map"),
    "an array": ([1, 2], "a frame is a list and not a map"),
    "a text": ("hello", "a frame is a str and not a map"),
    "an extension": (msgpack.ExtType(5, b"x"), "a frame is a ExtType and not a map"),
    "an empty map": ({}, "unknown type None"),
    "an unknown type": ({"type": "sleep"}, "unknown type 'sleep'"),
    "the name of a class": ({"type": "Hello"}, "unknown type 'Hello'"),
    "a type that is a number": ({"type": 5}, "unknown type 5"),
    "a type that is an array": ({"type": ["hello"]}, "unknown type a list of 1"),
    "a type that is bytes": ({"type": b"hello"}, "unknown type b'hello'"),
    "a long type": ({"type": "x" * 100_000}, "unknown type 'xxxx"),
    "a type with control characters": ({"type": "\x1b[31m"}, r"unknown type '\x1b[31m'"),
}


@pytest.mark.parametrize(("value", "reason"), NO_FRAMES.values(), ids=NO_FRAMES)
def test_good_msgpack_that_is_no_frame_is_refused(value: object, reason: str) -> None:
    """Types that a node does not know are refused, because their meaning could matter."""
    assert reason in refuse(pack(value))


@pytest.mark.parametrize("name", FULL_FRAMES)
def test_a_body_that_is_cut_anywhere_is_refused(name: str) -> None:
    """No beginning of a frame passes for a whole one."""
    body = encode_body(FULL_FRAMES[name])
    for end in range(len(body)):
        refuse(body[:end])


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every value in a JSON-shaped value."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    """Return a copy of the value with what is at the path replaced."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


INTRUDERS: tuple[object, ...] = (
    None,
    True,
    -1,
    2**64 - 1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "5",
    "x" * 5_000,
    b"bytes",
    [],
    [[]],
    {},
    {"a": 1},
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(5, 5),
)
SCRAPS = st.binary(max_size=4)


@pytest.mark.parametrize("name", [*FULL_FRAMES, "failure"])
def test_a_wrong_type_in_any_field_is_refused_or_harmless(name: str) -> None:
    """Whatever stands in whichever field, the outcome is a frame that keeps every rule, or the reason why not."""
    frame = FAILED_RESULT if name == "failure" else FULL_FRAMES[name]
    shape = msgpack.unpackb(encode_body(frame))
    for path in paths(shape):
        for intruder in INTRUDERS:
            decoded = decode_or_refuse(pack(replaced(shape, path, intruder)))
            assert decoded is None or decode_body(encode_body(decoded)) == decoded


SUBMIT_TASK = SUBMIT["task"]
HINT = msgpack.unpackb(encode_body(FULL_FRAMES["peers"]))["hints"][0]
COERCIONS = {
    "a number as text": {**SUBMIT, "remaining_ms": "5"},
    "a whole float as a number": {**SUBMIT, "remaining_ms": 5.0},
    "a bool as a number": {**SUBMIT, "remaining_ms": True},
    "a priority as text": {**SUBMIT, "task": {**SUBMIT_TASK, "priority": "5"}},
    "a priority as a bool": {**SUBMIT, "task": {**SUBMIT_TASK, "priority": True}},
    "bytes as a prompt": {**SUBMIT, "task": {**SUBMIT_TASK, "prompt": b"Hello"}},
    "bytes as a sender": {**SUBMIT, "task": {**SUBMIT_TASK, "sender": b"alice"}},
    "bytes as a task id": {"type": "cancel", "task_id": TASK_ID.encode()},
    "a number as a bool": {"type": "chunk", "data": b"x", "last": 1},
    "text as a bool": {"type": "chunk", "data": b"x", "last": "true"},
    "text as bytes": {"type": "chunk", "data": "x"},
    "a fraction as text": {"type": "progress", "task_id": TASK_ID, "seq": 1, "fraction": "0.5"},
    "a fraction as a bool": {"type": "progress", "task_id": TASK_ID, "seq": 1, "fraction": True},
    "a fraction that is no number": {"type": "progress", "task_id": TASK_ID, "seq": 1, "fraction": float("nan")},
    "a fraction without end": {"type": "progress", "task_id": TASK_ID, "seq": 1, "fraction": float("inf")},
    "a fraction above one": {"type": "progress", "task_id": TASK_ID, "seq": 1, "fraction": 1.01},
    "a name as a list of names": {"type": "offer", "slots": 1, "kinds": "echo"},
    "a map as a list of names": {"type": "offer", "slots": 1, "kinds": {"echo": 1}},
    "a factor as text": {**SUBMIT, "task": {**SUBMIT_TASK, "retry": {"factor": "2"}}},
    "a code as a number": {"type": "bye", "code": 5},
    "a timestamp as a number": {"type": "heartbeat", "load": msgpack.Timestamp(5)},
    "bytes in the params": {**SUBMIT, "task": {**SUBMIT_TASK, "params": {"a": b"x"}}},
    "an extension in the params": {**SUBMIT, "task": {**SUBMIT_TASK, "params": {"a": msgpack.ExtType(1, b"x")}}},
    "a timestamp in the metadata": {**SUBMIT, "task": {**SUBMIT_TASK, "metadata": {"a": msgpack.Timestamp(5)}}},
}


@pytest.mark.parametrize("fields", COERCIONS.values(), ids=COERCIONS)
def test_nothing_from_the_wire_is_coerced(fields: dict[str, Any]) -> None:
    """A value of another type is refused, however well one could guess what was meant."""
    assert " is malformed: field " in refuse(pack(fields))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"failure": {"code": "BUSY", "message": ""}}, "exactly one of result and failure must be given"),
        ({"result": None}, "exactly one of result and failure must be given"),
        ({"task_id": OTHER_ID}, f"the result belongs to task {TASK_ID}"),
    ],
)
def test_a_result_frame_has_one_outcome_and_it_is_that_of_its_task(change: dict[str, Any], reason: str) -> None:
    """Both, neither, or the result of another task is refused."""
    assert reason in refuse(pack({**RESULT, **change}))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "offer", "slots": 1, "kinds": [0] * 100_000},
        {"type": "offer", "slots": 1, "kinds": ["a"] * 100_000},
        {"type": "hello", "addresses": ["/ip4/127.0.0.1/tcp/1"] * 17},
        {"type": "hello", "addresses": ["x" * 513]},
        {"type": "hello", "versions": []},
        {"type": "hello", "versions": ["1.0"] * 17},
        {"type": "hello", "instance": "x" * 65},
        {"type": "hello", "agent": "x" * 257},
        {"type": "hello", "limits": {"frame": 1023}},
        {"type": "hello", "limits": {"in_flight": 0}},
        {**SUBMIT, "task": {**SUBMIT_TASK, "depends_on": [0] * 100_000}},
        {**SUBMIT, "task": {**SUBMIT_TASK, "depends_on": [OTHER_ID] * 1_025}},
        {**RESULT, "result": {**RESULT["result"], "artifacts": [{}] * 50_000}},
        {"type": "bye", "code": "BUSY", "message": "x" * 4_097},
        {"type": "hello", "advert": {"kinds": ["a"] * 200_000}},
        {"type": "peers", "hints": [HINT] * 65},
        {"type": "peers", "hints": [{**HINT, "ttl_ms": 0}]},
        {"type": "peers", "hints": [{**HINT, "ttl_ms": 43_200_001}]},
        {"type": "peers", "hints": [{**HINT, "hops": 256}]},
        {"type": "peers", "hints": [{**HINT, "peer_id": "x" * 129}]},
        {"type": "peers", "hints": [{**HINT, "addresses": ["/ip4/127.0.0.1/tcp/1"] * 17}]},
        {"type": "peers", "hints": [{**HINT, "advert": {"kinds": ["a"] * 257}}]},
        {"type": "register", "ttl_ms": 43_200_001},
        {"type": "discover", "kind": "x" * 129},
        {"type": "accept", "task_id": TASK_ID, "seq": 2**63},
    ],
)
def test_what_is_beyond_a_limit_is_refused(fields: dict[str, Any]) -> None:
    """Every list, text and number from a peer has a limit, because a node keeps what it says."""
    assert " is malformed: field " in refuse(pack(fields))


def test_a_million_kinds_are_refused_before_they_are_looked_at() -> None:
    """Nothing is built of a body that holds more values than any frame may."""
    assert "more than" in refuse(pack({"type": "hello", "advert": {"kinds": ["a"] * 1_000_000}}))


def test_keys_that_are_bytes_are_refused_in_few_words() -> None:
    """Thousands of errors are told by their number, because describing them takes far more room than making them."""
    assert "field b'a': keys should be strings" in refuse(with_field(b"\xc4\x01a", b"\x02"))
    many = (
        b"\xde\x13\x89" + HEARTBEAT[1:] + b"".join(b"\xc4\x02" + index.to_bytes(2) + b"\xc0" for index in range(5_000))
    )
    assert refuse(many) == "a frame of type heartbeat is malformed: 5,000 fields are wrong"


def test_a_code_of_a_newer_peer_is_read_as_internal() -> None:
    """An unknown code is news; it must not end the session."""
    assert decode_body(pack({"type": "bye", "code": "OUT_OF_TEA"})).code is ErrorCode.INTERNAL  # type: ignore[union-attr]


@pytest.mark.parametrize("padding", [0, SMALL_BYTES])
def test_a_body_may_be_spelled_in_any_way_that_msgpack_allows(padding: int) -> None:
    """Wide headers and integers, short floats and any order of keys mean the same, and still no key may come twice."""
    task_id = b"\xdb\x00\x00\x00\x24" + TASK_ID.encode()
    pad = b"\xdb" + padding.to_bytes(4) + b"x" * padding
    fields = [
        b"\xa8fraction\xca" + struct.pack(">f", 0.25),
        b"\xd9\x03seq\xcf" + (4).to_bytes(8),
        b"\xda\x00\x07task_id" + task_id,
        b"\xa4type\xd9\x08progress",
        b"\xa3pad" + pad,
    ]
    wide = b"\xdf" + len(fields).to_bytes(4) + b"".join(fields)
    assert decode_body(wide) == Progress(task_id=TASK_ID, seq=4, fraction=0.25)
    twice = b"\xdf" + (len(fields) + 1).to_bytes(4) + b"".join(fields) + b"\xa3seq\x05"
    assert refuse(twice) == "a frame is not valid msgpack: a map has the same key twice"


def test_a_large_body_is_walked_like_a_small_one() -> None:
    """Both walks know every type that msgpack has, at every size."""
    values = [
        *(0, -1, 127, 128, 255, 256, 65_535, 65_536, 2**32, 2**64 - 1, -32, -33, -129, -32_769, -(2**31) - 1, -(2**63)),
        *(None, True, False, 1.5, "", "x" * 31, "x" * 32, "x" * 256, "x" * 65_536),
        *(b"", b"x" * 256, b"x" * 65_536, [], [0] * 15, [0] * 16, [0] * 65_536),
        *({}, {str(i): i for i in range(15)}, {str(i): i for i in range(16)}, {str(i): i for i in range(65_536)}),
        *(msgpack.ExtType(1, b"x" * size) for size in (0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 65_535, 65_536)),
        *(msgpack.Timestamp(5), msgpack.Timestamp(5, 5), msgpack.Timestamp(2**40, 5)),
    ]
    single = b"\xca" + struct.pack(">f", 1.5)
    padding = "x" * SMALL_BYTES
    for value in (*map(pack, values), single):
        assert decode_body(with_field(b"\xa1a", value)) == PLAIN_FRAMES["heartbeat"]
        body = b"\x83" + HEARTBEAT[1:] + pack("pad") + pack(padding) + b"\xa1a" + value
        assert decode_body(body) == PLAIN_FRAMES["heartbeat"]
        refuse(body[:-1])
        refuse(body + b"\x00")


@given(st.binary(max_size=300))
@example(b"\xc1")
def test_random_bytes_give_a_frame_or_the_reason(body: bytes) -> None:
    """Nothing but RemoteProtocolError comes out of decoding."""
    decode_or_refuse(body)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_random_stream_gives_frames_or_the_reason(pieces: list[bytes]) -> None:
    """Nothing but RemoteProtocolError comes out of the decoder."""
    decoder = FrameDecoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - a stream that is fine is right as well


@settings(max_examples=300)
@given(
    strategies.frames,
    st.lists(
        st.tuples(
            st.integers(0, 10_000), st.sampled_from(["flip", "insert", "delete", "repeat"]), st.binary(max_size=4)
        )
    ),
)
def test_a_mutated_frame_gives_a_frame_or_the_reason(frame: Frame, mutations: list[tuple[int, str, bytes]]) -> None:
    """Also bytes that are almost right raise nothing but RemoteProtocolError."""
    stream = bytearray(b"".join(encode_frame(frame)))
    for place, how, data in mutations:
        at = place % (len(stream) + 1)
        match how:
            case "flip":
                stream[at : at + len(data)] = data
            case "insert":
                stream[at:at] = data
            case "delete":
                del stream[at : at + len(data)]
            case _:
                stream[at:at] = stream[: len(data) * 8]
    try:
        FrameDecoder().feed(bytes(stream))
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - a mutation may be harmless
    decode_or_refuse(bytes(stream[1:]))


structures = st.recursive(
    strategies.json_scalars
    | st.binary(max_size=8)
    | st.sampled_from([float("nan"), float("inf"), msgpack.ExtType(5, b"x"), msgpack.Timestamp(5, 5), TASK_ID, "echo"]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=5) | st.binary(max_size=3), children, max_size=4
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(FRAME_TYPES)), st.data())
def test_a_random_structure_in_any_field_gives_a_frame_or_the_reason(name: str, data: st.DataObject) -> None:
    """Good msgpack with anything in any field raises nothing but RemoteProtocolError."""
    fields = sorted(field.name for field in dataclasses.fields(FRAME_TYPES[name]))
    chosen = data.draw(st.dictionaries(st.sampled_from(fields), structures))
    sample = msgpack.unpackb(encode_body(FULL_FRAMES[name]))
    decode_or_refuse(pack({**sample, **chosen}))
    decode_or_refuse(pack({"type": name, **chosen}))


@given(structures)
def test_any_msgpack_gives_a_frame_or_the_reason(value: object) -> None:
    """Good msgpack that is anything at all raises nothing but RemoteProtocolError."""
    body = pack(value)
    decode_or_refuse(body)
    try:
        FrameDecoder().feed(encode_length(len(body)) + body)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - a random structure may be a frame
