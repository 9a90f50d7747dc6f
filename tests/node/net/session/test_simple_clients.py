"""Peers that say no Hello: what they hear, and how long they may stay."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.net.session import IDLE_CLIENT_S
from node.testing import make_task
from protocol import Accept, Bye, ErrorCode, Frame, Heartbeat, Reject, Submit
from tests.node.net.session.ends import PULSE, RecordingOwner, raw_peer, result_for

LONG_S = 10_000.0  # of the mock clock: beyond every deadline of a session


async def test_a_simple_client_hears_only_what_it_asked_for(autojump_clock: MockClock) -> None:
    """No Hello and no Heartbeat is sent to it, however long its task takes."""
    del autojump_clock
    owner, submit = RecordingOwner(), Submit(make_task())
    async with raw_peer(owner) as (session, peer, _):
        await peer.say(submit)
        await owner.wait_for_frames(1)
        await trio.sleep(LONG_S)
        session.send(Accept(submit.task_id))
        session.send(result_for(submit))
        assert await peer.hear() == Accept(submit.task_id)
        assert await peer.hear() == result_for(submit)
        assert session.advert is None


async def test_a_simple_client_may_end_its_side_and_still_gets_its_results(autojump_clock: MockClock) -> None:
    """It sends its tasks, closes for writing, and reads until the end; then the session is over, the connection not."""
    del autojump_clock
    owner = RecordingOwner()
    submits = [Submit(make_task(str(number))) for number in range(3)]
    async with raw_peer(owner) as (session, peer, ends):
        await peer.say(*submits)
        await peer.stream.close()
        await owner.wait_for_frames(3)
        await trio.sleep(60)
        answers: list[Frame] = [Accept(submit.task_id) for submit in submits]
        answers += [result_for(submit) for submit in submits]
        for answer in answers:
            assert not session.closed
            session.send(answer)
        assert await peer.hear_all() == answers
        await session.over.wait()
        assert ends.carrier.endings == []


async def test_a_simple_client_that_is_refused_after_it_ended_its_side_is_done() -> None:
    """A Reject is an answer as well."""
    owner, submit = RecordingOwner(), Submit(make_task())
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(submit)
            await peer.stream.close()
            await owner.wait_for_frames(1)
            session.send(Reject(task_id=submit.task_id, code=ErrorCode.FORBIDDEN))
            assert [type(frame) for frame in await peer.hear_all()] == [Reject]


async def test_a_simple_client_that_vanishes_is_let_go_although_its_task_runs(autojump_clock: MockClock) -> None:
    """Once its side has ended there is nothing to read, so the state of the connection tells."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner, pulse=PULSE) as (session, peer, ends):
        await peer.say(Submit(make_task()))
        await peer.stream.close()
        await owner.wait_for_frames(1)
        ends.carrier.ended.set()
        with trio.fail_after(PULSE.heartbeat_s + 1):
            await session.over.wait()
        assert session.reason == "the connection is gone"


async def test_an_idle_simple_client_is_let_go_in_words(autojump_clock: MockClock) -> None:
    """It may stay for a while after its last answer, and is told when the time is up."""
    del autojump_clock
    owner, submit = RecordingOwner(), Submit(make_task())
    async with raw_peer(owner) as (session, peer, ends):
        began = trio.current_time()
        await peer.say(submit)
        await owner.wait_for_frames(1)
        session.send(Reject(task_id=submit.task_id, code=ErrorCode.BUSY))
        assert isinstance(await peer.hear(), Reject)
        bye = await peer.hear()
        assert isinstance(bye, Bye)
        assert bye.message == f"this stream was not used for {IDLE_CLIENT_S:.0f} s"
        assert trio.current_time() - began == pytest.approx(IDLE_CLIENT_S)
        await peer.stream.close()
        await session.over.wait()
        assert ends.carrier.endings == []


async def test_a_stream_on_which_nothing_is_said_is_ended(autojump_clock: MockClock) -> None:
    """Whoever opens one and stays silent does not hold it for ever."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner, pulse=PULSE) as (session, peer, ends):
        assert [type(frame) for frame in await peer.hear_all()] == [Bye]
        await session.over.wait()
        assert ends.carrier.endings == ["close"]
        assert owner.endings == []


async def test_a_simple_client_may_ask_for_a_sign_of_life() -> None:
    """A Heartbeat with a ping is answered, also without a Hello."""
    with trio.fail_after(10):
        async with raw_peer(RecordingOwner()) as (_, peer, _):
            await peer.say(Heartbeat(ping=5))
            assert await peer.hear() == Heartbeat(load=3, pong=5)
