"""Frames to bytes and back, with nothing lost."""

import dataclasses

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import (
    FRAME_TYPES,
    PROTOCOL_ID,
    PROTOCOL_VERSION,
    Bye,
    ErrorCode,
    Frame,
    FrameDecoder,
    Heartbeat,
    Limits,
    LocalProtocolError,
    Reject,
    Submit,
    Task,
    TooLarge,
    decode_body,
    encode_body,
    encode_frame,
    encode_length,
)
from tests.protocol import strategies
from tests.protocol.samples import ALICE, FULL_FRAMES, NOON, PLAIN_FRAMES, TASK_ID

SMALLEST = Limits(frame=1024, chunk=1024, payload=1024, in_flight=1)


@given(strategies.frames)
@example(PLAIN_FRAMES["submit"])
@example(FULL_FRAMES["hello"])
def test_a_frame_survives_its_body(frame: Frame) -> None:
    """Whatever a frame holds is read back as the same frame."""  # covers CORE-31
    assert decode_body(encode_body(frame)) == frame


@given(st.lists(strategies.frames.filter(lambda frame: type(frame).__name__ != "Chunk"), max_size=5))
def test_frames_survive_the_stream(frames: list[Frame]) -> None:
    """What is sent is what is received, in order."""
    stream = b"".join(piece for frame in frames for piece in encode_frame(frame))
    decoder = FrameDecoder()
    assert decoder.feed(stream) == frames
    assert decoder.at_boundary


@pytest.mark.parametrize("name", FRAME_TYPES)
def test_what_has_its_default_is_not_sent(name: str) -> None:
    """A plain frame costs a few bytes: only its type and what has no default are on the wire."""
    required = {
        field.name
        for field in dataclasses.fields(FRAME_TYPES[name])
        if field.default is field.default_factory is dataclasses.MISSING
    }
    given_too = {"result"} if name == "result" else set()
    assert set(msgpack.unpackb(encode_body(PLAIN_FRAMES[name]))) == {"type", *required, *given_too}


@pytest.mark.parametrize("name", FRAME_TYPES)
def test_what_a_reader_does_not_know_is_ignored(name: str) -> None:
    """A newer peer may add fields to any frame."""
    body = msgpack.unpackb(encode_body(PLAIN_FRAMES[name])) | {"mood": {"deep": [1]}}
    assert decode_body(msgpack.packb(body)) == PLAIN_FRAMES[name]


def test_the_same_frame_has_the_same_bytes_every_time() -> None:
    """The encoder that is kept for the next frame keeps nothing of the last, also after one that failed."""
    broken = Submit(Task(id=TASK_ID, prompt="", sender=ALICE, timestamp=NOON, params={"a": {}}))
    broken.task.params["a"]["b"] = object()
    before = {name: encode_body(frame) for name, frame in FULL_FRAMES.items()}
    with pytest.raises(LocalProtocolError, match="a Submit frame cannot be encoded: msgpack cannot carry a object"):
        encode_body(broken)
    assert {name: encode_body(frame) for name, frame in FULL_FRAMES.items()} == before


def submit(prompt_bytes: int) -> Submit:
    """Return a Submit with so much text."""
    return Submit(Task(id=TASK_ID, prompt="x" * prompt_bytes, sender=ALICE, timestamp=NOON))


@pytest.mark.parametrize("message", ["x" * 10_000, "bad \ud800 text"])
def test_the_words_of_a_refusal_can_always_be_sent(message: str) -> None:
    """An error of any length and content ends in a frame that the peer takes, and not in the end of the session."""
    for frame in (
        Reject(task_id=TASK_ID, code=ErrorCode.NO_EXECUTOR, message=message),
        Bye(ErrorCode.INTERNAL, message),
    ):
        assert decode_body(encode_body(frame)) == frame
        assert frame.message[:3] == message[:3]


LIMITS = [
    Limits(),
    SMALLEST,
    Limits(frame=1024, payload=100_000),
    Limits(frame=4096, chunk=1024, payload=100_000),
    Limits(frame=2000, chunk=2000, payload=100_000),
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("prompt_bytes", [0, 100, 780, 810, 990, 1024, 2000, 5000, 90_000, 300_000, 2_000_000])
def test_what_may_be_sent_can_be_received(limits: Limits, prompt_bytes: int) -> None:
    """A frame made for a peer's limits passes that peer's decoder, whole or in chunks, or is refused before sending."""
    frame = submit(prompt_bytes)
    try:
        pieces = encode_frame(frame, limits)
    except TooLarge:
        assert prompt_bytes > limits.payload - 1024
        return
    assert FrameDecoder(limits).feed(b"".join(pieces)) == [frame]
    assert max(map(len, pieces)) <= limits.frame + len(encode_length(limits.frame))


def test_a_large_frame_goes_in_chunks_and_small_ones_may_pass_it() -> None:
    """Between two chunks anything small may come; it is delivered before the large frame is complete."""
    large = submit(600_000)
    pieces = encode_frame(large)
    beat = Heartbeat(load=1)
    assert len(pieces) == 3
    decoder = FrameDecoder()
    received = [frame for piece in pieces for frame in decoder.feed(piece + encode_frame(beat)[0])]
    assert received == [beat, beat, large, beat]


def test_what_is_too_large_is_refused_before_sending_with_the_limit() -> None:
    """The error names what is too large, its size and the limit, and says what to do."""
    with pytest.raises(TooLarge, match=r"a Submit of 5,1\d\d bytes is larger .* limit of 1,024 bytes") as caught:
        encode_frame(submit(5000), SMALLEST)
    assert "Put large data where both peers can reach it" in str(caught.value)


@pytest.mark.parametrize(
    ("length", "varint"),
    [(1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16_383, "ff7f"), (16_384, "808001"), (2**32, "8080808010")],
)
def test_a_length_is_an_unsigned_varint_in_its_shortest_form(length: int, varint: str) -> None:
    """The first seven bits come first, and the eighth bit says that more follow."""
    assert encode_length(length).hex() == varint


def test_the_protocol_has_an_id_and_a_version() -> None:
    """Both stand in the specification, and change together."""
    assert (PROTOCOL_ID, PROTOCOL_VERSION) == ("/peertask/1.0.0", "1.0")
