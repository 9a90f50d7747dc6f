"""What is kept of what others say about peers, and what is not."""

from __future__ import annotations

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair

from node.coordination.reach import Reach, reach_of
from node.interfaces import PeerSource
from node.net.allowance import Allowances, Rate
from node.net.identity import peer_id_of
from node.net.known_peers import HINT_RATE, MAX_HINTED_NAMES, MAX_HINTS, MAX_HINTS_PER_SOURCE, KnownPeers, Origin
from protocol import PeerAdvert, PeerHint, PeerId

# Fixed, because the names of parametrized tests must be the same in every worker of pytest-xdist.
OWN, TELLER, OTHER, ABSENT = (peer_id_of(create_new_key_pair(str(number).encode() * 32)) for number in range(4))
FROM_TELLER = Origin(PeerSource.PEER, TELLER)
FROM_OTHER = Origin(PeerSource.PEER, OTHER)
LONG_AGO = 0.0
TTL_MS = 60_000
MANY = [peer_id_of(create_new_key_pair(number.to_bytes(32, "big"))) for number in range(MAX_HINTS_PER_SOURCE + 1)]


def at(host: str, peer_id: PeerId = ABSENT, port: int = 4001) -> str:
    """An address of a peer."""
    return f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}/p2p/{peer_id}"


def hint(peer_id: PeerId = ABSENT, *addresses: str, kinds: tuple[str, ...] = (), hops: int = 1) -> PeerHint:
    """Word of a peer, at one public address unless told otherwise."""
    advert = PeerAdvert(kinds=kinds, personas=kinds)
    where = addresses or (at("8.8.8.8", peer_id),)
    return PeerHint(peer_id=peer_id, addresses=where, advert=advert, ttl_ms=TTL_MS, hops=hops)


def test_a_hint_is_kept_until_its_time_is_over() -> None:
    """The receiver counts, from when it was told."""
    known = KnownPeers(OWN)
    assert known.hear(FROM_TELLER, [hint(kinds=("echo",))], 100.0) == 1
    assert known.addresses(ABSENT, 159.9) == (at("8.8.8.8"),)
    assert known.origins(ABSENT, 159.9) == (FROM_TELLER,)
    advert = known.advert(ABSENT, 159.9)
    assert advert is not None
    assert advert.kinds == ("echo",)
    assert (known.addresses(ABSENT, 160.0), known.advert(ABSENT, 160.0)) == ((), None)
    known.drop_expired(160.0)
    assert (len(known), list(known)) == (0, [])


def test_what_has_expired_and_is_told_again_is_that_tellers_word_only() -> None:
    """A replay brings back its own hint for as long as it says; what others say, and have stopped saying, is not."""
    known = KnownPeers(OWN)
    known.hear(FROM_OTHER, [hint(ABSENT, at("9.9.9.9"))], 0.0)
    known.hear(FROM_TELLER, [hint()], 0.0)
    known.hear(FROM_TELLER, [hint()], 100.0)
    assert known.origins(ABSENT, 100.0) == (FROM_TELLER,)
    assert known.addresses(ABSENT, 100.0) == (at("8.8.8.8"),)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(hint(OWN), id="about the node itself"),
        pytest.param(hint(TELLER), id="about the one that tells"),
        pytest.param(hint(hops=2), id="from too far"),
        pytest.param(hint(ABSENT, at("8.8.8.8", OTHER)), id="at an address of another peer"),
        pytest.param(hint(ABSENT, "/ip4/8.8.8.8/tcp/0"), id="at port 0"),
        pytest.param(hint(ABSENT, "/ip4/8.8.8.8/udp/1/quic-v1"), id="by a transport that no node speaks"),
        pytest.param(hint(ABSENT, "nonsense"), id="at what is no address"),
        pytest.param(hint(PeerId("0OIl"), "/ip4/8.8.8.8/tcp/1/p2p/0OIl"), id="with an id that is none"),
        pytest.param(hint(ABSENT, "/ip4/0.0.0.0/tcp/1"), id="at no machine"),
    ],
)
def test_what_cannot_be_true_is_left_out(told: PeerHint) -> None:
    """And it takes no room."""
    known = KnownPeers(OWN)
    assert known.hear(FROM_TELLER, [told], LONG_AGO) == 0
    assert len(known) == 0


