"""Relays that connect with somebody else, answer nonsense, or announce whom they do not bring."""

from __future__ import annotations

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from structlog.testing import capture_logs

from node.background import open_background
from node.coordination.diagnosis import Symptom
from node.net.errors import WrongPeer
from node.net.host import HardenedHost, dial, open_host
from node.net.identity import peer_id_of
from node.net.relay import client, service
from node.net.relay import streams as relay_streams
from node.net.relay.messages import HOP, STOP, Answer, Connect, Reserve, Status, decode_stop, encode_hop, encode_stop
from node.net.relay.streams import cancellable, open_stream, receive_body
from tests.integration.foreign_peers import foreign_peer
from tests.integration.hosts import address_of, config, server
from tests.integration.relay_hosts.visits import LIMIT_S, NOBODY, come_as, refusal
from tests.integration.relays import Hidden, ask, hidden_host, relay_host


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
