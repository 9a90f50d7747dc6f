"""Who may register at a node, and whom those are told of who ask."""

from __future__ import annotations

import random

from node.net.rendezvous import (
    MAX_REGISTRATION_S,
    MAX_REGISTRATIONS,
    MAX_REGISTRATIONS_PER_ADDRESS,
    REQUEST_RATE,
    Registry,
)
from protocol import MAX_PEERS_TOLD, MAX_TTL_MS, Discover, PeerAdvert, PeerId, Registered

ALICE, BOB = PeerId("alice"), PeerId("bob")
HOUR_MS = 3_600_000


def make_registry() -> Registry:
    """An empty one that chooses the same each time."""
    return Registry(random.Random(1))


def register(
    registry: Registry, peer_id: PeerId, ttl_ms: int = 60_000, now: float = 0.0, *, place: str = "", kind: str = "echo"
) -> Registered:
    """Register a peer that has one address."""
    return registry.register(
        peer_id, ttl_ms, now, addresses=(f"/at/{peer_id}",), advert=PeerAdvert(kinds=(kind,)), place=place
    )


def found(registry: Registry, asker: PeerId, now: float = 0.0, kind: str | None = None) -> list[str]:
    """Whom a peer is told of."""
    return [hint.peer_id for hint in registry.find(asker, Discover(kind), now)]


def test_who_registered_is_found_for_as_long_as_was_granted() -> None:
    """What is told is good for what is left of the time; nobody is told of itself."""
    registry = make_registry()
    assert register(registry, ALICE, 60_000) == Registered(60_000)
    (hint,) = registry.find(BOB, Discover(), 20.0)
    assert (hint.peer_id, hint.addresses, hint.ttl_ms) == (ALICE, ("/at/alice",), 40_000)
    assert found(registry, ALICE) == []
    assert found(registry, BOB, 60.0) == []
    assert len(registry) == 0


def test_a_registration_is_replaced_shortened_and_ended() -> None:
    """One for each peer, an hour at the most, and nothing with a time of zero."""
    registry = make_registry()
    assert register(registry, ALICE, MAX_TTL_MS) == Registered(round(MAX_REGISTRATION_S * 1000))
    register(registry, ALICE, kind="new")
    assert (len(registry), found(registry, BOB, kind="echo"), found(registry, BOB, kind="new")) == (1, [], [ALICE])
    assert register(registry, ALICE, 0) == Registered()
    assert len(registry) == 0


def test_a_peer_without_an_address_is_refused_and_told_why() -> None:
    """Nobody could use it."""
    answer = make_registry().register(ALICE, 1, 0.0, addresses=(), advert=PeerAdvert(), place="")
    assert (answer.ttl_ms, "names no address" in answer.message) == (0, True)


def test_the_registry_is_bounded_and_who_is_in_it_stays() -> None:
    """Newcomers are refused, those that renew are not."""
    registry = make_registry()
    for number in range(MAX_REGISTRATIONS):
        register(registry, PeerId(f"peer-{number}"))
    refusal = register(registry, ALICE)
    assert (refusal.ttl_ms, len(registry)) == (0, MAX_REGISTRATIONS)
    assert "already 1,024 peers" in refusal.message
    assert register(registry, PeerId("peer-0")).ttl_ms == 60_000


def test_one_address_has_its_share_however_many_identities_it_draws() -> None:
    """Another address still has room; the share comes back with time."""
    registry = make_registry()
    for number in range(MAX_REGISTRATIONS_PER_ADDRESS):
        register(registry, PeerId(f"peer-{number}"), place="8.8.8.8")
    assert "from 8.8.8.8 are registered" in register(registry, ALICE, place="8.8.8.8").message
    assert register(registry, PeerId("peer-0"), place="8.8.8.8").ttl_ms
    assert register(registry, BOB, place="9.9.9.9").ttl_ms
    assert register(registry, ALICE, now=61.0, place="8.8.8.8").ttl_ms


def test_a_peer_that_asks_all_the_time_gets_nothing_for_a_while() -> None:
    """An answer is larger than its question, and costs more."""
    registry = make_registry()
    register(registry, ALICE, HOUR_MS)
    answers = [found(registry, BOB) for _ in range(REQUEST_RATE.burst + 1)]
    assert answers == [[ALICE]] * REQUEST_RATE.burst + [[]]
    assert found(registry, BOB, 5.0) == [ALICE]
    for _ in range(REQUEST_RATE.burst):
        register(registry, ALICE, HOUR_MS)
    refusal = register(registry, ALICE, HOUR_MS)
    assert (refusal.ttl_ms, "you ask more than" in refusal.message) == (0, True)


def test_of_many_some_are_told_not_always_the_same() -> None:
    """So that everybody is found by somebody."""
    registry = make_registry()
    for number in range(3 * MAX_PEERS_TOLD):
        register(registry, PeerId(f"peer-{number}"))
    first, second = found(registry, ALICE), found(registry, ALICE)
    assert len(first) == len(set(first)) == len(second) == MAX_PEERS_TOLD
    assert set(first) != set(second)
