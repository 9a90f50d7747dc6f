"""A session over pipes in memory: what is said, what is not, and how it ends."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import trio
from libp2p.network.stream.exceptions import StreamEOF
from trio.testing import MockClock, wait_all_tasks_blocked

from node.net.session import (
    FAREWELL_S,
    IDLE_CLIENT_S,
    MAX_QUEUED_BYTES,
    WRITE_BYTES,
    Initiator,
    Pulse,
    Session,
)
from node.testing import make_task
from protocol import (
    Accept,
    Attach,
    Bye,
    Cancel,
    Chunk,
    ErrorCode,
    Frame,
    Heartbeat,
    Hello,
    Limits,
    LocalProtocolError,
    Offer,
    PeerAdvert,
    PeertaskError,
    Reject,
    Result,
    Submit,
    TaskResult,
    TooLarge,
    encode_frame,
    new_task_id,
)
from tests.node.net.session_ends import NO_ROOM, THERE, Ends, RawPeer, RecordingOwner, raw_peer, two_sessions

PULSE = Pulse(heartbeat_s=5.0, silence_s=15.0)
LONG_S = 10_000.0  # of the mock clock: beyond every deadline of a session


def result_for(submit: Submit, text: str = "done") -> Result:
    """The end of a task."""
    return Result(task_id=submit.task_id, seq=2, result=TaskResult(submit.task_id, text, 1))


# --- Hello -----------------------------------------------------------------------------------------------------------


async def test_both_sides_learn_from_hello_who_the_other_is() -> None:
    """Advert, agent and limits travel both ways, and each session is greeted once."""
    ours, theirs = RecordingOwner(limits=Limits(in_flight=7)), RecordingOwner(load=9)
    with trio.fail_after(10):
        async with two_sessions(ours, theirs) as (session, other, _):
            assert ours.greetings == [session]
            assert theirs.greetings == [other]
            assert session.advert == theirs.advert
            assert other.advert == ours.advert
            assert (other.in_flight, other.local_in_flight) == (7, Limits().in_flight)
            assert (session.in_flight, session.local_in_flight) == (Limits().in_flight, 7)
            assert session.hello is not None
            assert session.hello.agent == f"test, for {session.peer_id.replace('There', 'Here')}"


async def test_whoever_opened_the_stream_says_hello_first() -> None:
    """The other side waits, so that a simple client is never told what it did not ask."""
    with trio.fail_after(10):
        async with raw_peer(RecordingOwner(), Initiator.SELF) as (_, peer, _):
            assert isinstance(await peer.hear(), Hello)
        async with raw_peer(RecordingOwner(), Initiator.PEER) as (_, peer, ends):
            await wait_all_tasks_blocked()
            assert ends.ours.outbound.writes == []
            await peer.say(Hello())
            assert isinstance(await peer.hear(), Hello)


async def test_a_version_with_the_same_first_number_is_understood() -> None:
    """Minor versions add only what older readers ignore."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(versions=("2.0", "1.7")))
            await owner.wait_for_greeting()
            assert not session.closed


