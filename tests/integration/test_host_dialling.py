"""Dialling: no fixed delay, errors in words, no block of 60 s after a failure, nothing behind the node's back."""

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import _HAPPY_EYEBALLS_DELAY, Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.net.errors import InvalidAddress, PeerUnreachable, SelfDial, WrongPeer
from node.net.host import HardenedHost, create_host, dial, open_host
from node.net.swarm import HardenedSwarm
from tests.integration.foreign_peers import ECHO
from tests.integration.hosts import address_of, becomes_true, config, echoes, free_port, server

OTHER_PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
THIRD_PEER = "12D3KooWS2LpLCLmnx1uMHRymdbfKn1ER85eRPwmFVY9qcJ7gKxs"


async def test_dialling_does_not_wait_for_the_fixed_delay_of_libp2p() -> None:
    """The code with the delay is not used, and a connection takes less time than the delay alone."""
    assert _HAPPY_EYEBALLS_DELAY == 0.25
    assert HardenedSwarm.dial_peer is not Swarm.dial_peer
    assert HardenedSwarm.dial_addr is not Swarm.dial_addr
    times = []
    with trio.fail_after(30):
        async with server() as host:
            for _ in range(5):
                async with open_host(config()) as client:
                    start = trio.current_time()
                    await dial(client, [address_of(host)])
                    times.append(trio.current_time() - start)
    assert min(times) < 0.2


async def test_concurrent_dials_of_one_peer_share_a_connection() -> None:
    """Whoever asks for a peer gets the same connection, then and later."""
    found = []

    async def ask(client: HardenedHost, address: str) -> None:
        found.append(await dial(client, [address]))

    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask, client, address_of(host))
            await ask(client, address_of(host))
            assert len(set(map(id, found))) == 1
            assert client.get_network().get_connections() == found[:1]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """Of several addresses the first that works is taken, a dead one costs no time."""
    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            await dial(client, [f"/ip4/127.0.0.1/tcp/{await free_port()}", address_of(host)])
            assert await echoes(client, host.get_id())


async def test_a_cancelled_dial_leaves_no_connection_behind() -> None:
    """Wherever a dial is interrupted, also in the moment of success, there is a connection only when it returned."""
    finished: list[bool] = []

    async def ask(client: HardenedHost, address: str) -> None:
        await dial(client, [address])
        finished.append(True)

    with trio.fail_after(30):
        async with server() as host, open_host(config()) as client:
            for steps in range(50):  # a dial within one process takes some thirty
                finished.clear()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, client, address_of(host))
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                left = client.get_network().get_connections()
                assert len(left) == len(finished)
                for connection in left:
                    await connection.close()
            assert finished
            await becomes_true(lambda: not host.get_network().get_connections())
            await dial(client, [address_of(host)])
            assert await echoes(client, host.get_id())


async def test_dialling_a_wrong_peer_id_names_who_answers() -> None:
    """Nothing is sent to a peer that cannot prove the expected identity."""
    expected = str(ID.from_pubkey(create_new_key_pair().public_key))
    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            address = str(host.get_transport_addrs()[0])
            with pytest.raises(WrongPeer) as caught:
                await dial(client, [address], expected)
            assert expected in str(caught.value)
            assert str(host.get_id()) in str(caught.value)
            assert address in str(caught.value)
            assert client.get_network().get_connections() == []


async def test_dialling_itself_is_refused_in_words() -> None:
    """By its own peer id, or by its own address under another id."""
    other = str(ID.from_pubkey(create_new_key_pair().public_key))
    with trio.fail_after(20):
        async with server() as host:
            with pytest.raises(SelfDial, match="is this node itself"):
                await dial(host, [address_of(host)])
            with pytest.raises(SelfDial, match="is this node itself"):
                await dial(host, [str(host.get_transport_addrs()[0])], other)


