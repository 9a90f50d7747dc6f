"""Hosts that are not reached through a relay, and relays that go away: who is told what."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.stream.exceptions import StreamError

from node.background import open_background
from node.coordination.diagnosis import Symptom
from node.net.errors import PeerUnreachable
from node.net.host import abort_connection, dial, open_host
from node.net.identity import peer_id_of
from node.net.relay import dialling, service
from node.net.relay.messages import HOP, STOP, Answer, Status, encode_stop
from node.net.relay.reservations import RelayLimits
from tests.integration.foreign_peers import ECHO
from tests.integration.hosts import address_of, becomes_true, config, echoes, server
from tests.integration.relay_hosts.visits import LIMIT_S, NOBODY, refusal
from tests.integration.relays import RestartableRelay, hidden_host, relay_host


async def test_a_peer_without_a_reservation_is_not_reached_and_the_error_asks_for_it() -> None:
    """Also when it is connected to the relay all the same, and when the relay is this very node."""
    async with relay_host() as relay, hidden_host() as hidden, open_host(config()) as visitor:
        await dial(hidden.host, [relay.address])
        error = await refusal(visitor, hidden.address_at(relay.address))
        assert (error.symptom, error.code) == (Symptom.NO_RESERVATION, "PEER_UNREACHABLE")
        assert "is it running with --relay?" in error.message
        own = await refusal(relay.host, f"{relay.address}/p2p-circuit/p2p/{NOBODY}")
        assert (own.symptom, "this node itself" in own.message) == (Symptom.NO_RESERVATION, True)


async def test_a_host_that_dies_has_no_reservation_any_more() -> None:
    """The relay hears of it from the connection."""
    async with relay_host() as relay, open_host(config()) as visitor:
        async with hidden_host(relay.address) as hidden:
            await dial(visitor, hidden.client.addresses)
        with trio.fail_after(LIMIT_S):
            await becomes_true(lambda: not visitor.get_network().live_connections(hidden.peer_id))
        assert (await refusal(visitor, hidden.address_at(relay.address))).symptom is Symptom.NO_RESERVATION


async def test_a_node_that_is_no_relay_says_so() -> None:
    """To the one that wants to be reached, and to the one that wants to reach it."""
    async with server() as plain, hidden_host(address_of(plain)) as hidden, open_host(config()) as visitor:
        (state,) = hidden.client.relays
        assert (state.reserved, "--relay-service" in state.last_error) == (False, False)
        assert "does not serve as a relay" in state.last_error
        assert hidden.client.addresses == ()
        error = await refusal(visitor, hidden.address_at(address_of(plain)))
        assert (error.symptom, "--relay-service" in error.remedy) == (Symptom.NO_RELAY, True)


async def test_a_relay_that_is_not_there_is_not_taken_for_the_peer() -> None:
    """Nor one that is another peer than the address says."""
    async with relay_host() as relay, open_host(config()) as visitor:
        dead = f"/ip4/127.0.0.1/tcp/1/p2p/{NOBODY}/p2p-circuit/p2p/{relay.host.get_id()}"
        error = await refusal(visitor, dead)
        assert (error.symptom, "connection refused" in error.message) == (Symptom.RELAY_UNREACHABLE, True)
        other = relay.address.replace(str(relay.host.get_id()), NOBODY)
        error = await refusal(visitor, f"{other}/p2p-circuit/p2p/{relay.host.get_id()}")
        assert (error.symptom, "answers there" in error.message) == (Symptom.RELAY_UNREACHABLE, True)
        with pytest.raises(PeerUnreachable, match=r"connection refused.*nothing listens"):
            await dial(visitor, [dead, f"/ip4/127.0.0.1/tcp/1/p2p/{relay.host.get_id()}"])


async def test_a_relay_may_be_for_certain_peers_only() -> None:
    """Whoever is not among them gets no reservation, and tries again later; anybody may visit one who is."""
    mine = create_new_key_pair()
    async with (
        relay_host(users=frozenset({peer_id_of(mine)})) as relay,
        hidden_host(relay.address, key_pair=mine) as friend,
        hidden_host(relay.address) as stranger,
        open_host(config()) as visitor,
    ):
        await dial(visitor, friend.client.addresses)
        (state,) = stranger.client.relays
        assert (state.reserved, "certain peers only" in state.last_error) == (False, True)
        error = await refusal(visitor, stranger.address_at(relay.address))
        assert error.symptom is Symptom.NO_RESERVATION


async def test_a_relay_that_is_full_says_so() -> None:
    """Of reservations, and of circuits with one peer."""
    limits = RelayLimits(reservations=1, circuits_per_peer=1)
    async with relay_host(limits=limits) as relay, hidden_host(relay.address) as hidden:
        async with hidden_host(relay.address) as late:
            (state,) = late.client.relays
            assert (state.reserved, "no room" in state.last_error) == (False, True)
        async with open_host(config()) as first, open_host(config()) as second:
            await dial(first, hidden.client.addresses)
            error = await refusal(second, hidden.client.addresses[0])
            assert (error.symptom, error.message.count("no room")) == (Symptom.RELAY_FULL, 1)


async def test_a_lost_relay_is_asked_again_until_it_is_back() -> None:
    """Meanwhile the node does not say that it could be reached there; circuits end with their relay."""
    relay = RestartableRelay()
    async with open_background() as nursery:
        address = await relay.start(nursery)
        async with hidden_host(address) as hidden, open_host(config()) as visitor:
            addresses = hidden.client.addresses
            connection = await dial(visitor, addresses)
            with trio.fail_after(LIMIT_S):
                await relay.stop()
                await becomes_true(lambda: connection.is_closed and not hidden.client.addresses)
                assert hidden.client.relays[0].last_error
                await relay.start(nursery)
                await becomes_true(lambda: hidden.client.addresses == addresses)
                await dial(visitor, addresses)
                assert await echoes(visitor, hidden.peer_id)
                assert hidden.client.relays[0].last_error == ""


@pytest.mark.parametrize("cut", ["visitor", "hidden"])
async def test_a_cut_in_the_middle_of_what_is_said_ends_the_circuit_on_all_sides(cut: str) -> None:
    """Without a word from whoever is cut off."""
    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:
        connection = await dial(visitor, hidden.client.addresses)
        stream = await visitor.new_stream(hidden.peer_id, [ECHO])
        over = trio.Event()

        async def talk() -> None:
            with suppress(StreamError):
                while True:
                    await stream.write(b"x" * 10_000)
                    await stream.read(10_000)
            over.set()

        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                await trio.sleep(0.05)
                await abort_connection(relay.host, visitor.get_id() if cut == "visitor" else hidden.peer_id)
                await over.wait()
            await becomes_true(lambda: connection.is_closed)
            await becomes_true(lambda: relay.service.reservations.circuits == 0)
            await becomes_true(lambda: not hidden.host.get_network().get_connections(visitor.get_id()))


async def test_a_relay_that_says_nothing_is_given_up_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be frozen: nothing else goes over that connection either."""
    monkeypatch.setattr(dialling, "ANSWER_S", 0.2)
    asked = trio.Event()

    async def ignore(stream: INetStream) -> None:
        asked.set()
        await stream.read(1_000)
        await trio.sleep_forever()

    async with server() as frozen:
        frozen.set_stream_handler(HOP, ignore)
        async with hidden_host(address_of(frozen)) as hidden, open_host(config()) as visitor:
            assert asked.is_set()
            assert "has said nothing" in hidden.client.relays[0].last_error
            error = await refusal(visitor, hidden.address_at(address_of(frozen)))
            assert error.symptom is Symptom.RELAY_UNREACHABLE


async def test_a_host_that_says_nothing_behind_a_relay_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay tells the visitor so; so it does of one that refuses, answers nonsense, or hangs up."""
    monkeypatch.setattr(service, "STOP_S", 0.2)

    async def ignore(stream: INetStream) -> None:
        await stream.read(1_000)
        await trio.sleep_forever()

    async def refuse(stream: INetStream) -> None:
        await stream.write(encode_stop(Answer(Status.PERMISSION_DENIED)))
        await stream.close()

    async def babble(stream: INetStream) -> None:
        await stream.write(b"\xff" * 100)
        await stream.close()

    async def hang_up(stream: INetStream) -> None:
        await stream.reset()

    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:
        for handler in (ignore, refuse, babble, hang_up):
            hidden.host.set_stream_handler(STOP, handler)
            error = await refusal(visitor, hidden.client.addresses[0])
            assert error.symptom is Symptom.PEER_SILENT
        assert relay.service.reservations.circuits == 0
