"""Signs of life: the load, the round trip, what a peer offers, and what its silence means."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.net.session import Initiator, Pulse
from node.testing import make_task
from protocol import ErrorCode, Heartbeat, Hello, Offer, PeerAdvert, Submit
from tests.node.net.session.ends import NO_ROOM, PULSE, RawPeer, RecordingOwner, raw_peer


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
