"""Whom a node tells its peers of, and when: what is new, once, and again before it is too old."""

from __future__ import annotations

from dataclasses import replace

from node.net.introductions import MAX_INTRODUCED, Introductions, Pace
from protocol import MAX_PEERS_TOLD, PeerAdvert, PeerHint, PeerId

PACE = Pace(gather_s=1.0, again_s=0.5, refresh_s=100.0, ttl_s=250.0)
ALICE, BOB, CAROL = PeerId("alice"), PeerId("bob"), PeerId("carol")
NOBODY: frozenset[PeerId] = frozenset()


def hints(*peer_ids: PeerId, **changes: object) -> dict[PeerId, PeerHint]:
    """What is known of some peers."""
    plain = PeerHint(peer_id=ALICE, addresses=("/ip4/8.8.8.8/tcp/1",), ttl_ms=1_000)
    return {peer_id: replace(plain, peer_id=peer_id, **changes) for peer_id in peer_ids}  # type: ignore[arg-type]


def told(introductions: Introductions, receiver: PeerId, now: float, already: frozenset[PeerId] = NOBODY) -> list[str]:
    """Of whom a peer is told."""
    return [hint.peer_id for hint in introductions.due(receiver, already, now)]


def test_each_peer_is_told_of_the_others_once() -> None:
    """And not of itself."""
    introductions = Introductions(PACE)
    introductions.update(hints(ALICE, BOB, CAROL))
    assert told(introductions, ALICE, 0.0) == [BOB, CAROL]
    assert told(introductions, BOB, 0.0) == [ALICE, CAROL]
    assert told(introductions, ALICE, 1.0) == []


def test_a_change_is_told_and_load_is_none() -> None:
    """How busy a peer is changes all the time: it travels with what is told anyway."""
    introductions = Introductions(PACE)
    introductions.update(hints(BOB, CAROL))
    told(introductions, ALICE, 0.0)
    introductions.update(hints(BOB, CAROL, advert=PeerAdvert(load=7)))
    assert told(introductions, ALICE, 1.0) == []
    introductions.update(
        hints(BOB, advert=PeerAdvert(kinds=("new",), load=8)) | hints(CAROL, advert=PeerAdvert(load=9))
    )
    assert [hint.advert.load for hint in introductions.due(ALICE, NOBODY, 1.0)] == [8]
    introductions.update(hints(BOB, CAROL, addresses=("/ip4/9.9.9.9/tcp/1",)))
    assert told(introductions, ALICE, 2.0) == [BOB, CAROL]


def test_what_has_not_changed_is_told_again_before_it_is_too_old() -> None:
    """Twice within the life of a hint, so one frame may be lost with a session."""
    introductions = Introductions(PACE)
    introductions.update(hints(BOB))
    assert told(introductions, ALICE, 0.0) == [BOB]
    assert told(introductions, ALICE, PACE.refresh_s - 1) == []
    assert told(introductions, ALICE, PACE.refresh_s) == [BOB]
    assert PACE.ttl_s > 2 * PACE.refresh_s


def test_a_peer_is_told_of_newcomers_together() -> None:
    """While many connect, each of the others gets a frame now and then, not one for each of them."""
    introductions = Introductions(PACE._replace(again_s=10.0))
    introductions.update(hints(BOB))
    assert told(introductions, ALICE, 0.0) == [BOB]
    introductions.update(hints(BOB, CAROL))
    assert told(introductions, ALICE, 9.9) == []
    assert told(introductions, ALICE, 10.0) == [CAROL]


def test_a_peer_is_not_told_of_whom_it_tells() -> None:
    """In a mesh everybody knows everybody: one of the two says so, not both."""
    introductions = Introductions(PACE)
    introductions.update(hints(BOB, CAROL))
    assert told(introductions, ALICE, 0.0, frozenset({BOB})) == [CAROL]


def test_a_peer_that_comes_back_is_told_of_again_and_a_new_session_begins_anew() -> None:
    """What a peer was told is forgotten with its session, and who is gone with theirs."""
    introductions = Introductions(PACE)
    introductions.update(hints(BOB))
    told(introductions, ALICE, 0.0)
    introductions.update({})
    assert told(introductions, ALICE, 1.0) == []
    introductions.update(hints(BOB))
    assert told(introductions, ALICE, 2.0) == [BOB]
    introductions.forget(ALICE)
    assert told(introductions, ALICE, 3.0) == [BOB]


def test_many_peers_take_several_frames_and_there_is_an_end_to_them() -> None:
    """A frame holds some, a receiver is told of as many as it keeps, and changes of those go on to be told."""
    introductions = Introductions(PACE)
    everyone = [PeerId(f"peer-{number}") for number in range(MAX_INTRODUCED + 50)]
    introductions.update(hints(*everyone))
    frames = [told(introductions, ALICE, 0.0) for _ in range(6)]
    assert [len(frame) for frame in frames] == [MAX_PEERS_TOLD] * (MAX_INTRODUCED // MAX_PEERS_TOLD) + [0, 0]
    introductions.update(hints(*everyone, advert=PeerAdvert(slots=1)))
    assert len(told(introductions, ALICE, 1.0)) == MAX_PEERS_TOLD
