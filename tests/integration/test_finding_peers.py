"""Peers that nobody named: those of peers, and those that registered at a rendezvous point."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from structlog.testing import capture_logs

from node.interfaces import Discovery, PeerInfo, PeerSource
from node.net.errors import PeerUnreachable
from node.net.finder import Finding
from node.net.identity import peer_id_of
from node.net.introductions import Pace
from node.net.known_peers import MAX_HINTS_PER_SOURCE
from node.net.network import PeerNetwork
from node.testing.network_sides import Side, connect
from protocol import (
    MAX_PEERS_TOLD,
    Discover,
    Heartbeat,
    Hello,
    Limits,
    PeerAdvert,
    PeerHint,
    PeerId,
    Peers,
    Register,
    Registered,
)
from tests.integration.bad_peers import BadPeer, RawStream, bad_peer
from tests.integration.foreign_peers import foreign_peer
from tests.integration.networks import make_network, side

# So short that a test need not wait.
AT_ONCE = Pace(gather_s=0.01, again_s=0.01, refresh_s=60.0, ttl_s=120.0)
SHARING = Finding(pace=AT_ONCE)
LIMIT_S = 20.0
POLL_S = 0.01  # hints do not wake anybody: nothing is to be done about them


async def told_of(some_side: Side, peer_id: PeerId) -> PeerInfo:
    """What a node knows about a peer, once it has been told of it."""
    with trio.fail_after(LIMIT_S):
        while True:
            for peer in some_side.network.peers():
                if peer.peer_id == peer_id and (peer.via or peer.connected):
                    return peer
            await trio.sleep(POLL_S)


async def sides(stack: AsyncExitStack, *findings: Finding) -> list[Side]:
    """Networks that run."""
    return [await stack.enter_async_context(side(finding=finding)) for finding in findings]


async def greet(stream: RawStream, **fields: object) -> None:
    """Say Hello over a raw stream, and hear the answer."""
    await stream.say(Hello(peers=True, **fields))  # type: ignore[arg-type]
    assert isinstance(await stream.hear(), Hello)


async def test_peers_of_a_peer_become_known_and_can_be_dialled_by_id() -> None:
    """One hub knows both; each learns where the other is and what it offers, and an id is enough to reach it."""
    async with AsyncExitStack() as stack:
        hub, one, other = await sides(stack, SHARING, SHARING, SHARING)
        other.advert = PeerAdvert(kinds=("summarise",), personas=("editor",), slots=3, load=1)
        await connect(one, hub)
        await connect(other, hub)
        found = await told_of(one, other.peer_id)
        assert found == PeerInfo(
            other.peer_id,
            connected=False,
            addresses=other.network.addresses,
            advert=other.advert,
            source=PeerSource.PEER,
            via=(hub.peer_id,),
            hearsay=True,
        )
        await one.network.connect(other.peer_id)
        met = await told_of(one, other.peer_id)
        assert (met.connected, met.hearsay, met.source) == (True, False, PeerSource.PEER)
        assert met.clock_offset_ms is not None
        assert abs(met.clock_offset_ms) < LIMIT_S * 1000


async def test_what_a_peer_offers_anew_is_passed_on() -> None:
    """A change is told without being asked; how busy somebody is, is no change."""
    async with AsyncExitStack() as stack:
        hub, one, other = await sides(stack, SHARING, SHARING, SHARING)
        await connect(one, hub)
        await connect(other, hub)
        await told_of(one, other.peer_id)
        other.advert = PeerAdvert(kinds=("new",), slots=1)
        other.network.announce()
        with trio.fail_after(LIMIT_S):
            while (await told_of(one, other.peer_id)).advert != PeerAdvert(kinds=("new",), slots=1, load=3):
                await trio.sleep(POLL_S)


async def test_hints_go_one_hop_and_no_further() -> None:
    """At the end of a chain of four nobody knows who is at its beginning."""
    async with AsyncExitStack() as stack:
        chain = await sides(stack, *[SHARING] * 4)
        for near, far in pairwise(chain):
            await connect(near, far)
        await told_of(chain[0], chain[2].peer_id)
        await told_of(chain[1], chain[3].peer_id)
        assert chain[3].peer_id not in {peer.peer_id for peer in chain[0].network.peers()}


async def test_whoever_does_not_want_to_hear_of_peers_is_not_told_and_tells_nobody() -> None:
    """A peer that said so in its Hello gets no frame that it may not know."""
    async with AsyncExitStack() as stack:
        hub, one, quiet = await sides(stack, SHARING, SHARING, Finding(share=False, pace=AT_ONCE))
        await connect(quiet, hub)
        await connect(one, hub)
        await told_of(one, quiet.peer_id)
        assert [peer.peer_id for peer in quiet.network.peers()] == [hub.peer_id]


async def test_a_lie_about_where_a_peer_is_costs_one_dial_that_is_asked_for() -> None:
    """The address is another node's: nothing is sent to it, and nobody dials it again."""
    async with AsyncExitStack() as stack:
        victim, one = await sides(stack, SHARING, SHARING)
        absent = PeerId("12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H")
        lie = victim.address.replace(victim.peer_id, absent)
        liar = await stack.enter_async_context(bad_peer(one.address))
        stream = await liar.open()
        await greet(stream)
        await stream.say(Peers((PeerHint(peer_id=absent, addresses=(lie, victim.address), ttl_ms=60_000),)))
        found = await told_of(one, absent)
        assert found.addresses == (lie,)
        with pytest.raises(Exception, match=f"{victim.peer_id} answers there"):
            await one.network.connect(absent)
        assert isinstance(one.network, PeerNetwork)
        assert not one.network.keeps(absent)
        assert not victim.network.channels()


