"""One contract test per defect of libp2p 0.8.1 that the host cures, with real hosts over loopback.

A test that fails after an upgrade of libp2p names the defect that changed.
"""

import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.secio.transport import ID as SECIO
from libp2p.security.secio.transport import Transport as SecioTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID, Mplex
from libp2p.transport.exceptions import MuxerUpgradeFailure, SecurityUpgradeFailure

from node.net.addresses import parse_endpoint
from node.net.admission import AddressLimits, InboundLimits
from node.net.host import MAX_STREAMS_PER_CONNECTION, dial, open_host
from node.net.muxer import HardenedYamux
from tests.integration.foreign_peers import (
    ECHO,
    Securities,
    foreign_peer,
    hears_the_end,
    is_turned_away,
    noise_only,
    tcp_from,
    upgrade,
)
from tests.integration.hosts import LOOPBACK, address_of, becomes_true, config, echoes, host_process, server

FAILS = TProtocol("/test/fails/1.0.0")
WAITS = TProtocol("/test/waits/1.0.0")

FRESH_PEERS = 600  # stock libp2p: 250 in the life of a host
BURST = 1_500  # stock libp2p: 512, then nobody for a minute
WARM_UP = 128
WARM_UP_S = 3.0  # what the warm-up takes on two quiet cores, the start of its process included
LONGEST_OUTAGE_S = 5.0
REGAINED_BYTES = 5_000_000


# --- D1: slots for inbound connections were never given back ---------------------------------------------------------


@pytest.mark.slow
async def test_six_hundred_fresh_peers_in_a_row_are_all_served() -> None:
    """A host serves any number of peers in its life, not the 250 of stock libp2p."""
    with trio.fail_after(100):
        async with server() as host:
            for _ in range(FRESH_PEERS):
                async with foreign_peer(address_of(host)) as peer:
                    assert await peer.is_served()


async def test_a_connection_slot_is_free_again_when_the_connection_ends() -> None:
    """With room for two, the third peer is refused while both are there and served when one has gone."""
    with trio.fail_after(20):
        async with server(max_connections=2) as host:
            address = address_of(host)
            async with foreign_peer(address) as first:
                async with foreign_peer(address):
                    assert await is_turned_away(address, "127.0.0.1")
                await becomes_true(lambda: len(host.get_network().get_connections()) == 1)
                async with foreign_peer(address) as third:
                    assert await third.is_served()
                    assert await first.is_served()


# --- D2 and D3: any exception in a stream handler stopped the host ---------------------------------------------------


@pytest.mark.parametrize("failure", [RuntimeError("broken"), ExceptionGroup("several", [ValueError("broken")])])
async def test_a_stream_handler_that_raises_ends_its_stream_only(failure: Exception) -> None:
    """The same connection, and everybody else's, goes on."""

    async def fail(stream: INetStream) -> None:
        await stream.read(1)
        raise failure

    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            host.set_stream_handler(FAILS, fail)
            await dial(client, [address_of(host)])
            stream = await client.new_stream(host.get_id(), [FAILS])
            await stream.write(b"?")
            with pytest.raises(StreamError):
                await stream.read(1)
            assert await echoes(client, host.get_id())
            async with foreign_peer(address_of(host)) as other:
                assert await other.is_served()


NOT_UTF8 = b"\x03\xff\xfe\n"
ENDLESS_VARINT = b"\xff" * 32
HUGE_LENGTH = b"\xff\xff\xff\xff\x07"
NOT_MULTISTREAM = b"\x06hello\n"


@pytest.mark.parametrize("garbage", [NOT_UTF8, ENDLESS_VARINT, HUGE_LENGTH, NOT_MULTISTREAM, b""])
async def test_a_malformed_negotiation_ends_its_stream_only(garbage: bytes) -> None:
    """A message that is not UTF-8, or not multistream at all, cannot stop a host."""
    with trio.fail_after(20):
        async with server() as host, foreign_peer(address_of(host)) as peer:
            stream = await peer.connection.open_stream()
            await stream.write(garbage)
            await stream.close()
            assert await peer.is_served()
            async with foreign_peer(address_of(host)) as other:
                assert await other.is_served()


