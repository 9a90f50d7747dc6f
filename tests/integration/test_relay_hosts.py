"""Hosts that reach each other through a relay, and what relays and their peers may not do."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

import pytest
import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.transport.upgrader import TransportUpgrader
from structlog.testing import capture_logs

from node.background import open_background
from node.coordination.diagnosis import Symptom
from node.net.admission import AddressLimits, InboundLimits
from node.net.allowance import Rate
from node.net.errors import CircuitFailed, PeerUnreachable, WrongPeer
from node.net.host import HardenedHost, abort_connection, dial, open_host
from node.net.identity import peer_id_of
from node.net.relay import client, dialling, service
from node.net.relay import streams as relay_streams
from node.net.relay.dialling import ask_relay
from node.net.relay.messages import (
    HOP,
    STOP,
    Answer,
    Connect,
    Reserve,
    Status,
    decode_stop,
    encode_hop,
    encode_stop,
)
from node.net.relay.reservations import RelayLimits
from node.net.relay.streams import cancellable, open_stream, receive_body
from node.net.relay.wiring import serve_as_relay
from node.net.streams import ByteStream
from node.net.swarm import relay_of
from protocol import PeerId
from tests.integration.foreign_peers import ECHO, YAMUX_ONLY, foreign_peer, noise_only
from tests.integration.hosts import address_of, becomes_true, config, echoes, server
from tests.integration.relays import Hidden, RestartableRelay, ask, hidden_host, relay_host

LIMIT_S = 30.0
NOBODY = peer_id_of(create_new_key_pair())


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that others do here is an error of this program, so nothing may be logged as one."""
    with capture_logs() as logs:
        yield
    assert [log for log in logs if log["log_level"] in {"error", "critical"}] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def refusal(visitor: HardenedHost, address: str) -> CircuitFailed:
    """Why an address that leads through a relay leads nowhere."""
    with pytest.raises(CircuitFailed) as caught, trio.fail_after(LIMIT_S):
        await dial(visitor, [address])
    assert caught.value.remedy
    return caught.value


# --- what it is for ---------------------------------------------------------------------------------------------------


async def test_a_host_that_listens_nowhere_is_reached_through_a_relay() -> None:
    """End to end: each sees the other's own identity, and both open streams."""
    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:
        (address,) = hidden.client.addresses
        assert address == hidden.address_at(relay.address)
        with trio.fail_after(LIMIT_S):
            connection = await dial(visitor, [address])
            assert relay_of(connection) == str(relay.host.get_id())
            assert await echoes(visitor, hidden.peer_id, b"through a relay" * 10_000)
            (inbound,) = hidden.host.get_network().live_connections(visitor.get_id())
            assert relay_of(inbound) == str(relay.host.get_id())
            visitor.set_stream_handler(ECHO, echo_once)
            assert await echoes(hidden.host, visitor.get_id())
        assert relay.service.reservations.circuits == 1
        await connection.close()
        with trio.fail_after(LIMIT_S):
            await becomes_true(lambda: relay.service.reservations.circuits == 0)


async def echo_once(stream: INetStream) -> None:
    """Send back what comes first."""
    await stream.write(await stream.read(100))
    await stream.close()


async def test_a_circuit_carries_much_in_both_directions_and_a_slow_end_slows_the_other() -> None:
    """Nothing is lost, and the relay keeps no more than a few windows of it."""
    size = 8 * 1024 * 1024
    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:
        received = bytearray()

        async def slow_sink(stream: INetStream) -> None:
            try:
                while True:
                    received.extend(await stream.read(65_536))
                    await trio.sleep(0.001)
            except StreamError:
                await stream.write(len(received).to_bytes(8, "big"))
                await stream.close()

        hidden.host.set_stream_handler(ECHO, slow_sink)
        with trio.fail_after(LIMIT_S):
            await dial(visitor, hidden.client.addresses)
            stream = await visitor.new_stream(hidden.peer_id, [ECHO])
            sent = random.Random(0).randbytes(size)
            for start in range(0, size, 60_000):
                await stream.write(sent[start : start + 60_000])
            await stream.close()
            assert int.from_bytes(await stream.read(8), "big") == size
        assert bytes(received) == sent


async def test_a_straight_way_is_taken_before_one_through_a_relay() -> None:
    """Whatever the order in which they are known."""
    async with relay_host() as relay, server() as straight, open_host(config()) as visitor:
        through = f"{relay.address}/p2p-circuit/p2p/{straight.get_id()}"
        connection = await dial(visitor, [through, address_of(straight)])
        assert relay_of(connection) == ""
        assert not visitor.get_network().get_connections(relay.host.get_id())


