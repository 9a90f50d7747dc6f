"""Frames that come in, whole, cut or bad, and an owner that fails over them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.net.session import Initiator, Session
from node.testing import make_task
from protocol import Accept, Bye, Chunk, ErrorCode, Frame, Hello, Submit, encode_frame, new_task_id
from tests.node.net.session.ends import PULSE, RecordingOwner, raw_peer


async def test_frames_come_in_the_order_of_sending_however_they_are_cut() -> None:
    """A stream keeps bytes in order and nothing else."""
    owner = RecordingOwner()
    submits = [Submit(make_task(str(number))) for number in range(200)]
    frames: list[Frame] = [Hello(), *submits]
    data = b"".join(piece for frame in frames for piece in encode_frame(frame))
    with trio.fail_after(10):
        async with raw_peer(owner) as (_, peer, _):
            for start in range(0, len(data), 997):
                await peer.stream.write(data[start : start + 997])
            assert await owner.wait_for_frames(200) == submits


BAD_INPUT: dict[str, bytes] = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "a frame of four gigabytes": b"\xff\xff\xff\xff\x0f",
    "an unknown type": b"\x0d\x81\xa4type\xa6submix",
    "an answer to nothing": encode_frame(Accept(new_task_id()))[0],
    "more than the limit in chunks": encode_frame(Chunk(bytes(200_000)))[0] * 100,
}


@pytest.mark.parametrize("greeting", [(), (Hello(),)], ids=["simple client", "node"])
@pytest.mark.parametrize("data", BAD_INPUT.values(), ids=BAD_INPUT.keys())
async def test_what_is_not_the_protocol_ends_the_session_with_the_reason(
    greeting: tuple[Hello, ...], data: bytes
) -> None:
    """The peer is told in a Bye, the owner gets none of it, and the connection ends when the peer does not end it."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(*greeting)
            await peer.stream.write(data)
            frames = await peer.hear_all()
            bye = frames[-1]
            assert isinstance(bye, Bye)
            assert bye.code is session.end_code is ErrorCode.PROTOCOL
            assert bye.message
            await session.over.wait()
            assert owner.frames == []
            assert ends.ours.inbound.cancelled == 0


async def test_a_defect_of_the_owner_ends_only_its_session() -> None:
    """The exception is logged and goes nowhere; the peer is told that it is not its fault, and nothing more."""
    owner = RecordingOwner()
    owner.defect = RuntimeError("secret detail")
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(), Submit(make_task()))
            frames = await peer.hear_all()
            assert frames[-1] == Bye(ErrorCode.INTERNAL, "the node has a defect; its log has the details")
            await session.over.wait()
            assert owner.endings == [session.reason]


class Defective(RecordingOwner):
    """An owner that fails where a session cannot expect it."""

    def __init__(self, *defects: str) -> None:
        super().__init__()
        self.defects = defects

    def hello_for(self, peer_id: object) -> Hello:  # noqa: ARG002
        """Fail, or not."""
        self._fail("hello_for")
        return Hello()

    def load(self) -> int:
        """Fail, or not."""
        self._fail("load")
        return 1

    def ended(self, session: Session) -> None:  # noqa: ARG002
        """Fail, or not."""
        self._fail("ended")

    def _fail(self, place: str) -> None:
        if place in self.defects:
            raise RuntimeError(f"a defect in {place}")


async def leave_later(session: Session) -> None:
    """End a session after its first beat, unless something else has ended it."""
    await trio.sleep(PULSE.heartbeat_s + 1)
    session.leave(ErrorCode.DRAINING, "no effect when it is over")


@pytest.mark.parametrize("place", ["hello_for", "load", "ended"])
async def test_a_defect_anywhere_in_the_owner_stays_in_the_session(autojump_clock: MockClock, place: str) -> None:
    """`run` returns as for any other end, and the stream is closed."""
    del autojump_clock
    owner = Defective(place)
    async with raw_peer(owner, Initiator.SELF, PULSE) as (session, peer, _):
        await peer.say(Hello())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_later, session)
            assert [type(frame) for frame in await peer.hear_all()][-1] is Bye
        await session.over.wait()
        assert session.end_code is (ErrorCode.DRAINING if place == "ended" else ErrorCode.INTERNAL)
