"""What hostile bytes can make a node allocate: a small multiple of what they are, never what they announce."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import msgpack
import pytest

from protocol import (
    DEFAULT_LIMITS,
    Chunk,
    FrameDecoder,
    Heartbeat,
    RemoteProtocolError,
    Submit,
    Task,
    decode_body,
    encode_body,
    encode_length,
)
from protocol.structure import MAX_VALUES, SMALL_BYTES
from tests.protocol.samples import ALICE, PLAIN_FRAMES, TASK_ID

KIB = 1024
MIB = 1024 * KIB

# Python's least for anything: an exception with its traceback, a walker, and the caches that a first call fills.
BASE_BYTES = 192 * KIB
# The dearest value on the wire, in bytes of memory: a pair in a large map, while the map is made from its pairs. Python
# 3.13 takes 8 bytes more for it than 3.11.
VALUE_BYTES = 140


@pytest.fixture(autouse=True)
def _measured() -> Iterator[None]:
    decode_body(encode_body(PLAIN_FRAMES["submit"]))
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak_of(act: Callable[[], object]) -> int:
    """Return how many bytes more than before were allocated at the worst moment."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    act()
    return tracemalloc.get_traced_memory()[1] - before


def decode(body: bytes) -> None:
    """Decode a body, whatever comes of it."""
    try:
        decode_body(body)
    except RemoteProtocolError:
        return


def in_a_field(value: bytes) -> bytes:
    """Return a heartbeat with the given msgpack in a field that nobody knows."""
    return b"\x82" + encode_body(Heartbeat())[1:] + b"\xa1a" + value


def in_params(value: bytes) -> bytes:
    """Return a Submit with the given msgpack in its params."""
    fields: bytes = msgpack.packb({"id": TASK_ID, "prompt": "", "sender": ALICE, "timestamp": 0})
    task = b"\x85" + fields[1:] + b"\xa6params\x81\xa1a" + value
    return b"\x82\xa4type\xa6submit\xa4task" + task


def array_of(item: bytes, count: int) -> bytes:
    """Return the msgpack of an array with the same item so many times."""
    return b"\xdd" + count.to_bytes(4, "big") + item * count


BOMBS = {
    "an array of 4 G": b"\xdd\xff\xff\xff\xff",
    "500 arrays of 1 M in each other": b"\xdd\x00\x0f\xff\xff" * 500,
    "500 maps of 1 M in each other": b"\xdf\x00\x0f\xff\xff\xa1a" * 500,
    "50 arrays of 60,000 in each other": b"\xdc\xea\x60" * 50 + b"\xc0" * 60_000,
    "200,000 arrays of 1 M in each other": b"\xdd\x00\x0f\xff\xff" * 200_000,
    "1 M arrays in each other": b"\x91" * MIB,
    "texts of 4 GB": b"\x9f" + b"\xdb\xff\xff\xff\xff" * 15,
    "bytes of 4 GB": b"\x9f" + b"\xc6\xff\xff\xff\xff" * 15,
    "an array of 16 M, all empty maps": array_of(b"\x80", 16 * MIB),
    "an array of 16 M, all nil": array_of(b"\xc0", 16 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("place", [in_a_field, in_params])
def test_a_bomb_costs_no_more_than_its_own_bytes(bomb: bytes, place: Callable[[bytes], bytes]) -> None:
    """Nothing is built from a body whose structure is a lie or too large: at most its bytes are copied once."""
    body = place(bomb)
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 2 * len(body)


DEAREST = {
    "empty maps": (1, b"\x80"),
    "empty arrays": (1, b"\x90"),
    "maps with one pair": (3, b"\x81\xa1a\xc0"),
    "arrays with one item": (2, b"\x91\xc0"),
    "short texts": (1, b"\xa2ab"),
    "large integers": (1, b"\xcd\xff\xff"),
    "floats": (1, b"\xcb?\xf1\x01\x01\x01\x01\x01\x01"),
}
"""How many values each stands for, and its bytes."""


@pytest.mark.parametrize(("values", "item"), DEAREST.values(), ids=DEAREST)
def test_a_value_costs_no_more_than_the_dearest(values: int, item: bytes) -> None:
    """However the bytes of a small body are spent, a value on the wire is at most so many bytes in memory."""
    count = (SMALL_BYTES - KIB) // len(item)
    body = in_a_field(array_of(item, count))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 4 * len(body) + VALUE_BYTES * count * values


@pytest.mark.slow
def test_the_values_of_a_large_body_are_limited_in_all() -> None:
    """The objects made from a body stay within a fixed room beside its bytes, however large it is."""
    body = in_a_field(array_of(b"\x80", MAX_VALUES - 10))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 4 * len(body) + VALUE_BYTES * MAX_VALUES
    assert VALUE_BYTES * MAX_VALUES <= 32 * MIB


def test_judging_values_costs_nothing_beside_making_them() -> None:
    """The check of the params builds no paths and no copies of what is good."""
    body = in_params(array_of(b"\x91\xc0", 24_000))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 4 * len(body) + VALUE_BYTES * 48_000


@pytest.mark.slow
def test_a_large_map_is_limited_like_many_small_ones() -> None:
    """Its pairs are in memory twice for a moment, and that is within the room too."""
    pairs = (MAX_VALUES - 100) // 2
    body = in_a_field(msgpack.packb({f"{index:05x}": None for index in range(pairs)}))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 4 * len(body) + VALUE_BYTES * MAX_VALUES


@pytest.mark.parametrize("text", ["x", "é", "世", "x🌍"])
def test_text_costs_a_small_multiple_of_its_bytes(text: str) -> None:
    """Python widens all of a text for its widest character; that is the worst that text can do."""
    body = in_params(msgpack.packb(text * (4 * MIB // len(text.encode()))))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 6 * len(body)


def test_a_decoder_holds_what_has_come_and_not_what_was_announced() -> None:
    """A peer that announces a large frame and sends it slowly is given memory as it sends."""
    body = encode_body(Chunk(b"x" * (MIB - KIB)))
    stream = encode_length(len(body)) + body
    decoder = FrameDecoder()
    before = tracemalloc.get_traced_memory()[0]
    for end in range(16 * KIB, len(stream), 16 * KIB):
        decoder.feed(stream[end - 16 * KIB : end])
        assert tracemalloc.get_traced_memory()[0] - before <= 1.2 * end + 32 * KIB


def test_a_decoder_never_holds_more_than_a_frame_and_a_read() -> None:
    """Bytes beyond the announced length are decoded at once or are the beginning of the next frame."""
    read = 64 * KIB
    body = encode_body(Chunk(b"x" * (MIB - KIB), last=False))
    stream = (encode_length(len(body)) + body) * 20
    decoder = FrameDecoder(DEFAULT_LIMITS)
    before = tracemalloc.get_traced_memory()[0]
    start = 0
    while start < len(stream):
        try:
            decoder.feed(stream[start : start + read])
        except RemoteProtocolError:
            break
        held = tracemalloc.get_traced_memory()[0] - before
        assert held <= 1.2 * (DEFAULT_LIMITS.payload + DEFAULT_LIMITS.frame + read)
        start += read


def test_what_is_shared_between_decoders_does_not_grow() -> None:
    """After the largest frames, the encoder and the walker that are kept for the next are small ones."""
    large = Submit(Task(id=TASK_ID, prompt="x" * MIB, sender=ALICE, timestamp=0))
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        decode(encode_body(large))
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before <= 512 * KIB
