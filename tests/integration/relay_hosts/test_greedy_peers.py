"""Peers that ask a relay, or a host behind it, for what they may not have."""

from __future__ import annotations

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair

from node.coordination.diagnosis import Symptom
from node.net.admission import AddressLimits, InboundLimits
from node.net.allowance import Rate
from node.net.errors import CircuitFailed, PeerUnreachable
from node.net.host import dial, open_host
from node.net.identity import peer_id_of
from node.net.relay.dialling import ask_relay
from node.net.relay.messages import Answer, Connect, Reserve, Status, encode_hop
from node.net.relay.reservations import RelayLimits
from node.net.relay.wiring import serve_as_relay
from protocol import PeerId
from tests.integration.foreign_peers import foreign_peer
from tests.integration.hosts import config
from tests.integration.relay_hosts.visits import LIMIT_S, NOBODY, come_as, refusal
from tests.integration.relays import ask, hidden_host, relay_host

QUESTIONS = {
    "nonsense": (b"\x02\xff\xff", Status.MALFORMED_MESSAGE),
    "a length that no message has": (b"\xff\xff\xff\xff", Status.MALFORMED_MESSAGE),
    "a connection with nobody": (b"\x02\x08\x01", Status.MALFORMED_MESSAGE),
    "an answer": (encode_hop(Answer(Status.OK)), Status.UNEXPECTED_MESSAGE),
    "a peer that it does not know": (encode_hop(Connect(NOBODY)), Status.NO_RESERVATION),
}


async def test_a_question_that_cannot_be_answered_gets_a_reason_and_does_no_harm() -> None:
    """The relay goes on, on the same connection too."""
    async with relay_host() as relay, foreign_peer(relay.address) as visitor:
        with trio.fail_after(LIMIT_S):
            for question, status in QUESTIONS.values():
                assert await ask(visitor, question) == Answer(status)
            answer = await ask(visitor, Reserve())
        assert isinstance(answer, Answer)
        assert answer.status == Status.OK


async def test_a_peer_cannot_reach_itself_through_a_relay() -> None:
    """Though it has a reservation."""
    key_pair = create_new_key_pair()
    async with relay_host() as relay, foreign_peer(relay.address, key_pair) as visitor:
        await ask(visitor, Reserve())
        assert await ask(visitor, Connect(peer_id_of(key_pair))) == Answer(Status.PERMISSION_DENIED)


async def test_a_peer_that_reserves_all_the_time_has_one_reservation_and_is_soon_not_heard() -> None:
    """Others are."""
    limits = RelayLimits(requests=Rate(per_second=0.01, burst=5))
    async with relay_host(limits=limits) as relay, foreign_peer(relay.address) as flood:
        with trio.fail_after(LIMIT_S):
            answers = [await ask(flood, Reserve()) for _ in range(20)]
            assert [answer.status for answer in answers if isinstance(answer, Answer)] == (
                [Status.OK] * 5 + [Status.RESOURCE_LIMIT_EXCEEDED] * 15
            )
            assert relay.service.reservations.held(trio.current_time()) == 1
            async with hidden_host(relay.address) as hidden:
                assert hidden.client.addresses


async def test_nothing_is_relayed_for_whoever_comes_through_a_relay() -> None:
    """Neither a reservation nor a circuit: there are no chains of them, and no rings."""
    async with (
        relay_host() as outer,
        hidden_host(outer.address) as hidden,
        hidden_host() as wanted,
        open_host(config()) as visitor,
    ):
        serve_as_relay(hidden.host, frozenset(), list)
        connection = await dial(visitor, hidden.client.addresses)
        nursery = visitor.get_network().nursery
        for question in (Reserve(), Connect(PeerId(str(wanted.peer_id)))):
            with pytest.raises(CircuitFailed) as caught:
                await ask_relay(visitor, nursery, connection, str(hidden.peer_id), question)
            assert caught.value.symptom is Symptom.RELAY_REFUSES
        # Nor does a host ask for it: it needs a straight way to a relay.
        beyond = f"/ip4/127.0.0.1/tcp/1/p2p/{hidden.peer_id}/p2p-circuit/p2p/{wanted.peer_id}"
        assert (await refusal(visitor, beyond)).symptom is Symptom.RELAY_UNREACHABLE


async def test_the_limit_on_connections_with_one_peer_holds_for_those_through_a_relay() -> None:
    """However many circuits it makes."""
    key_pair = create_new_key_pair()
    async with (
        relay_host() as relay,
        hidden_host(relay.address, connections_per_peer=2) as hidden,
        open_host(config(key_pair=key_pair)) as visitor,
    ):
        connection = await dial(visitor, [relay.address])
        question = Connect(PeerId(str(hidden.peer_id)))
        network, circuits = hidden.host.get_network(), []
        with trio.fail_after(LIMIT_S):
            for expected in (1, 2, 2):
                circuit, _ = await ask_relay(
                    visitor, visitor.get_network().nursery, connection, str(relay.host.get_id()), question
                )
                circuits.append(circuit)
                await come_as(key_pair, circuit, hidden.peer_id)
                while len(network.get_connections(visitor.get_id())) != expected:
                    await trio.sleep(0.01)
            while await circuits[2].receive_some():
                pass
        assert len(network.get_connections(visitor.get_id())) == 2
        for circuit in circuits:
            await circuit.aclose()


async def test_the_limits_of_one_address_hold_for_all_who_come_through_one_relay() -> None:
    """A host is not flooded through a relay either; what is refused is cut off before a handshake."""
    limits = InboundLimits(remote=AddressLimits(per_second=0.01, burst=2, connections=10))
    async with (
        relay_host() as relay,
        hidden_host(relay.address, inbound=limits) as hidden,
        open_host(config()) as one,
        open_host(config()) as two,
        open_host(config()) as three,
    ):
        for visitor in (one, two):
            await dial(visitor, hidden.client.addresses)
        with pytest.raises(PeerUnreachable, match="closed the connection during the handshake"):
            await dial(three, hidden.client.addresses)