async def test_an_incompatible_version_is_told_in_words_on_both_sides() -> None:
    """Whoever notices says Bye, and both sessions end with the same code and a reason that names the versions."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(versions=("2.0", "3.1")))
            bye = await peer.hear()
            assert isinstance(bye, Bye)
            assert bye.code is session.end_code is ErrorCode.INCOMPATIBLE_VERSION
            for words in (bye.message, session.reason):
                assert "speaks versions 2.0, 3.1" in words
                assert "this node speaks 1.0" in words
                assert "Update the older" in words
            assert owner.greetings == []


async def test_the_bye_of_a_peer_that_is_of_another_version_is_the_reason_here() -> None:
    """The side that is refused knows why as well."""
    with trio.fail_after(10):
        async with raw_peer(RecordingOwner(), Initiator.SELF) as (session, peer, _):
            await peer.say(Bye(ErrorCode.INCOMPATIBLE_VERSION, "I speak 2.0 only"))
            peer.stream.outbound.end()
            await session.over.wait()
            assert session.end_code is ErrorCode.INCOMPATIBLE_VERSION
            assert session.reason == "the peer said goodbye: I speak 2.0 only"


async def test_a_second_hello_is_illegal() -> None:
    """What a peer said about its limits does not change under the frames that were made for them."""
    with trio.fail_after(10):
        async with raw_peer(RecordingOwner()) as (session, peer, _):
            await peer.say(Hello(), Hello())
            frames = await peer.hear_all()
            assert isinstance(frames[-1], Bye)
            assert session.end_code is ErrorCode.PROTOCOL


async def test_a_session_that_the_owner_does_not_want_gets_no_frame() -> None:
    """After a refusal nothing is handed over, although the peer had sent it at once."""
    owner = RecordingOwner()
    owner.accepts = False

    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(), Submit(make_task()))
            await owner.wait_for_greeting()
            session.leave(ErrorCode.CONFLICT, "another session of this pair goes on")
            peer.stream.outbound.end()
            await session.over.wait()
            assert owner.frames == []
            assert owner.endings == []


# --- Simple clients --------------------------------------------------------------------------------------------------


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


# --- Heartbeats ------------------------------------------------------------------------------------------------------


async def test_a_ping_is_answered_at_once_with_the_load() -> None:
    """Without waiting for the next beat."""
    with trio.fail_after(2):
        async with raw_peer(RecordingOwner(load=5)) as (_, peer, _):
            await peer.say(Hello())
            await peer.hear()
            await peer.say(Heartbeat(ping=77))
            assert await peer.hear() == Heartbeat(load=5, pong=77)


async def next_beat(peer: RawPeer, began: float) -> tuple[float, Heartbeat]:
    """When the next heartbeat comes, in seconds since `began`, and what it says; it is answered 250 ms later."""
    beat = await peer.hear()
    assert isinstance(beat, Heartbeat)
    at = trio.current_time() - began
    await trio.sleep(0.25)
    await peer.say(Heartbeat(load=4, pong=beat.ping))
    await wait_all_tasks_blocked()
    return at, beat


async def test_whoever_opened_the_stream_asks_and_measures_the_round_trip(autojump_clock: MockClock) -> None:
    """The time from a ping to its pong is the latency; while nothing is under way, every other beat is left out."""
    del autojump_clock
    async with raw_peer(RecordingOwner(), Initiator.SELF, PULSE) as (session, peer, _):
        began = trio.current_time()
        await peer.hear()
        await peer.say(Hello())
        beats = [(await next_beat(peer, began))[0] for _ in range(3)]
        assert beats == [pytest.approx(at) for at in (5, 15, 25)]
        assert session.latency_ms == pytest.approx(250, abs=0.01)
        assert session.advert is not None
        assert session.advert.load == 4


async def test_whoever_opened_the_stream_asks_at_each_beat_while_a_task_is_under_way(autojump_clock: MockClock) -> None:
    """The load of a peer that works is news."""
    del autojump_clock
    async with raw_peer(RecordingOwner(), Initiator.SELF, PULSE) as (session, peer, _):
        began = trio.current_time()
        await peer.hear()
        await peer.say(Hello())
        await wait_all_tasks_blocked()
        session.send(Submit(make_task()))
        await peer.hear()
        assert [(await next_beat(peer, began))[0] for _ in range(3)] == [pytest.approx(at) for at in (5, 10, 15)]


async def test_the_other_side_asks_once_for_the_round_trip_and_where_it_is_not_asked(autojump_clock: MockClock) -> None:
    """Half a beat later than the one that opened the stream, which spares one of two questions."""
    del autojump_clock
    async with raw_peer(RecordingOwner(), pulse=PULSE) as (session, peer, _):
        began = trio.current_time()
        await peer.say(Hello())
        await peer.hear()
        assert (await next_beat(peer, began))[0] == pytest.approx(2.5)
        assert session.latency_ms == pytest.approx(250, abs=0.01)
        await trio.sleep_until(began + 10)
        await peer.say(Heartbeat(ping=1))
        assert await peer.hear() == Heartbeat(load=3, pong=1)
        assert (await next_beat(peer, began))[0] == pytest.approx(22.5)


async def test_a_new_load_or_offer_changes_the_advert_and_is_told() -> None:
    """The load comes with heartbeats, the rest with offers; what has not changed is not told."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(advert=PeerAdvert(kinds=("a",), slots=1, load=1)))
            await peer.say(Heartbeat(load=1), Heartbeat(load=2), Offer(slots=3, kinds=("b",)), Submit(make_task()))
            await owner.wait_for_frames(1)
            assert owner.adverts == [
                PeerAdvert(kinds=("a",), slots=1, load=2),
                PeerAdvert(kinds=("b",), slots=3, load=2),
            ]
            assert session.advert == owner.adverts[-1]