async def test_registered_peers_find_each_other_through_a_rendezvous_point() -> None:
    """Also one whose session is over, and at a point that passes nothing on by itself."""
    async with AsyncExitStack() as stack:
        (point,) = await sides(stack, Finding(share=False, rendezvous=True))
        registering = Finding(share=False, points=frozenset({point.peer_id}))
        first, second = await sides(stack, registering, registering)
        await connect(first, point)
        await first.network.disconnect(point.peer_id)
        await connect(second, point)
        found = await told_of(second, first.peer_id)
        assert (found.source, found.via) == (PeerSource.RENDEZVOUS, (point.peer_id,))
        assert await second.network.connect(first.peer_id) == first.peer_id


async def test_a_node_that_offers_no_rendezvous_says_so() -> None:
    """Registering there is refused in words, and whoever is to use it says so in its log and asks nothing."""
    async with AsyncExitStack() as stack:
        (plain,) = await sides(stack, SHARING)
        peer = await stack.enter_async_context(bad_peer(plain.address))
        stream = await peer.open()
        await stream.say(Register(60_000))
        answer = await stream.hear()
        assert isinstance(answer, Registered)
        assert answer.ttl_ms == 0
        assert "--rendezvous" in answer.message
        await stream.say(Discover())
        assert await stream.hear() == Peers(registered=True)
        mistaken = Finding(points=frozenset({plain.peer_id}))
        (one,) = await sides(stack, mistaken)
        with capture_logs() as logs:
            await connect(one, plain)
        assert "a node offers no rendezvous, and is to be used for it" in [log["event"] for log in logs]


async def test_a_node_registers_again_and_asks_again_while_it_is_connected() -> None:
    """Long before its registration ends."""
    key_pair = create_new_key_pair()
    finding = Finding(points=frozenset({peer_id_of(key_pair)}), renew_s=0.0, pace=AT_ONCE)
    async with side(finding=finding) as one, foreign_peer(one.address, key_pair) as foreign:
        stream = await BadPeer(key_pair, foreign).open()
        await greet(stream, rendezvous=True)
        with trio.fail_after(LIMIT_S):
            asked = [frame for _ in range(8) if not isinstance(frame := await stream.hear(), Heartbeat)][:4]
        assert asked == [Register(900_000), Discover(), Register(900_000), Discover()]


async def test_an_answer_that_the_asker_does_not_take_is_not_sent() -> None:
    """It announced that it takes nothing so large; the session goes on."""
    async with side(finding=Finding(rendezvous=True)) as point, bad_peer(point.address) as large:
        registered = await large.open()
        where = tuple(f"/dns4/{'x' * 60}.example/tcp/{port}" for port in range(1, 17))
        await greet(registered, addresses=where)
        await registered.say(Register(60_000))
        assert await registered.hear() == Registered(60_000)
        async with bad_peer(point.address) as small:
            stream = await small.open()
            await greet(stream, limits=Limits(frame=1024, chunk=1024, payload=1024))
            await stream.say(Discover(), Heartbeat(ping=7))
            assert await stream.hear() == Heartbeat(pong=7, load=3)