@pytest.mark.parametrize(
    ("suffixes", "peer_id"), [((OTHER_PEER, THIRD_PEER), ""), ((OTHER_PEER,), THIRD_PEER), (("",), "")]
)
async def test_dialling_nobody_or_several_peers_is_refused(suffixes: tuple[str, ...], peer_id: str) -> None:
    """One call is about one peer, and it must be named somewhere."""
    addresses = [f"/ip4/127.0.0.1/tcp/{port}{f'/p2p/{name}' if name else ''}" for port, name in enumerate(suffixes, 1)]
    with pytest.raises(InvalidAddress, match="cannot tell whom to dial"):
        await dial(create_host(config()), addresses, peer_id)


async def test_dialling_an_address_where_nobody_listens_says_so() -> None:
    """The message has the address, the reason and what to do."""
    peer_id = str(ID.from_pubkey(create_new_key_pair().public_key))
    port = await free_port()
    with trio.fail_after(20):
        async with open_host(config()) as client:
            with pytest.raises(PeerUnreachable, match="connection refused") as caught:
                await dial(client, [f"/ip4/127.0.0.1/tcp/{port}"], peer_id)
    assert f"/ip4/127.0.0.1/tcp/{port}" in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x13/multistream/1.0.0\n\x03na\n"])
async def test_dialling_something_that_is_no_node_says_so(greeting: bytes) -> None:
    """A server that hangs up, or speaks another protocol, is no mystery to the person who dialled it."""
    peer_id = str(ID.from_pubkey(create_new_key_pair().public_key))

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(greeting)
        await stream.receive_some(1)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, open_host(config()) as client:
            listeners = await nursery.start(trio.serve_tcp, greet, 0)
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(PeerUnreachable, match=r"libp2p|handshake"):
                await dial(client, [f"/ip4/127.0.0.1/tcp/{port}"], peer_id)
            nursery.cancel_scope.cancel()


async def test_dialling_a_silent_server_gives_up_in_words(autojump_clock: trio.testing.MockClock) -> None:
    """A server that accepts and never answers costs seconds, not for ever."""
    del autojump_clock  # makes the waiting time pass at once
    peer_id = str(ID.from_pubkey(create_new_key_pair().public_key))
    async with trio.open_nursery() as nursery, open_host(config()) as client:
        listeners = await nursery.start(trio.serve_tcp, lambda _: trio.sleep_forever(), 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(PeerUnreachable, match="no answer in time"):
            await dial(client, [f"/ip4/127.0.0.1/tcp/{port}"], peer_id)
        nursery.cancel_scope.cancel()


async def test_a_peer_that_was_away_can_be_dialled_as_soon_as_it_is_back() -> None:
    """A failed dial blocks nobody; stock libp2p refuses the peer for 60 s."""
    key_pair, port = create_new_key_pair(), await free_port()
    address = f"/ip4/127.0.0.1/tcp/{port}"
    peer_id = str(ID.from_pubkey(key_pair.public_key))
    with trio.fail_after(20):
        async with open_host(config()) as client:
            for _ in range(2):
                with pytest.raises(PeerUnreachable):
                    await dial(client, [address], peer_id)
                async with server(address, key_pair=key_pair) as host:
                    await dial(client, [address], peer_id)
                    assert await echoes(client, host.get_id())
                await becomes_true(lambda: not client.get_network().get_connections())


async def test_a_stream_to_a_lost_peer_fails_at_once() -> None:
    """Whom to dial is the node's decision: libp2p does not dial behind its back."""
    with trio.fail_after(20):
        async with open_host(config()) as client:
            async with server() as host:
                await dial(client, [address_of(host)])
            await becomes_true(lambda: not client.get_network().get_connections())
            with pytest.raises(SwarmException, match="no connection with"):
                await client.new_stream(host.get_id(), [ECHO])


async def test_libp2ps_own_dial_goes_through_the_same_dialler() -> None:
    """Parts of libp2p that a node may use dial by way of the peer store."""
    with trio.fail_after(20):
        async with server() as host, open_host(config()) as client:
            info = info_from_p2p_addr(Multiaddr(address_of(host)))
            client.get_peerstore().add_addrs(info.peer_id, info.addrs, 60)
            await client.get_network().dial_peer(info.peer_id)
            assert await echoes(client, host.get_id())
