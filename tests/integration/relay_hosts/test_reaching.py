"""Hosts that reach each other through a relay."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID

from node.net.host import HardenedHost, dial, open_host
from node.net.swarm import relay_of
from tests.integration.foreign_peers import ECHO
from tests.integration.hosts import address_of, becomes_true, config, echoes, server
from tests.integration.relay_hosts.visits import LIMIT_S
from tests.integration.relays import hidden_host, relay_host


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