async def test_a_point_that_refuses_is_told_of_in_the_log() -> None:
    """With its reason; the session goes on."""
    async with AsyncExitStack() as stack:
        (point,) = await sides(stack, Finding(rendezvous=True))
        dialler = make_network(finding=Finding(points=frozenset({point.peer_id})), listen_nowhere=True)
        one = Side(dialler)
        with capture_logs() as logs:
            async with one.running():
                await one.network.connect(point.address)
                with trio.fail_after(LIMIT_S):
                    while not (refusals := [log for log in logs if log["event"] == "a rendezvous point refused"]):
                        await trio.sleep(POLL_S)
                assert one.network.channels()
        assert "names no address" in refusals[0]["reason"]


async def test_a_simple_client_cannot_register() -> None:
    """Without a Hello nobody knows where it is."""
    async with side(finding=Finding(rendezvous=True)) as point, bad_peer(point.address) as peer:
        stream = await peer.open()
        await stream.say(Register(60_000))
        answer = await stream.hear()
        assert isinstance(answer, Registered)
        assert "say Hello first" in answer.message


async def test_an_id_that_was_told_and_has_no_one_behind_it_is_unreachable_in_words() -> None:
    """Nobody listens there: the error names the address, and the peer is not kept."""
    gone = PeerId("12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H")
    async with side(finding=SHARING) as one, bad_peer(one.address) as liar:
        stream = await liar.open()
        await greet(stream)
        await stream.say(
            Peers((PeerHint(peer_id=gone, addresses=(f"/ip4/127.0.0.1/tcp/9/p2p/{gone}",), ttl_ms=60_000),))
        )
        await told_of(one, gone)
        with pytest.raises(PeerUnreachable, match="connection refused"):
            await one.network.connect(gone)
        assert "refused" in (await told_of(one, gone)).last_error


async def test_a_flood_of_hints_is_bounded_and_the_node_goes_on() -> None:
    """Many frames of as many hints as fit, each about another peer: some are kept, and a question is still answered."""
    async with side(finding=SHARING) as one, bad_peer(one.address) as liar:
        stream = await liar.open()
        await greet(stream)
        everyone = [peer_id_of(create_new_key_pair(number.to_bytes(32, "big"))) for number in range(700)]
        hints = [
            PeerHint(peer_id=who, addresses=(f"/ip4/10.0.0.1/tcp/1/p2p/{who}",), ttl_ms=60_000) for who in everyone
        ]
        for start in range(0, len(hints), MAX_PEERS_TOLD):
            await stream.say(Peers(tuple(hints[start : start + MAX_PEERS_TOLD])))
        await stream.say(Heartbeat(ping=7))
        while await stream.hear() != Heartbeat(pong=7, load=3):
            pass
        told = [peer.peer_id for peer in one.network.peers() if peer.hearsay]
        assert len(told) == MAX_HINTS_PER_SOURCE
        assert everyone[0] not in told  # the first gave way
        assert everyone[-1] not in told  # the last came too fast


async def test_a_peer_is_not_told_of_what_others_only_say_of_themselves_wrongly() -> None:
    """Whoever names another node's addresses as its own has none that could be passed on."""
    async with AsyncExitStack() as stack:
        hub, one, honest = await sides(stack, SHARING, SHARING, SHARING)
        liar = await stack.enter_async_context(bad_peer(hub.address))
        stream = await liar.open()
        await greet(stream, addresses=(*honest.network.addresses, "/ip4/0.0.0.0/tcp/1", "nonsense"))
        await connect(honest, hub)
        await connect(one, hub)
        await told_of(one, honest.peer_id)
        assert {peer.peer_id for peer in one.network.peers()} == {hub.peer_id, honest.peer_id}


async def test_a_discovery_that_finds_nonsense_harms_nobody() -> None:
    """What it finds is checked as every other hint is."""
    found = PeerId("12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H")

    class Fortune(Discovery):
        async def addresses(self) -> AsyncIterator[str]:
            for address in ("nonsense", "/ip4/10.0.0.1/tcp/1", f"/ip4/10.0.0.1/tcp/1/p2p/{found}"):
                yield address

    async with side(finding=SHARING) as one:
        assert isinstance(one.network, PeerNetwork)
        one.network.listen(Fortune())
        with trio.fail_after(LIMIT_S):
            while not one.network.peers():
                await trio.sleep(POLL_S)
        (peer,) = one.network.peers()
        assert (peer.peer_id, peer.source, peer.via) == (found, PeerSource.MDNS, ())
