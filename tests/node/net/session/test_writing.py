"""Frames on their way out: in which order, in which pieces, and how many may wait."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.net.session import MAX_QUEUED_BYTES, WRITE_BYTES, Session
from node.testing import make_task
from protocol import (
    Accept,
    Attach,
    Bye,
    Cancel,
    ErrorCode,
    Hello,
    Limits,
    LocalProtocolError,
    PeertaskError,
    Reject,
    Submit,
    TooLarge,
    new_task_id,
)
from tests.node.net.session.ends import NO_ROOM, RecordingOwner, raw_peer, result_for


async def test_frames_that_are_queued_in_one_pass_share_a_write() -> None:
    """Also those of tasks that run in the same pass of the scheduler."""
    owner = RecordingOwner()

    async def submit_some(session: Session) -> None:
        for _ in range(10):
            session.send(Submit(make_task()))

    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await peer.hear()
            before = len(ends.ours.outbound.writes)
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(submit_some, session)
            for _ in range(50):
                assert isinstance(await peer.hear(), Submit)
            assert len(ends.ours.outbound.writes) - before == 1


async def test_many_small_frames_go_in_writes_that_fit_into_one_noise_frame() -> None:
    """However much has gathered, no write is larger than it may be."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await owner.wait_for_greeting()
            for _ in range(100):
                session.send(Submit(make_task("x" * 5_000)))
            for _ in range(101):
                await peer.hear()
            assert max(map(len, ends.ours.outbound.writes)) <= WRITE_BYTES


async def test_small_frames_go_between_the_chunks_of_a_large_one() -> None:
    """What is queued while a large frame is under way does not wait for its end."""
    owner = RecordingOwner()
    large, small = Submit(make_task("x" * 1_000_000)), Submit(make_task("small"))
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await peer.hear()
            ends.ours.outbound.room = 1
            session.send(large)
            await wait_all_tasks_blocked()
            session.send(small)
            assert await peer.hear() == small
            assert await peer.hear() == large
            sizes = [len(data) for data in ends.ours.outbound.writes[1:]]
            assert len(sizes) == 5
            assert sizes.index(min(sizes)) in {1, 2}


async def test_frames_about_one_task_never_overtake_each_other() -> None:
    """A Cancel waits for the large Submit that it follows, and what follows the Cancel for that; others do not."""
    owner = RecordingOwner()
    large, other = Submit(make_task("x" * 1_000_000)), Submit(make_task("other"))
    second_large = Submit(make_task("y" * 600_000))
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await peer.hear()
            ends.ours.outbound.room = 1
            for frame in (large, Cancel(large.task_id), second_large, Cancel(second_large.task_id), other):
                session.send(frame)
            assert [await peer.hear() for _ in range(5)] == [
                other,
                large,
                Cancel(large.task_id),
                second_large,
                Cancel(second_large.task_id),
            ]


async def test_a_task_whose_large_frame_is_out_is_small_again() -> None:
    """Once the last chunk is written, later frames about the task need not wait behind other large ones."""
    owner = RecordingOwner()
    first, second = Submit(make_task("x" * 600_000)), Submit(make_task("y" * 600_000))
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await peer.hear()
            session.send(first)
            assert await peer.hear() == first
            ends.ours.outbound.room = 1
            session.send(second)
            await wait_all_tasks_blocked()
            session.send(Cancel(first.task_id))
            assert await peer.hear() == Cancel(first.task_id)
            assert await peer.hear() == second


async def test_a_bye_comes_after_everything_that_was_sent_before_it() -> None:
    """Leaving in good order loses nothing, large or small."""
    owner = RecordingOwner()
    large, small = Submit(make_task("x" * 1_000_000)), Submit(make_task())
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello())
            await peer.hear()
            session.send(large)
            session.send(small)
            session.leave(ErrorCode.DRAINING, "going")
            assert await peer.hear_all() == [small, large, Bye(ErrorCode.DRAINING, "going")]


async def test_the_limits_of_the_peer_hold_for_what_it_is_sent() -> None:
    """Larger frames are refused before sending, in words, and the session goes on."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello(limits=Limits(frame=4096, chunk=4096, payload=100_000)))
            await owner.wait_for_greeting()
            await wait_all_tasks_blocked()
            before = len(ends.ours.outbound.writes)
            with pytest.raises(TooLarge, match="100,000 bytes"):
                session.send(Submit(make_task("x" * 200_000)))
            session.send(Submit(make_task("x" * 90_000)))
            assert isinstance(await peer.hear(), Hello)
            assert isinstance(await peer.hear(), Submit)
            assert max(map(len, ends.ours.outbound.writes[before:])) <= 4096 + 2


async def test_a_frame_that_the_conversation_does_not_allow_is_not_sent() -> None:
    """A defect of this node does not break the session."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello())
            await peer.hear()
            with pytest.raises(LocalProtocolError):
                session.send(Accept(new_task_id()))
            session.send(Attach(task_id := new_task_id()))
            assert await peer.hear() == Attach(task_id)


async def test_a_full_queue_is_busy_for_tasks_and_takes_everything_else() -> None:
    """What a peer asked for is still queued; what this node wants done must wait until the peer reads."""
    owner, asked = RecordingOwner(), Submit(make_task())
    with trio.fail_after(30):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello(), asked)
            await owner.wait_for_frames(1)
            ends.ours.outbound.room = NO_ROOM
            for _ in range(5):
                session.send(Submit(make_task("x" * 15_000_000)))
            with pytest.raises(PeertaskError, match=f"{MAX_QUEUED_BYTES:,} is the limit") as caught:
                session.send(Submit(make_task()))
            assert caught.value.code is ErrorCode.BUSY
            session.send(Accept(asked.task_id))
            ends.ours.outbound.widen()
            await wait_all_tasks_blocked()
            session.send(Submit(make_task("again")))


async def test_a_peer_that_does_not_take_its_answers_gets_no_new_tasks() -> None:
    """It is told to come back later, and its tasks do not reach the node: so the queue towards it is bounded."""
    owner = RecordingOwner()
    asked = [Submit(make_task(str(number))) for number in range(6)]
    late = Submit(make_task("late"))
    with trio.fail_after(30):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello(), *asked)
            await owner.wait_for_frames(6)
            ends.ours.outbound.room = NO_ROOM
            for submit in asked:
                session.send(Accept(submit.task_id))
                session.send(result_for(submit, "x" * 15_000_000))
            await peer.say(late)
            await wait_all_tasks_blocked()
            assert late not in owner.frames
            ends.ours.outbound.widen()
            frames = [await peer.hear() for _ in range(14)]
            (reject,) = (frame for frame in frames if isinstance(frame, Reject))
            assert (reject.task_id, reject.code, reject.retry_after_ms) == (late.task_id, ErrorCode.BUSY, 1_000)
            await peer.say(late)
            assert (await owner.wait_for_frames(7))[-1] == late


async def test_sending_on_a_session_that_is_over_is_peer_lost_with_the_reason() -> None:
    """So that the task is tried again elsewhere."""
    with trio.fail_after(10):
        async with raw_peer(RecordingOwner()) as (session, peer, _):
            await peer.say(Hello(), Bye(ErrorCode.DRAINING, "I stop"))
            peer.stream.outbound.end()
            await session.over.wait()
            with pytest.raises(PeertaskError, match="I stop") as caught:
                session.send(Submit(make_task()))
            assert caught.value.code is ErrorCode.PEER_LOST
