"""The decoder: the same frames however the stream is cut, within its limits, at a cost in proportion to the bytes."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    Bye,
    Chunk,
    ErrorCode,
    Frame,
    FrameDecoder,
    Heartbeat,
    Limits,
    RemoteProtocolError,
    Submit,
    Task,
    encode_body,
    encode_frame,
    encode_length,
)
from tests.protocol.samples import ALICE, FULL_FRAMES, NOON, PLAIN_FRAMES, TASK_ID

LARGE = Submit(Task(id=TASK_ID, prompt="x" * 300_000, sender=ALICE, timestamp=NOON))
FRAMES: list[Frame] = [
    frame
    for frames in (PLAIN_FRAMES, FULL_FRAMES)
    for frame in (*frames.values(), LARGE)
    if not isinstance(frame, Chunk)
]
STREAM = b"".join(piece for frame in FRAMES for piece in encode_frame(frame))


def framed(body: bytes) -> bytes:
    """Return a body with its length before it."""
    return encode_length(len(body)) + body


def fed(decoder: FrameDecoder, pieces: list[bytes]) -> list[Frame]:
    """Return what comes of feeding the pieces one after the other."""
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def test_a_stream_byte_by_byte_gives_the_same_frames() -> None:
    """No frame depends on how the network cuts it."""
    decoder = FrameDecoder()
    assert fed(decoder, [STREAM[index : index + 1] for index in range(len(STREAM))]) == FRAMES
    assert decoder.at_boundary


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_in_any_slices_gives_the_same_frames(cuts: list[int]) -> None:
    """Also when some slices are empty."""
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    assert fed(FrameDecoder(), pieces) == FRAMES


@pytest.mark.parametrize("name", FULL_FRAMES)
def test_a_frame_is_delivered_with_its_last_byte_and_not_before(name: str) -> None:
    """Whoever feeds the decoder knows at every moment whether the stream may end there."""
    stream = framed(encode_body(PLAIN_FRAMES[name]))
    decoder = FrameDecoder()
    for index in range(len(stream) - 1):
        assert decoder.feed(stream[index : index + 1]) == []
        assert not decoder.at_boundary
    decoder.feed(stream[-1:])
    assert decoder.at_boundary == (name != "chunk")


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"\x00", "0 bytes is outside 1 to 1,048,576"),
        (encode_length(MAX_FRAME_BYTES + 1), "1,048,577 bytes is outside"),
        (b"\xff\xff\xff\xff\x7f", "34,359,738,367 bytes is outside"),
        (b"\xff\xff\xff\xff\xff", "more than 5 bytes"),
        (b"\x80" * 5, "more than 5 bytes"),
        (b"\x80\x00", "0 bytes is outside"),
        (b"\x8a\x00", "not in its shortest form"),
        (b"\xff\x80\x00", "not in its shortest form"),
    ],
)
def test_a_bad_length_is_refused_when_it_is_read(stream: bytes, error: str) -> None:
    """Before a byte of the body has come, in one read or in many."""
    with pytest.raises(RemoteProtocolError, match=error):
        FrameDecoder().feed(stream)
    with pytest.raises(RemoteProtocolError, match=error):
        fed(FrameDecoder(), [stream[index : index + 1] for index in range(len(stream))])


def test_the_largest_frame_is_taken_and_one_byte_more_is_not() -> None:
    """The limit that Hello announces is exact."""
    limits = Limits(frame=2048)
    room = 2048 - len(encode_body(Bye(ErrorCode.DRAINING, "x" * 300))) + 300
    frame = Bye(ErrorCode.DRAINING, "x" * room)
    assert len(encode_body(frame)) == 2048
    assert FrameDecoder(limits).feed(framed(encode_body(frame))) == [frame]
    with pytest.raises(RemoteProtocolError, match="2,049 bytes is outside 1 to 2,048"):
        FrameDecoder(limits).feed(framed(encode_body(Bye(ErrorCode.DRAINING, "x" * (room + 1)))))


def test_chunks_without_end_are_refused_at_the_limit() -> None:
    """A peer cannot make a node hold more than one payload, however it is cut."""
    decoder = FrameDecoder(Limits(payload=10_000))
    piece = framed(encode_body(Chunk(b"x" * 1000)))
    assert fed(decoder, [piece] * 11) == []
    with pytest.raises(RemoteProtocolError, match="chunks add up to more than the limit of 10,000 bytes"):
        decoder.feed(piece)


def test_a_chunk_in_a_chunk_is_refused() -> None:
    """Chunks carry frames, and a chunk is none."""
    inner = encode_body(Chunk(b"x", last=True))
    with pytest.raises(RemoteProtocolError, match="a chunk holds another chunk"):
        FrameDecoder().feed(framed(encode_body(Chunk(inner, last=True))))


def test_an_empty_chunk_is_refused() -> None:
    """A peer cannot keep a node busy with pieces of nothing."""
    empty = encode_body(Chunk(b"x")).replace(b"\xc4\x01x", b"\xc4\x00")
    with pytest.raises(RemoteProtocolError, match="at least 1 byte"):
        FrameDecoder().feed(framed(empty))


def test_garbage_in_chunks_is_refused_with_its_last_piece() -> None:
    """What the pieces add up to is judged like any other body."""
    decoder = FrameDecoder()
    assert decoder.feed(framed(encode_body(Chunk(b"\xc1")))) == []
    with pytest.raises(RemoteProtocolError, match="not valid msgpack"):
        decoder.feed(framed(encode_body(Chunk(b"\xc1", last=True))))


def test_frames_of_one_session_do_not_depend_on_what_another_sent() -> None:
    """What decoders share for speed never carries anything from one peer to the next."""
    beat = framed(encode_body(Heartbeat(load=1)))
    for poison in (beat[1:] + b"\xdd\xff\xff\xff\xff", beat[1:-1], b"\xc1", b"\x91" * 2000, b"\x81\xa1a"):
        with pytest.raises(RemoteProtocolError):
            FrameDecoder().feed(framed(poison))
        assert FrameDecoder().feed(beat) == [Heartbeat(load=1)]


def seconds_to_feed(stream: bytes, piece: int) -> float:
    """Return the least CPU time that it took to feed a stream in pieces, of three times."""
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    times = []
    for _ in range(3):
        decoder = FrameDecoder()
        start = time.thread_time()
        fed(decoder, pieces)
        times.append(time.thread_time() - start)
    return min(times)


def test_a_large_frame_in_small_pieces_costs_in_proportion_to_its_size() -> None:
    """Eight times the bytes in as small pieces take some eight times as long, not sixty-four."""
    small, large = (framed(encode_body(Chunk(b"x" * size))) for size in (CHUNK_BYTES // 2, 4 * CHUNK_BYTES - 32))
    assert seconds_to_feed(large, 256) < 24 * seconds_to_feed(small, 256)
