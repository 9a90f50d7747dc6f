"""Nodes that do tasks for each other through a relay, and how peers come to know of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair

from node import Node, NodeConfig, open_node
from node.background import open_background
from node.clock import SystemClock
from node.coordination.diagnosis import Symptom
from node.executors.callable import CallableExecutor
from node.interfaces import PeerInfo, PeerSource
from node.net import network as network_module
from node.net import probing
from node.net.errors import SelfDial
from node.net.finder import Finding
from node.net.introductions import Pace
from node.net.relay import wiring
from node.net.relay.roles import Relaying
from node.testing.network_sides import Side, connect
from protocol import PeerId, TaskStatus
from tests.integration.networks import make_network
from tests.integration.nodes import has_ended
from tests.integration.relays import RestartableRelay

LIMIT_S: Final = 30.0
RELAY: Final = NodeConfig(relay_service=True)
NOWHERE: Final = NodeConfig(listen=())
# So short that a test need not wait.
AT_ONCE: Final = Pace(gather_s=0.01, again_s=0.01, refresh_s=60.0, ttl_s=120.0)


def hidden(*relays: str) -> NodeConfig:
    """A node that listens nowhere."""
    return NodeConfig(listen=(), relays=relays)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what real sockets bring about."""
    with trio.fail_after(LIMIT_S):
        while not condition():
            await trio.sleep(0.01)


def known(node: Node, peer_id: PeerId) -> PeerInfo:
    """What a node knows about another."""
    return next(info for info in node.peers() if info.peer_id == peer_id)


async def test_a_task_is_done_by_a_node_that_nobody_can_dial(tmp_path: Path) -> None:
    """It is asked for by the address of the worker, in both directions; all three know through whom."""
    measured = NodeConfig(relay_service=True, data=tmp_path / "relay")
    async with open_node(measured) as relay, open_node(hidden(relay.addresses[0])) as works, open_node(NOWHERE) as asks:
        (address,) = works.addresses
        assert address == f"{relay.addresses[0]}/p2p-circuit/p2p/{works.peer_id}"
        with trio.fail_after(LIMIT_S):
            assert (await asks.submit("hello", kind="echo", to=address)).result == "hello"
            assert (await works.submit("and back", kind="echo", to=asks.peer_id)).result == "and back"
            large = "x" * 1_000_000
            assert (await asks.submit(large, kind="echo", to=works.peer_id)).result == large
        assert known(asks, works.peer_id).relay == known(works, asks.peer_id).relay == relay.peer_id
        assert not [info for info in relay.peers() if info.connected]
        (own,) = works.info().relays
        assert (own.peer_id, own.reserved, own.last_error) == (relay.peer_id, True, "")
        for line in ("peertask_relay_reservations 1.0", "peertask_relay_circuits 1.0"):
            assert line in relay.metrics()


async def test_a_relay_that_goes_away_and_comes_back_costs_time_only() -> None:
    """The session is lost, and opened again; the task that was under way is done, and recorded once at each end."""
    relay, started, go_on = RestartableRelay(), trio.Event(), trio.Event()

    async def wait(prompt: str) -> str:
        started.set()
        await go_on.wait()
        return prompt.upper()

    async with open_background() as nursery:
        address = await relay.start(nursery)
        waiting = CallableExecutor("wait", wait, safe=True)
        async with open_node(hidden(address), [waiting]) as works, open_node(NOWHERE) as asks:
            with trio.fail_after(LIMIT_S):
                await asks.connect(works.addresses[0])
                task_id = await asks.enqueue("done", kind="wait", to=works.peer_id)
                await started.wait()
                await relay.stop()
                await until(lambda: not known(asks, works.peer_id).connected and not works.addresses)
                assert works.info().relays[0].last_error
                go_on.set()
                await has_ended(works, task_id)
                await relay.start(nursery)
                record = await has_ended(asks, task_id)
            assert record.result is not None
            assert record.result.result == "DONE"
            assert [(task.status, task.attempt) for task in works.list_tasks()] == [(TaskStatus.COMPLETE, 1)]


async def test_peers_are_told_when_a_node_can_be_reached_through_a_relay_and_when_no_more() -> None:
    """Also those that it met before; peers of theirs then reach it by its id."""
    relay = RestartableRelay()
    async with open_background() as nursery:
        address = await relay.start(nursery)
        sharing = Finding(pace=AT_ONCE)
        hub, one = Side(make_network(finding=sharing)), Side(make_network(finding=sharing))
        other = Side(make_network(listen_nowhere=True, finding=sharing, relaying=Relaying(relays=(address,))))
        async with hub.running(), one.running(), other.running():
            with trio.fail_after(LIMIT_S):
                await connect(one, hub)
                await relay.stop()
                await until(lambda: not other.network.addresses)
                await other.network.connect(hub.address)
                assert addresses_of(hub, other) == ()
                await relay.start(nursery)
                await until(lambda: addresses_of(hub, other) == other.network.addresses != ())
                await until(lambda: addresses_of(one, other) == other.network.addresses)
                await one.network.connect(other.peer_id)
            (met,) = [info for info in one.network.peers() if info.peer_id == other.peer_id]
            assert (met.connected, met.source, met.relay) == (True, PeerSource.PEER, peer_of(address))


