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
# The dearest value on the wire, in bytes of memory: a pair in a large map, while the map is made from its pairs.
VALUE_BYTES = 128


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
    fields = {"id": TASK_ID, "prompt": "", "sender": ALICE, "timestamp": 0}
    task = b"\x85" + msgpack.packb(fields)[1:] + b"\xa6params\x81\xa1a" + value
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
    "empty maps": b"\x80",
    "empty arrays": b"\x90",
    "maps with one pair": b"\x81\xa1a\xc0",
    "arrays with one item": b"\x91\xc0",
    "short texts": b"\xa2ab",
    "large integers": b"\xcd\xff\xff",
    "floats": b"\xcb?\xf1\x01\x01\x01\x01\x01\x01",
}


@pytest.mark.parametrize("item", DEAREST.values(), ids=DEAREST)
@pytest.mark.parametrize("size", [SMALL_BYTES - KIB, MIB, 16 * MIB])
@pytest.mark.parametrize("place", [in_a_field, in_params])
def test_the_values_of_a_body_are_limited_in_all(item: bytes, size: int, place: Callable[[bytes], bytes]) -> None:
    """However the bytes are spent, the objects made from them stay within a fixed room beside the bytes themselves."""
    values_each = 3 if item[0] == 0x81 else 2 if item[0] == 0x91 else 1
    count = min(size // len(item), (MAX_VALUES - 100) // values_each)
    body = place(array_of(item, count))
    assert peak_of(lambda: decode(body)) <= BASE_BYTES + 4 * len(body) + VALUE_BYTES * min(MAX_VALUES, count * values_each)


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
    with pytest.raises(RemoteProtocolError, match="chunks add up to more"):
        for start in range(0, len(stream), read):
            decoder.feed(stream[start : start + read])
            held = tracemalloc.get_traced_memory()[0] - before
            assert held <= 1.2 * (DEFAULT_LIMITS.payload + DEFAULT_LIMITS.frame + read)


def test_what_is_shared_between_decoders_does_not_grow() -> None:
    """After the largest frames, the encoder and the walker that are kept for the next are small ones."""
    large = PLAIN_FRAMES["bye"].__class__("INTERNAL", "x" * MIB)  # type: ignore[call-arg]
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        decode(encode_body(large))
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before <= 512 * KIB