async def test_several_visitors_and_several_hosts_share_a_relay() -> None:
    """And a visitor needs one connection with it for all that it reaches."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_host())
        hosts = [await stack.enter_async_context(hidden_host(relay.address)) for _ in range(3)]
        visitors = [await stack.enter_async_context(open_host(config())) for _ in range(3)]
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for visitor in visitors:
                    for hidden in hosts:
                        nursery.start_soon(dial, visitor, hidden.client.addresses)
            for visitor in visitors:
                assert len(visitor.get_network().get_connections(relay.host.get_id())) == 1
                for hidden in hosts:
                    assert await echoes(visitor, hidden.peer_id)
        assert relay.service.reservations.circuits == 9


async def test_giving_up_a_dial_at_any_moment_harms_nothing_else_on_the_connection_with_the_relay() -> None:
    """Other circuits over it go on, and none that was given up is left."""
    async with (
        relay_host() as relay,
        hidden_host(relay.address) as hidden,
        hidden_host(relay.address) as other,
        open_host(config()) as visitor,
    ):
        await dial(visitor, other.client.addresses)
        stream = await visitor.new_stream(other.peer_id, [ECHO])
        with trio.fail_after(LIMIT_S):
            for number in range(30):
                with trio.move_on_after(number * 0.0005):
                    connection = await dial(visitor, hidden.client.addresses)
                    await connection.close()
                await stream.write(b"still there")
                assert await stream.read(100) == b"still there"
            await becomes_true(lambda: relay.service.reservations.circuits == 1)
        assert len(visitor.get_network().get_connections(relay.host.get_id())) == 1


async def test_a_connection_that_a_relay_or_its_users_need_is_known_as_such() -> None:
    """On both sides of it, for as long as they do: others leave it open then."""
    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:

        def needed(host: HardenedHost, peer_id: ID) -> list[bool]:
            connections = host.get_network().get_connections(peer_id)
            return [connection.muxed_conn.is_needed for connection in connections]  # type: ignore[attr-defined]

        relay_id = relay.host.get_id()
        assert needed(hidden.host, relay_id) == needed(relay.host, hidden.peer_id) == [True]
        connection = await dial(visitor, hidden.client.addresses)
        assert needed(visitor, relay_id) == needed(relay.host, visitor.get_id()) == [True]
        assert needed(visitor, hidden.peer_id) == [False]
        await connection.close()
        with trio.fail_after(LIMIT_S):
            await becomes_true(lambda: needed(visitor, relay_id) == needed(relay.host, visitor.get_id()) == [False])


# --- when it does not work --------------------------------------------------------------------------------------------


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


# --- relays that lie --------------------------------------------------------------------------------------------------


async def relay_to(target: str, stream: INetStream) -> None:
    """Say that all is well, and connect the visitor with whoever listens at a port of this machine."""
    async with cancellable(stream) as visitor, await trio.open_tcp_stream("127.0.0.1", int(target)) as tcp:
        await receive_body(visitor)
        await visitor.send_all(encode_hop(Answer(Status.OK)))
        await service.Circuit(visitor, tcp).run()


async def test_a_relay_that_connects_with_somebody_else_is_found_out() -> None:
    """By the identity that the other end proves; nothing is sent to it."""
    async with server() as liar, server() as other, open_host(config()) as visitor:
        port = address_of(other).split("/")[4]
        liar.set_stream_handler(HOP, lambda stream: relay_to(port, stream))
        with pytest.raises(WrongPeer, match=str(other.get_id())), trio.fail_after(LIMIT_S):
            await dial(visitor, [f"{address_of(liar)}/p2p-circuit/p2p/{NOBODY}"])


ANSWERS = {
    "nonsense": b"\x05\xff\xff\xff\xff\xff",
    "too much": b"\xff\xff\xff",
    "nothing": b"",
    "half a message": b"\x05\x08",
    "a question": encode_hop(Reserve()),
    "a number that nobody knows": encode_hop(Answer(999)),
}


@pytest.mark.parametrize("said", ANSWERS)
async def test_a_relay_that_answers_what_it_should_not_is_told_apart_from_the_peer(said: str) -> None:
    """And the visitor is none the worse."""

    async def answer(stream: INetStream) -> None:
        await stream.read(1_000)
        if ANSWERS[said]:
            await stream.write(ANSWERS[said])
        await stream.close()

    async with server() as liar, open_host(config()) as visitor:
        liar.set_stream_handler(HOP, answer)
        error = await refusal(visitor, f"{address_of(liar)}/p2p-circuit/p2p/{NOBODY}")
        assert error.symptom is Symptom.RELAY_BROKEN


async def babble(stream: INetStream) -> None:
    """Send what is no text where a protocol is to be named."""
    await stream.write(b"\x05\xff\xfe\xff\xff\n")
    await stream.close()


async def test_whoever_cannot_even_agree_on_a_protocol_does_no_harm() -> None:
    """A relay to those who ask it, nor a host to the relay that it asked."""
    async with server() as liar, hidden_host(address_of(liar)) as plain, open_host(config()) as visitor:
        liar.get_network().set_stream_handler(babble)
        error = await refusal(visitor, plain.address_at(address_of(liar)))
        assert error.symptom is Symptom.RELAY_BROKEN
        async with hidden_host(address_of(liar)) as hidden:
            assert "ended the conversation" in hidden.client.relays[0].last_error
    async with relay_host() as relay, hidden_host(relay.address) as hidden, open_host(config()) as visitor:
        hidden.host.get_network().set_stream_handler(babble)
        assert (await refusal(visitor, hidden.client.addresses[0])).symptom is Symptom.PEER_SILENT


class Announcer:
    """A relay that does as it likes with the hosts that have a reservation.

    Args:
        host: it.
    """

    def __init__(self, host: HardenedHost) -> None:
        self.host = host
        host.set_stream_handler(HOP, self._grant)

    async def _grant(self, stream: INetStream) -> None:
        await stream.read(1_000)
        await stream.write(encode_hop(Answer(Status.OK, expires_at=2**40)))
        await stream.close()

    async def announce(
        self, nursery: trio.Nursery, hidden: Hidden, question: bytes
    ) -> tuple[Answer | None, relay_streams.CancellableStream]:
        """Say something to a host over a stream, and return what it answers, and the stream."""
        (connection,) = self.host.get_network().get_connections(hidden.peer_id)
        stream = await open_stream(self.host, nursery, connection, STOP)
        await stream.send_all(question)
        answer = decode_stop(await receive_body(stream))
        assert isinstance(answer, Answer)
        return answer, stream


async def come_as(key_pair: KeyPair, stream: relay_streams.CancellableStream, wanted: ID) -> IMuxedConn:
    """Shake hands with a host over a circuit."""
    raw = RawConnection(ByteStream(stream, None), initiator=True)
    upgrader = TransportUpgrader(noise_only(key_pair), YAMUX_ONLY)
    secured = await upgrader.upgrade_security(raw, is_initiator=True, peer_id=wanted)
    return await upgrader.upgrade_connection(secured, secured.get_remote_peer())


async def test_a_relay_that_announces_somebody_and_brings_another_is_turned_away() -> None:
    """Whoever comes must be who was announced."""
    key_pair = create_new_key_pair()
    async with server() as host, open_background() as nursery:
        announcer = Announcer(host)
        async with hidden_host(address_of(host)) as hidden:
            answer, stream = await announcer.announce(nursery, hidden, encode_stop(Connect(NOBODY)))
            assert answer == Answer(Status.OK)
            with capture_logs() as logs, trio.fail_after(LIMIT_S):
                await come_as(key_pair, stream, hidden.peer_id)
                while await stream.receive_some():
                    pass
            assert "a relay lied about who comes" in [log["event"] for log in logs]
            assert not hidden.host.get_network().get_connections(ID.from_string(peer_id_of(key_pair)))
            await stream.aclose()


async def test_what_a_relay_may_not_say_to_a_host_is_refused() -> None:
    """It is told why; a stream on which it says nothing is ended."""
    async with server() as host, open_background() as nursery:
        announcer = Announcer(host)
        async with hidden_host(address_of(host)) as hidden:
            for question, status in (
                (encode_stop(Answer(Status.OK)), Status.UNEXPECTED_MESSAGE),
                (b"\x02\xff\xff", Status.MALFORMED_MESSAGE),
                (b"\xff\xff\xff", Status.MALFORMED_MESSAGE),
            ):
                answer, stream = await announcer.announce(nursery, hidden, question)
                assert answer == Answer(status)
                await stream.aclose()
            assert hidden.client.relays[0].reserved


async def test_only_a_relay_that_a_host_has_asked_may_announce_visitors() -> None:
    """Anybody else could go round the limits on connections from one address."""
    async with server() as host, open_background() as nursery:
        announcer = Announcer(host)
        async with hidden_host() as hidden:
            await dial(hidden.host, [address_of(host)])
            answer, stream = await announcer.announce(nursery, hidden, encode_stop(Connect(NOBODY)))
            assert answer == Answer(Status.PERMISSION_DENIED)
            await stream.aclose()


async def test_a_relay_that_announces_nobody_is_not_listened_to_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a visitor of a relay that asks for nothing."""
    monkeypatch.setattr(client, "QUESTION_S", 0.1)
    monkeypatch.setattr(service, "QUESTION_S", 0.1)
    async with server() as host, open_background() as nursery, relay_host() as relay:
        Announcer(host)
        async with hidden_host(address_of(host)) as hidden, foreign_peer(relay.address) as visitor:
            (connection,) = host.get_network().get_connections(hidden.peer_id)
            stream = await open_stream(host, nursery, connection, STOP)
            with trio.fail_after(LIMIT_S):
                assert await stream.receive_some() == b""
                await stream.aclose()
                assert await ask(visitor, b"") is None


# --- peers that ask for what they may not have ------------------------------------------------------------------------

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