@pytest.mark.parametrize("garbage", [NOT_UTF8, ENDLESS_VARINT, HUGE_LENGTH, NOT_MULTISTREAM, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_malformed_handshake_ends_its_connection_only(garbage: bytes) -> None:
    """Strangers who send anything at all are dropped, and the host goes on."""
    with trio.fail_after(20):
        async with server() as host:
            async with await tcp_from(parse_endpoint(address_of(host)), "127.0.0.1") as stranger:
                await stranger.send_all(garbage)
                await stranger.send_eof()
                await hears_the_end(stranger)
            async with foreign_peer(address_of(host)) as peer:
                assert await peer.is_served()


async def test_a_connection_with_too_many_streams_keeps_those_it_has() -> None:
    """One peer cannot fill a host's memory with streams: the next one is reset."""

    async def wait(stream: INetStream) -> None:
        await stream.read(1)

    with trio.fail_after(60):
        async with server() as host, foreign_peer(address_of(host)) as peer:
            host.set_stream_handler(WAITS, wait)
            streams = [await peer.open(WAITS) for _ in range(MAX_STREAMS_PER_CONNECTION)]
            with pytest.raises((MuxedStreamError, MultiselectClientError)):
                await peer.open(ECHO)
            await streams[0].reset()
            async with foreign_peer(address_of(host)) as other:
                assert await other.is_served()


# --- D4: cancelling the I/O of a stream corrupts its connection ------------------------------------------------------


async def test_deadlines_in_memory_leave_a_busy_connection_intact() -> None:
    """The rule for users of a stream: one writer and one reader that nobody cancels; deadlines on events only."""
    callers, rounds, frame = 40, 25, 200
    unanswered = {number: trio.Event() for number in range(callers * rounds)}
    expired = 0

    async def read_all(stream: INetStream) -> None:
        received = b""
        while unanswered:
            received += await stream.read(65_536)
            while len(received) >= frame:
                unanswered.pop(int.from_bytes(received[:8], "big")).set()
                received = received[frame:]

    async def call(send: trio.MemorySendChannel[bytes], caller: int) -> None:
        nonlocal expired
        for turn in range(rounds):
            number = caller * rounds + turn
            answer = unanswered[number]
            send.send_nowait(number.to_bytes(8, "big").ljust(frame, b"."))
            with trio.move_on_after(0.002 * (turn % 3)) as patience:
                await answer.wait()
            expired += patience.cancelled_caught

    async def write_all(stream: INetStream, frames: trio.MemoryReceiveChannel[bytes]) -> None:
        async for data in frames:
            await stream.write(data)

    with trio.fail_after(60):
        async with server() as host, open_host(config()) as client:
            connection = await dial(client, [address_of(host)])
            stream = await client.new_stream(host.get_id(), [ECHO])
            send, receive = trio.open_memory_channel[bytes](callers * rounds)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_all, stream, receive)
                nursery.start_soon(read_all, stream)
                async with send, trio.open_nursery() as calls:
                    for caller in range(callers):
                        calls.start_soon(call, send, caller)
            assert expired > 0
            assert not unanswered
            assert client.get_network().get_connections() == [connection]
            assert await echoes(client, host.get_id())


# --- D5: connections without encryption or authentication were accepted ----------------------------------------------


def plaintext(key_pair: KeyPair) -> Securities:
    """No encryption, and no proof of who one is."""
    return {TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(key_pair)}


def secio(key_pair: KeyPair) -> Securities:
    """A protocol that libp2p has given up."""
    return {TProtocol(SECIO): SecioTransport(key_pair)}


def tls(key_pair: KeyPair) -> Securities:
    """Safe, but other implementations cannot read libp2p's certificates."""
    return {TLS: TLSTransport(key_pair)}


@pytest.mark.parametrize("offer", [plaintext, secio, tls])
async def test_a_peer_without_noise_is_refused(offer: Callable[[KeyPair], Securities]) -> None:
    """Plaintext, secio and TLS are not even negotiated."""
    with trio.fail_after(20):
        async with server() as host:
            endpoint = parse_endpoint(address_of(host))
            async with await tcp_from(endpoint, "127.0.0.1") as tcp:
                with pytest.raises(SecurityUpgradeFailure):
                    await upgrade(tcp, endpoint.peer_id, offer(create_new_key_pair()))
            assert host.get_network().get_connections() == []


async def test_a_peer_with_mplex_only_is_refused() -> None:
    """Without flow control, as in mplex, a peer could fill the host's memory."""
    with trio.fail_after(20):
        async with server() as host:
            endpoint = parse_endpoint(address_of(host))
            async with await tcp_from(endpoint, "127.0.0.1") as tcp:
                with pytest.raises(MuxerUpgradeFailure):
                    await upgrade(tcp, endpoint.peer_id, noise_only(create_new_key_pair()), {MPLEX_PROTOCOL_ID: Mplex})
            assert host.get_network().get_connections() == []


async def test_connections_are_encrypted_with_noise_and_multiplexed_with_yamux() -> None:
    """What both sides agree on when both are ours."""
    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            connection = await dial(client, [address_of(host)])
            assert isinstance(connection, SwarmConn)
            assert connection.get_negotiated_security_protocol() == "/noise"
            assert isinstance(connection.muxed_conn, HardenedYamux)
            assert connection.muxed_conn.peer_id == host.get_id()
            await becomes_true(lambda: bool(host.get_network().get_connections(client.get_id())))


# --- D6: a burst of fresh peers locked everybody out, and left tasks behind ------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="weighs a process by /proc")
async def test_a_burst_of_peers_that_vanish_locks_nobody_out_and_leaves_nothing_behind() -> None:
    """1,500 peers connect and vanish; others are served all the while, and memory, files and tasks return."""

    async def visit(address: str) -> None:
        async with foreign_peer(address) as peer:
            assert await peer.is_served()

    async def visit_again_and_again(address: str, patience_s: float) -> None:
        while True:
            with trio.fail_after(patience_s):
                await visit(address)
            await trio.sleep(0.2)

    async def burst(address: str, number: int) -> float:
        start = trio.current_time()
        await trio.run_process([sys.executable, "-m", "tests.integration.burst_process", address, str(number)])
        return trio.current_time() - start

    with trio.fail_after(115):
        async with host_process() as host:
            # The first connections load code and fill Python's free lists; they also tell how slow the machine is now.
            slowness = max(1.0, await burst(host.address, WARM_UP) / WARM_UP_S)
            before = await host.weigh()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visit_again_and_again, host.address, LONGEST_OUTAGE_S * slowness)
                await burst(host.address, BURST)
                nursery.cancel_scope.cancel()
            await visit(host.address)
            while (after := await host.weigh()) | {"rss": 0} != before | {"rss": 0}:
                await trio.sleep(0.1)
    assert before["connections"] == 0
    assert after["rss"] - before["rss"] < REGAINED_BYTES


