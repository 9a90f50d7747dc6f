"""How a session begins: who says Hello first, and what each side learns from it."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from node.net.session import Initiator
from node.testing import make_task
from protocol import Bye, ErrorCode, Hello, Limits, Submit
from tests.node.net.session.ends import RecordingOwner, raw_peer, two_sessions


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
