"""Listening, frozen peers, and how a host starts and ends, with real hosts over loopback."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import trio
from libp2p.abc import IMuxedStream, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.utils import read_exactly
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamError
from multiaddr import Multiaddr

from node.net.addresses import parse_endpoint
from node.net.errors import CannotListen, HostStopped, InvalidAddress, PeerUnreachable
from node.net.host import abort_connection, create_host, dial, open_host
from node.net.swarm import HardenedSwarm
from tests.integration.foreign_peers import ECHO, foreign_peer, hears_the_end, tcp_from
from tests.integration.hosts import LOOPBACK, address_of, becomes_true, config, echoes, host_process, server

# --- Frozen peers ----------------------------------------------------------------------------------------------------


async def read_to_the_end(stream: INetStream, ends: list[StreamError]) -> None:
    """Read until the stream ends, and tell how."""
    try:
        while True:
            await stream.read(65_536)
    except StreamError as error:
        ends.append(error)


async def write_to_the_end(stream: INetStream) -> None:
    """Write until the stream ends; with a frozen peer that is soon stuck."""
    with suppress(StreamError):
        while True:
            await stream.write(bytes(65_536))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="freezes a process")
async def test_a_frozen_peer_can_be_aborted_and_dialled_again() -> None:
    """Although a write to it is stuck, the connection ends at once, and its reader and writer see the end."""
    ends: list[StreamError] = []
    with trio.fail_after(60):
        async with host_process() as peer, open_host(config()) as client:
            peer_id = ID.from_string(parse_endpoint(peer.address).peer_id)
            await dial(client, [peer.address])
            stream = await client.new_stream(peer_id, [ECHO])
            os.kill(peer.process.pid, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_to_the_end, stream, ends)
                nursery.start_soon(write_to_the_end, stream)
                await trio.sleep(0.5)
                with trio.fail_after(2):
                    await abort_connection(client, peer_id)
                assert client.get_network().get_connections() == []
            assert isinstance(ends[0], StreamEOF)
            os.kill(peer.process.pid, signal.SIGCONT)
            await dial(client, [peer.address])
            assert await echoes(client, peer_id)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="freezes a process")
async def test_disconnecting_from_a_frozen_peer_takes_a_moment_only() -> None:
    """The goodbye has a second, also when it is stuck behind a write that the peer does not read."""
    with trio.fail_after(60):
        async with host_process() as peer, open_host(config()) as client:
            peer_id = ID.from_string(parse_endpoint(peer.address).peer_id)
            await dial(client, [peer.address])
            stream = await client.new_stream(peer_id, [ECHO])
            os.kill(peer.process.pid, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_to_the_end, stream)
                await trio.sleep(0.5)
                with trio.fail_after(4):
                    await client.get_network().close_peer(peer_id)
                assert client.get_network().get_connections() == []


async def test_aborting_a_peer_without_a_connection_does_nothing() -> None:
    """Whoever gives a peer up need not know whether it was connected."""
    with trio.fail_after(10):
        async with server() as host:
            await abort_connection(host, ID.from_pubkey(create_new_key_pair().public_key))


# --- Listening -------------------------------------------------------------------------------------------------------


async def test_tcp_and_websocket_listen_on_ports_of_their_own() -> None:
    """With port 0 for both, each gets a free one, and peers come in through both."""
    with trio.fail_after(30):
        async with server(LOOPBACK, f"{LOOPBACK}/ws") as host:
            tcp, websocket = map(str, host.get_addrs())
            assert parse_endpoint(tcp).port != parse_endpoint(websocket).port
            for address in (tcp, websocket):
                async with open_host(config()) as client:
                    await dial(client, [address])
                    assert await echoes(client, host.get_id(), bytes(300_000))


def test_tcp_and_websocket_on_one_port_are_refused() -> None:
    """libp2p would tell them apart by the first packet, and now and then fail."""
    with pytest.raises(InvalidAddress, match="want the same port"):
        create_host(config("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/ws"))


async def test_a_websocket_that_ends_leaves_the_host_serving() -> None:
    """Garbage instead of a WebSocket handshake, and a peer that vanishes, end that connection only."""
    with trio.fail_after(30):
        async with server(f"{LOOPBACK}/ws") as host:
            async with await tcp_from(parse_endpoint(address_of(host)), "127.0.0.1") as stranger:
                await stranger.send_all(b"\xff\xfe garbage\r\n\r\n")
                await hears_the_end(stranger)
            for _ in range(2):
                async with open_host(config()) as client:
                    await dial(client, [address_of(host)])
                    assert await echoes(client, host.get_id())
                    await abort_connection(client, host.get_id())
                await becomes_true(lambda: not host.get_network().get_connections())


async def test_dialling_a_websocket_where_there_is_none_fails_in_words(autojump_clock: trio.testing.MockClock) -> None:
    """A TCP listener of a node does not answer a WebSocket handshake."""
    del autojump_clock
    async with server() as host, open_host(config()) as client:
        plain = str(host.get_transport_addrs()[0])
        with pytest.raises(PeerUnreachable):
            await dial(client, [f"{plain}/ws"], str(host.get_id()))


async def test_a_port_that_is_taken_is_refused_in_words() -> None:
    """Two nodes never share a port, as libp2p's own listeners silently would."""
    with trio.fail_after(20):
        async with server() as host:
            taken = str(host.get_transport_addrs()[0])
            with pytest.raises(CannotListen, match=taken) as caught:
                async with open_host(config(taken)):
                    pass
            assert "Choose another port" in str(caught.value)