async def test_a_flood_from_one_address_is_turned_away_and_others_come_in() -> None:
    """An address that has used up its allowance is refused before any work is done for it."""
    five_at_once = AddressLimits(per_second=0.001, burst=5, connections=100)
    with trio.fail_after(20):
        async with server(inbound=InboundLimits(loopback=five_at_once)) as host:
            address = address_of(host)
            turned_away = [await is_turned_away(address, "127.0.0.2") for _ in range(20)]
            assert turned_away == [False] * 5 + [True] * 15
            async with foreign_peer(address, source="127.0.0.3") as other:
                assert await other.is_served()


async def test_one_address_holds_a_limited_number_of_connections() -> None:
    """Peers behind one address cannot take every slot."""
    two = AddressLimits(per_second=100, burst=100, connections=2)
    with trio.fail_after(20):
        async with server(inbound=InboundLimits(loopback=two)) as host:
            address = address_of(host)
            async with foreign_peer(address, source="127.0.0.2"):
                async with foreign_peer(address, source="127.0.0.2"):
                    assert await is_turned_away(address, "127.0.0.2")
                    assert not await is_turned_away(address, "127.0.0.3")
                await becomes_true(lambda: len(host.get_network().get_connections()) == 1)
                async with foreign_peer(address, source="127.0.0.2") as peer:
                    assert await peer.is_served()


async def test_silent_strangers_make_room_for_a_peer_that_speaks() -> None:
    """Sockets that never begin their handshake do not keep others out, however many there are."""
    with trio.fail_after(20):
        async with server(inbound=InboundLimits(handshakes=4)) as host:
            endpoint = parse_endpoint(address_of(host))
            silent = [await tcp_from(endpoint, "127.0.0.1") for _ in range(8)]
            while await is_turned_away(address_of(host), "127.0.0.1"):
                await trio.sleep(0.1)
            with trio.fail_after(2):  # less than a handshake may take when there is room
                await hears_the_end(silent[0])
            async with foreign_peer(address_of(host)) as peer:
                assert await peer.is_served()
            for tcp in silent:
                await tcp.aclose()


@pytest.mark.parametrize("transport", ["", "/ws"])
async def test_strangers_who_come_and_go_under_pressure_leave_room_for_a_peer(transport: str) -> None:
    """Handshakes that are silent, that fail and that are given up, all at once, in less room than they need."""

    async def come_and_go(address: str, delay_s: float, greeting: bytes) -> None:
        await trio.sleep(delay_s)
        async with await tcp_from(parse_endpoint(address), "127.0.0.1") as tcp:
            with suppress(trio.BrokenResourceError):
                await tcp.send_all(greeting)
                await trio.sleep(1.2 * delay_s)

    with trio.fail_after(30):
        async with server(LOOPBACK + transport, LOOPBACK, inbound=InboundLimits(handshakes=2)) as host:
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    greeting = NOT_UTF8 if number % 3 else b""
                    nursery.start_soon(come_and_go, address_of(host), 0.02 * number, greeting)
            plain = str(host.get_addrs()[-1])
            while await is_turned_away(plain, "127.0.0.1"):
                await trio.sleep(0.1)
            async with foreign_peer(plain) as peer:
                assert await peer.is_served()


async def test_one_peer_holds_a_limited_number_of_connections() -> None:
    """A fourth connection with the same identity is closed, and the other three go on."""
    key_pair = create_new_key_pair()
    with trio.fail_after(20):
        async with server() as host:
            address = address_of(host)
            async with (
                foreign_peer(address, key_pair) as first,
                foreign_peer(address, key_pair) as second,
                foreign_peer(address, key_pair) as third,
                foreign_peer(address, key_pair) as fourth,
            ):
                await fourth.connection.event_closed.wait()
                for peer in (first, second, third):
                    assert await peer.is_served()


async def test_a_peer_with_the_hosts_own_identity_is_refused() -> None:
    """A copied data folder does not make two nodes one."""
    key_pair = create_new_key_pair()
    with trio.fail_after(20):
        async with server(key_pair=key_pair) as host, foreign_peer(address_of(host), key_pair) as twin:
            await twin.connection.event_closed.wait()
            assert host.get_network().get_connections() == []
