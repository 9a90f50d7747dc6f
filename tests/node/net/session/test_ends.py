"""How a session ends, on both sides, and what becomes of its connection."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from libp2p.network.stream.exceptions import StreamEOF
from trio.testing import MockClock, wait_all_tasks_blocked

from node.net.session import FAREWELL_S
from node.testing import make_task
from protocol import Bye, ErrorCode, Hello, Submit
from tests.node.net.session.ends import NO_ROOM, THERE, Ends, RecordingOwner, raw_peer, two_sessions


async def test_bye_ends_both_sides_with_the_reason_and_closes_the_connection() -> None:
    """Both owners are told once, at both ends nothing is cancelled, and the stream ends in good order first."""
    ours, theirs = RecordingOwner(), RecordingOwner()
    with trio.fail_after(10):
        async with two_sessions(ours, theirs) as (session, other, ends):
            session.leave(ErrorCode.DRAINING, "maintenance")
            await session.over.wait()
            await other.over.wait()
            assert ours.endings == ["maintenance"]
            assert theirs.endings == ["the peer said goodbye: maintenance"]
            assert session.end_code is other.end_code is ErrorCode.DRAINING
            assert ends.carrier.endings == ["close"]
            for pipe in (ends.ours.inbound, ends.ours.outbound):
                assert pipe.cancelled == 0


async def test_a_connection_that_carries_another_session_stays() -> None:
    """Two peers that dial each other at once may find their two sessions on one connection, and keep one of them."""
    ours, theirs = RecordingOwner(), RecordingOwner()
    ours.last = theirs.last = False
    with trio.fail_after(10):
        async with two_sessions(ours, theirs) as (session, other, ends):
            session.leave(ErrorCode.CONFLICT, "another session of this pair goes on")
            await session.over.wait()
            await other.over.wait()
            assert ends.carrier.endings == ends.their_carrier.endings == []


async def test_a_peer_that_ends_the_stream_without_a_bye_is_lost() -> None:
    """As after kill -9: what was under way must be tried again."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(), Submit(make_task()))
            await owner.wait_for_frames(1)
            await peer.stream.close()
            await session.over.wait()
            assert session.end_code is ErrorCode.PEER_LOST
            assert owner.endings == ["the peer ended the session without a Bye"]


async def test_a_write_that_fails_ends_the_session(autojump_clock: MockClock) -> None:
    """Also when nothing is heard of the end."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner) as (session, peer, ends):
        await peer.say(Hello())
        await owner.wait_for_greeting()
        ends.ours.outbound.snap()
        await session.over.wait()
        assert session.reason == "writing to the peer failed: StreamReset"
        assert session.end_code is ErrorCode.PEER_LOST


async def test_what_waits_for_a_peer_that_has_said_goodbye_is_dropped() -> None:
    """It will not be read, and writing it would only keep the connection."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await peer.hear()
            ends.ours.outbound.room = 1
            session.send(Submit(make_task("x" * 5_000_000)))
            await wait_all_tasks_blocked()
            await peer.say(Bye(ErrorCode.DRAINING))
            await peer.stream.close()
            await wait_all_tasks_blocked()
            with suppress(StreamEOF):
                while True:
                    await peer.stream.read()
            await session.over.wait()
            assert sum(map(len, ends.ours.outbound.writes)) < 1_000_000


async def test_last_words_that_are_not_taken_are_cut_short(autojump_clock: MockClock) -> None:
    """A peer that does not read cannot keep a session from ending."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner) as (session, peer, ends):
        await peer.say(Hello())
        await owner.wait_for_greeting()
        ends.ours.outbound.room = NO_ROOM
        session.send(Submit(make_task()))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        session.leave(ErrorCode.DRAINING, "going")
        await session.over.wait()
        assert trio.current_time() - began == pytest.approx(FAREWELL_S)
        assert ends.carrier.endings == ["abort"]
        assert ends.ours.outbound.cancelled == 0


async def test_a_peer_that_does_not_end_its_side_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The connection is closed with a goodbye, because everything has been written."""
    del autojump_clock
    async with raw_peer(RecordingOwner()) as (session, peer, ends):
        await peer.say(Hello())
        await peer.hear()
        began = trio.current_time()
        session.leave(ErrorCode.DRAINING, "going")
        await session.over.wait()
        assert trio.current_time() - began == pytest.approx(FAREWELL_S)
        assert ends.carrier.endings == ["close"]
        assert ends.ours.inbound.cancelled == 0


async def test_a_cancelled_session_says_goodbye_and_cancels_no_read_or_write() -> None:
    """Whoever runs sessions may be cancelled at any moment; the connection must not be corrupted by it."""
    owner, theirs = RecordingOwner(), RecordingOwner()
    ends = Ends()
    session, other = ends.session(owner), ends.their_session(theirs)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(session.run)
                await owner.wait_for_greeting()
                session.send(Submit(make_task("x" * 1_000_000)))
                cancelled.cancel_scope.cancel()
            assert session.over.is_set()
        assert theirs.endings == ["the peer said goodbye: the node is stopping"]
        assert [frame.task_id for frame in theirs.frames if isinstance(frame, Submit)] != []
        for pipe in (ends.ours.inbound, ends.ours.outbound):
            assert pipe.cancelled == 0


async def test_an_end_is_told_once_and_only_for_a_session_that_was_greeted() -> None:
    """However many things go wrong at once."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.stream.close()
            await session.over.wait()
            assert owner.endings == []
        async with raw_peer(owner) as (session, peer, ends):
            await peer.say(Hello())
            await owner.wait_for_greeting()
            session.leave(ErrorCode.DRAINING, "first")
            session.leave(ErrorCode.INTERNAL, "second")
            ends.ours.outbound.snap()
            await peer.stream.close()
            await session.over.wait()
            assert owner.endings == ["first"]
            assert "over" in repr(session)
            assert session.peer_id == THERE