async def test_peers_over_ipv6_are_served() -> None:
    """libp2p's own listener does not even know the address of an IPv6 peer."""
    with trio.fail_after(20):
        try:
            async with server("/ip6/::1/tcp/0") as host, open_host(config()) as client:
                await dial(client, [address_of(host)])
                assert await echoes(client, host.get_id())
        except CannotListen:
            pytest.skip("this machine has no IPv6")


# --- The life of a host ----------------------------------------------------------------------------------------------


async def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    """Not wrapped into groups, one for every nursery of libp2p."""
    with trio.fail_after(20), pytest.raises(KeyError, match="mine"):
        async with server():
            raise KeyError("mine")


async def test_a_cancelled_host_closes_its_connections_and_frees_its_port() -> None:
    """Cancellation from outside is an orderly end as well: the peer hears of it, and the port can be used again."""
    with trio.fail_after(20):
        async with open_host(config()) as client:
            with trio.CancelScope() as scope:
                async with server() as host:
                    address = str(host.get_transport_addrs()[0])
                    await dial(client, [address_of(host)])
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            await becomes_true(lambda: not client.get_network().get_connections())
            async with server(address) as again:
                await dial(client, [address_of(again)])


async def test_a_host_that_is_cancelled_before_it_runs_ends_all_the_same() -> None:
    """Whenever the cancellation comes, nothing hangs and nothing else is raised."""
    with trio.fail_after(20):
        for steps in range(12):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_for_ever)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def serve_for_ever() -> None:
    """Run a host until it is cancelled."""
    async with server():
        await trio.sleep_forever()


async def test_a_host_that_ends_by_itself_cancels_its_block_in_words() -> None:
    """A defect inside libp2p that nothing could catch is not mistaken for silence of the network."""

    async def fail() -> None:
        raise RuntimeError("a defect")

    async def run_until_it_fails() -> None:
        async with server() as host:
            network = host.get_network()
            assert isinstance(network, HardenedSwarm)
            network.manager.run_task(fail)
            await trio.sleep_forever()

    with trio.fail_after(20):
        with pytest.raises(HostStopped) as caught:
            await run_until_it_fails()
    assert "a defect" in repr(caught.value.__cause__)


LOGGING_PROGRAM = """
import logging, trio
from libp2p.crypto.ed25519 import create_new_key_pair
from node.net.host import HostConfig, dial, open_host

async def main():
    async with open_host(HostConfig(key_pair=create_new_key_pair(), listen=("/ip4/127.0.0.1/tcp/0",))) as host:
        async with open_host(HostConfig(key_pair=create_new_key_pair())) as client:
            await dial(client, [str(host.get_addrs()[0])])

trio.run(main)
print(logging.getLogger().handlers)
"""


def test_connections_leave_the_root_logger_and_standard_output_alone() -> None:
    """Whoever configures logging finds it untouched, and results on standard output stay machine-readable."""
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING_PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "[]\n"
    assert ended.stderr == ""


# --- What every peer of libp2p may ask --------------------------------------------------------------------------------


async def test_a_foreign_peer_gets_its_ping_back() -> None:
    """Other programs see by it that a node lives."""
    with trio.fail_after(20):
        async with server() as host, foreign_peer(address_of(host)) as peer:
            stream = await peer.open(PING)
            for payload in (bytes(range(32)), bytes(32)):
                await stream.write(payload)
                assert await read_exactly(stream, 32) == payload


async def test_a_foreign_peer_learns_what_a_host_speaks() -> None:
    """The answer to identify names the host, where it listens and its protocols, of which push is none."""
    with trio.fail_after(20):
        async with server() as host, foreign_peer(address_of(host)) as peer:
            stream = await peer.open(IDENTIFY)
            about = parse_identify_response(await read_to_its_end(stream))
            assert ID.from_pubkey(deserialize_public_key(about.public_key)) == host.get_id()
            assert [Multiaddr(address) for address in about.listen_addrs] == host.get_transport_addrs()
            assert sorted(about.protocols) == sorted({str(ECHO), str(PING), str(IDENTIFY)})


async def read_to_its_end(stream: IMuxedStream) -> bytes:
    """All that the other side writes."""
    text = b""
    with suppress(MuxedStreamError):
        while data := await stream.read(65_536):
            text += data
    return text
