"""Sessions that are kept up: peers that restart, move, come late, or will not stay."""

from __future__ import annotations

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from node.interfaces import PeerInfo
from node.net.network import PeerNetwork
from node.testing.network_sides import Side, connect
from protocol import PROTOCOL_ID, Bye, ErrorCode, Hello, PeerId, encode_frame
from tests.integration.hosts import address_of, becomes_true, config, free_port, server
from tests.integration.network.sessions import exchange, has_session
from tests.integration.networks import make_network, port_of, side


async def test_a_restarted_peer_replaces_its_dead_session_at_once() -> None:
    """Same identity and port, another instance: nothing waits until the silence of the old one is noticed."""
    key_pair = create_new_key_pair()
    with trio.fail_after(30):
        async with side() as one:
            address = one.address
            async with side(key_pair=key_pair) as before:
                await before.network.connect(address)
                await one.wait_until(lambda: has_session(one, before))
                first = one.channel_to(before)
                # The old instance is still there, as far as this node can see; the new one dials.
                async with side(key_pair=key_pair) as after:
                    with trio.fail_after(5):
                        await after.network.connect(address)
                    await exchange(one, after)
                    assert one.channel_to(after) is not first
                    assert first.closed
                    before_ended = before.worker.endings
                    await before.worker.wait_until(lambda: bool(before_ended))
                    assert "replaces this one" in before_ended[0][1]


async def test_a_peer_that_comes_back_on_its_port_gets_its_session_back() -> None:
    """Dialled again and again with back-off while it is away, and soon after it is back."""
    key_pair = create_new_key_pair()
    with trio.fail_after(40):
        async with side() as one:
            async with side(key_pair=key_pair) as other:
                await connect(one, other)
                listen = port_of(other)
                # The first dial that fails has another reason, and may come soon.
                told: list[PeerInfo] = []
                one.network.on_change(lambda: told.extend(one.network.peers()))
            await one.wait_until(lambda: not one.network.channels())
            left = next(info for info in told if not info.connected)
            assert "goodbye: the node is stopping" in left.last_error
            with trio.fail_after(20):
                async with side(listen, key_pair=key_pair) as again:
                    await one.wait_until(lambda: has_session(one, again))
                    await becomes_true(lambda: has_session(again, one))
                    await exchange(one, again)
                    (info,) = one.network.peers()
                    assert info.connected
                    assert info.last_error == ""


async def test_a_peer_on_a_new_port_comes_back_by_itself() -> None:
    """Its own dial brings the session, and its Hello the new address, which is dialled from then on."""
    key_pair = create_new_key_pair()
    with trio.fail_after(40):
        async with side() as one:
            async with side(key_pair=key_pair) as other:
                await connect(one, other)
            async with side(key_pair=key_pair) as moved:
                await moved.network.connect(one.address)
                await one.wait_until(lambda: has_session(one, moved))
                assert moved.address in one.network.peers()[0].addresses
                await moved.network.disconnect(one.peer_id)
                await one.wait_until(lambda: not has_session(one, moved))
                await one.wait_until(lambda: has_session(one, moved))
                await exchange(one, moved)


async def test_a_start_never_fails_because_a_peer_is_away() -> None:
    """What is to be kept is dialled in the background, and found when it comes."""
    key_pair = create_new_key_pair()
    listen = f"/ip4/127.0.0.1/tcp/{await free_port()}"
    peer_id = PeerId(str(ID.from_pubkey(key_pair.public_key)))
    network = make_network()
    assert network.keep(f"{listen}/p2p/{peer_id}") == peer_id
    one = Side(network)
    with trio.fail_after(40):
        async with one.running():
            await becomes_true(lambda: bool(network.peers()[0].last_error))
            async with side(listen, key_pair=key_pair) as late:
                await one.wait_until(lambda: has_session(one, late))


async def test_disconnecting_is_final() -> None:
    """Neither the keeper nor a dial that is under way brings the session back; a new connect does."""
    with trio.fail_after(40):
        async with side() as one, side() as other:
            await connect(one, other)
            await one.network.disconnect(other.peer_id)
            assert not one.network.channels()
            await other.wait_until(lambda: not other.network.channels())
            assert other.worker.endings[0][1] == "the peer said goodbye: the operator ended the session"
            for steps in range(12):
                one.network.keep(other.address)
                for _ in range(steps * 5):
                    await trio.lowlevel.checkpoint()
                await one.network.disconnect(other.peer_id)
            await becomes_true(lambda: "streams=0" in repr(one.network))
            await trio.sleep(0.5)
            assert not one.network.channels()
            await connect(one, other)
            await exchange(one, other)


async def test_a_peer_that_ends_every_session_is_not_dialled_without_pause() -> None:
    """Sessions that last no time count as failures, so two nodes do not keep each other busy with nothing."""
    hellos = 0

    async def greet_and_go(stream: object) -> None:
        nonlocal hellos
        hellos += 1
        for frame in (Hello(), Bye(ErrorCode.FORBIDDEN, "not you")):
            for piece in encode_frame(frame):
                await stream.write(piece)  # type: ignore[attr-defined]
        await stream.close()  # type: ignore[attr-defined]

    with trio.fail_after(20):
        async with server() as foreign, side() as one:
            foreign.set_stream_handler(TProtocol(PROTOCOL_ID), greet_and_go)
            one.network.keep(address_of(foreign))
            await trio.sleep(2)
            assert 2 <= hellos <= 20
            (info,) = one.network.peers()
            assert "not you" in info.last_error


async def test_a_node_that_only_dials_works_both_ways() -> None:
    """It listens nowhere; the peer finds it by its id while it is connected, and says so when it is not."""
    key_pair = create_new_key_pair()
    only_dials = Side(PeerNetwork(config(key_pair=key_pair)))
    with trio.fail_after(20):
        async with side() as one:
            async with only_dials.running():
                assert only_dials.network.addresses == ()
                await only_dials.network.connect(one.address)
                await one.wait_until(lambda: has_session(one, only_dials))
                await exchange(one, only_dials)
                assert await one.network.connect(only_dials.peer_id) == only_dials.peer_id
                (info,) = one.network.peers()
                assert (info.connected, info.addresses) == (True, ())
            await one.wait_until(lambda: not one.network.channels())
            (info,) = one.network.peers()
            assert not info.connected