REACHES = {
    "127.0.0.1": Reach.LOCAL,
    "::1": Reach.LOCAL,
    "169.254.169.254": Reach.LOCAL,
    "fe80::1%eth0": Reach.LOCAL,
    "::ffff:127.0.0.1": Reach.LOCAL,
    "10.1.2.3": Reach.PRIVATE,
    "192.168.0.1": Reach.PRIVATE,
    "fd00::1": Reach.PRIVATE,
    "100.64.0.1": Reach.PRIVATE,
    "8.8.8.8": Reach.PUBLIC,
    "2600::1": Reach.PUBLIC,
    "node.example": Reach.PUBLIC,
    "0.0.0.0": None,  # noqa: S104 - nobody listens here
    "224.0.0.1": None,
    "::": None,
}


@pytest.mark.parametrize("host", REACHES)
def test_every_address_is_reached_from_somewhere_or_no_machines(host: str) -> None:
    """A table: what is this machine's or link's, what is of a private network, what is of the internet."""
    assert reach_of(host) == REACHES[host]


@pytest.mark.parametrize("reach", Reach)
def test_nobody_tells_of_addresses_nearer_than_itself(reach: Reach) -> None:
    """A stranger on the internet cannot make a node dial what is on its own machine or behind its firewall."""
    known = KnownPeers(OWN)
    near = hint(ABSENT, at("127.0.0.1"), at("192.168.0.1"), at("8.8.8.8"))
    known.hear(FROM_TELLER, [near], LONG_AGO, reach)
    hosts = {Reach.LOCAL: ["127.0.0.1", "192.168.0.1"], Reach.PRIVATE: ["192.168.0.1"], Reach.PUBLIC: []}[reach]
    assert known.addresses(ABSENT, LONG_AGO) == tuple(map(at, [*hosts, "8.8.8.8"]))


def test_a_peer_that_tells_of_too_many_forgets_its_first() -> None:
    """It keeps its own places, and those of others are theirs."""
    known = KnownPeers(OWN)
    known.hear(FROM_OTHER, [hint(MANY[0])], 0.0)
    known.hear(FROM_TELLER, [hint(peer_id) for peer_id in MANY], 0.0)
    assert len(known) == MAX_HINTS_PER_SOURCE + 1
    assert known.origins(MANY[0], 0.0) == (FROM_OTHER,)
    assert list(known.told_by(TELLER)) == MANY[1:]


def test_the_whole_is_bounded_and_whoever_told_most_gives_way() -> None:
    """Many identities fill the room with each other's hints, and crowd nobody else out."""
    known = KnownPeers(OWN)
    known.hear(FROM_OTHER, [hint()], 0.0)
    for number in range(MAX_HINTS // MAX_HINTS_PER_SOURCE + 2):
        liar = Origin(PeerSource.PEER, PeerId(f"liar-{number}"))
        known.hear(liar, [hint(peer_id) for peer_id in MANY[:MAX_HINTS_PER_SOURCE]], 0.0)
    assert len(known) == MAX_HINTS
    assert known.origins(ABSENT, 0.0) == (FROM_OTHER,)


def test_a_flood_of_hints_is_dropped_above_the_rate() -> None:
    """After a burst there are some a second, and the account is forgotten when it is full again."""
    known = KnownPeers(OWN)
    flood = [hint()] * (HINT_RATE.burst + 100)
    assert known.hear(FROM_TELLER, flood, 0.0) == HINT_RATE.burst
    assert known.hear(FROM_TELLER, flood, 1.0) == HINT_RATE.per_second
    assert known.hear(FROM_OTHER, [hint()], 1.0) == 1


def test_no_more_names_of_an_advert_are_kept_than_help_to_choose() -> None:
    """A peer that says that others offer everything does not fill the memory with it."""
    known = KnownPeers(OWN)
    known.hear(FROM_TELLER, [hint(kinds=tuple(f"kind-{number}" for number in range(256)))], 0.0)
    advert = known.advert(ABSENT, 0.0)
    assert advert is not None
    assert (len(advert.kinds), len(advert.personas)) == (MAX_HINTED_NAMES, MAX_HINTED_NAMES)


def test_an_allowance_comes_back_and_is_forgotten_when_it_is_whole() -> None:
    """So the table has no one who does not ask."""
    allowances = Allowances(Rate(per_second=2, burst=4))
    assert [allowances.take("one", 3, 0.0), allowances.take("one", 3, 0.0), allowances.take("one", 3, 1.0)] == [3, 1, 2]
    allowances.forget_idle(2.0)
    assert len(allowances) == 1
    allowances.forget_idle(3.0)
    assert len(allowances) == 0