def addresses_of(side: Side, other: Side) -> tuple[str, ...]:
    """Where another is by what a network knows."""
    return next((info.addresses for info in side.network.peers() if info.peer_id == other.peer_id), ())


def peer_of(address: str) -> PeerId:
    """Who an address names."""
    return PeerId(address.rpartition("/p2p/")[2])


async def test_whoever_can_be_dialled_elsewhere_registers_anew() -> None:
    """A rendezvous point learns of the relay, which was not there when the node came."""
    relay = RestartableRelay()
    point = Side(make_network(finding=Finding(share=False, rendezvous=True)))
    async with open_background() as nursery, point.running():
        address = await relay.start(nursery)
        finding = Finding(share=False, points=frozenset({point.peer_id}))
        other = Side(make_network(listen_nowhere=True, finding=finding, relaying=Relaying(relays=(address,))))
        asker = Side(make_network(finding=finding))
        async with other.running(), asker.running():
            with trio.fail_after(LIMIT_S):
                await relay.stop()
                await until(lambda: not other.network.addresses)
                await other.network.connect(point.address)
                await relay.start(nursery)
                await until(lambda: addresses_of(point, other) != ())
                await asker.network.connect(point.address)
                await until(lambda: addresses_of(asker, other) == other.network.addresses)


async def test_ending_the_session_with_a_relay_leaves_what_goes_through_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay may be a peer too; nor is its connection closed because no session uses it."""
    monkeypatch.setattr(network_module, "SILENT_CONNECTION_S", 0.05)
    async with open_node(RELAY) as relay, open_node(hidden(relay.addresses[0])) as works, open_node(NOWHERE) as asks:
        with trio.fail_after(LIMIT_S):
            await asks.connect(relay.addresses[0])
            await works.connect(relay.addresses[0])
            await asks.connect(works.addresses[0])
            await asks.disconnect(relay.peer_id)
            await works.disconnect(relay.peer_id)
            await until(lambda: not [info for info in relay.peers() if info.connected])
            await trio.sleep(0.3)  # several looks at which connections are idle
            assert (await asks.submit("still there", kind="echo", to=works.peer_id)).result == "still there"
            assert known(asks, works.peer_id).relay == relay.peer_id
            assert works.info().relays[0].reserved


async def test_a_relay_that_does_not_answer_does_not_keep_a_node_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, says what is wrong, and tries again."""
    monkeypatch.setattr(wiring, "FIRST_TRY_S", 0.2)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    nobody = "12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H"
    silent, dead = (f"/ip4/127.0.0.1/tcp/{number}/p2p/{nobody}" for number in (port, 1))
    with trio.fail_after(LIMIT_S):
        async with open_node(hidden(dead)) as node:
            assert node.addresses == ()
            assert "connection refused" in node.info().relays[0].last_error
        async with open_node(hidden(silent)) as node:
            assert (node.info().relays[0].reserved, node.info().relays[0].last_error) == (False, "")
    await listeners[0].aclose()


async def test_a_node_that_is_to_be_its_own_relay_does_not_start() -> None:
    """It could not be reached there by anybody who does not reach it anyway."""
    key_pair = create_new_key_pair()
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{make_network(key_pair=key_pair).peer_id}"
    side = Side(make_network(key_pair=key_pair, relaying=Relaying(relays=(address,))))
    with pytest.raises(SelfDial, match="this node itself"):
        async with side.running():
            pytest.fail("it runs")


async def test_the_doctor_tells_trouble_at_a_relay_apart() -> None:
    """Whether the relay is there, is one, and knows the peer; else it greets the peer as at any address."""
    me = create_new_key_pair()

    async def symptom(address: str) -> Symptom:
        with trio.fail_after(LIMIT_S):
            return (await probing.probe(address, me, SystemClock())).symptom

    async with open_node(RELAY) as relay, open_node(hidden(relay.addresses[0])) as works, open_node() as plain:
        (address,) = works.addresses
        assert await symptom(address) is Symptom.REACHED
        assert await symptom(address.replace(works.peer_id, plain.peer_id)) is Symptom.NO_RESERVATION
        assert await symptom(f"{plain.addresses[0]}/p2p-circuit/p2p/{works.peer_id}") is Symptom.NO_RELAY
        port = relay.addresses[0].split("/")[4]
        assert await symptom(address.replace(f"/tcp/{port}/", "/tcp/1/")) is Symptom.RELAY_UNREACHABLE
        assert await symptom(f"{relay.addresses[0]}/p2p-circuit/p2p/{relay.peer_id}") is Symptom.MALFORMED


def test_a_node_that_has_to_do_with_no_relay_does_not_load_what_it_takes() -> None:
    """Not even the definitions of its messages."""
    program = """
        import sys, trio
        from node import NodeConfig, open_node

        async def main():
            async with open_node() as one, open_node() as two:
                await one.submit("x", kind="echo", to=two.addresses[0])

        trio.run(main)
        print([name for name in sys.modules if "relay" in name])
    """
    done = subprocess.run(
        [sys.executable, "-c", "import textwrap; exec(textwrap.dedent('''" + program + "'''))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['node.net.relay', 'node.net.relay.roles']\n"