async def test_an_offer_is_a_credit_only_when_it_asks_for_work() -> None:
    """Then it is handed on too; others only change the advert."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (session, peer, _):
            await peer.say(Hello(), Offer(slots=1), asking := Offer(slots=2, pull=True), Offer(slots=3))
            await peer.say(Submit(make_task()))
            await owner.wait_for_frames(2)
            assert owner.frames[0] == asking
            assert session.offered == 2


async def test_a_peer_tells_where_it_can_be_dialled_now() -> None:
    """An Offer that does not say so changes nothing; one without addresses says that it cannot be any more."""
    owner = RecordingOwner()
    with trio.fail_after(10):
        async with raw_peer(owner) as (_, peer, _):
            here = "/ip4/192.0.2.7/tcp/4001"
            await peer.say(Hello(addresses=(here,)), Offer(slots=1), Offer(slots=1, addresses=(here,)))
            await peer.say(Offer(slots=1, addresses=()), Submit(make_task()))
            await owner.wait_for_frames(1)
            assert owner.moves == [(here,), ()]


async def test_silence_ends_a_session_at_the_agreed_second_and_without_a_word(autojump_clock: MockClock) -> None:
    """The connection is aborted at once, because a frozen peer reads no goodbye."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner, pulse=PULSE) as (session, peer, ends):
        await peer.say(Hello())
        await owner.wait_for_greeting()
        await trio.sleep(7)
        await peer.say(Heartbeat())
        heard_at = trio.current_time()
        await ends.carrier.ended.wait()
        assert trio.current_time() - heard_at == pytest.approx(PULSE.silence_s)
        assert ends.carrier.endings == ["abort"]
        await session.over.wait()
        assert owner.endings == ["nothing was heard from the peer for 15 s"]
        assert session.end_code is ErrorCode.PEER_LOST


async def test_a_frozen_peer_is_found_although_a_write_to_it_is_stuck(autojump_clock: MockClock) -> None:
    """The abort makes the write return; nothing is cancelled in its middle."""
    del autojump_clock
    owner = RecordingOwner()
    async with raw_peer(owner, pulse=PULSE) as (session, peer, ends):
        await peer.say(Hello())
        await owner.wait_for_greeting()
        heard_at = trio.current_time()
        ends.ours.outbound.room = NO_ROOM
        session.send(Submit(make_task("x" * 1_000_000)))
        await session.over.wait()
        assert trio.current_time() - heard_at == pytest.approx(PULSE.silence_s)
        assert ends.carrier.endings == ["abort"]
        assert ends.ours.outbound.cancelled == ends.ours.inbound.cancelled == 0


async def test_a_pause_of_this_node_is_not_blamed_on_the_peer() -> None:
    """When the event loop itself was held up for longer than the silence, the peer gets its time again."""
    owner = RecordingOwner()
    pulse = Pulse(heartbeat_s=0.1, silence_s=0.4)
    with trio.fail_after(10):
        async with raw_peer(owner, pulse=pulse) as (session, peer, _):
            await peer.say(Hello())
            await owner.wait_for_greeting()
            time.sleep(0.6)
            paused_until = trio.current_time()
            await trio.sleep(0.05)
            assert not session.closed
            await session.over.wait()
            assert trio.current_time() - paused_until >= pulse.silence_s * 0.95


# --- Writing ---------------------------------------------------------------------------------------------------------


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


# --- Reading ---------------------------------------------------------------------------------------------------------


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


# --- The end ---------------------------------------------------------------------------------------------------------


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
