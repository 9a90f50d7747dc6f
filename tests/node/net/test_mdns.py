"""Nodes that find each other by multicast DNS; on loopback, so nothing leaves this machine."""

from __future__ import annotations

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from structlog.testing import capture_logs
from zeroconf import ServiceInfo, Zeroconf

from node import NodeConfig, open_node
from node.background import open_background
from node.interfaces import PeerSource
from node.net.identity import peer_id_of
from node.net.mdns import SERVICE, MdnsDiscovery
from protocol import PeerId

LOOPBACK = ("127.0.0.1",)
LIMIT_S = 30.0
POLL_S = 0.02  # what is found wakes nobody


def a_peer() -> PeerId:
    """One that no other test on this machine uses."""
    return peer_id_of(create_new_key_pair())


def at(host: str, peer_id: PeerId) -> str:
    """An address of a peer."""
    return f"/ip4/{host}/tcp/4001/p2p/{peer_id}"


class Searcher:
    """Announces a node, and keeps what others announce."""

    def __init__(self, peer_id: PeerId, *addresses: str) -> None:
        self.found: set[str] = set()
        self._discovery = MdnsDiscovery(peer_id, addresses, LOOPBACK)

    async def run(self) -> None:
        """Search until cancelled."""
        async for address in self._discovery.addresses():
            self.found.add(address)

    async def wait_for(self, peer_id: PeerId) -> set[str]:
        """The addresses of a peer, once there are some."""
        while True:
            theirs = {address for address in self.found if address.endswith(peer_id)}
            if theirs:
                return theirs
            await trio.sleep(POLL_S)


async def test_two_nodes_of_a_network_find_each_other() -> None:
    """What only the machine itself can reach is not announced, nor where it is reached through a relay."""
    one, other = a_peer(), a_peer()
    relayed = f"{at('10.0.0.3', a_peer())}/p2p-circuit/p2p/{one}"
    first = Searcher(one, at("127.0.0.1", one), at("10.0.0.1", one), relayed)
    second = Searcher(other, at("10.0.0.2", other), at("169.254.0.2", other))
    with trio.fail_after(LIMIT_S):
        async with open_background() as nursery:
            nursery.start_soon(first.run)
            nursery.start_soon(second.run)
            assert await first.wait_for(other) == {at("10.0.0.2", other)}
            assert await second.wait_for(one) == {at("10.0.0.1", one)}
    assert not any(address.endswith(one) for address in first.found)


async def test_a_node_takes_note_of_what_is_announced_and_does_not_dial_it() -> None:
    """Also when it has nothing to announce itself; what is announced and makes no sense is left out."""
    announced = a_peer()
    info = ServiceInfo(
        SERVICE,
        f"{announced[-32:]}.{SERVICE}",
        port=4001,
        server="somebody.local.",
        parsed_addresses=["10.0.0.9"],
        properties={"a0": at("10.0.0.9", announced), "a1": "nonsense", "a2": "/ip4/10.0.0.9/tcp/1", "a3": None},
    )
    zeroconf = Zeroconf(interfaces=list(LOOPBACK))
    try:
        await trio.to_thread.run_sync(zeroconf.register_service, info)
        with trio.fail_after(LIMIT_S):
            async with open_node(NodeConfig(mdns=True, mdns_interfaces=LOOPBACK)) as node:
                while not (peers := [peer for peer in node.peers() if peer.peer_id == announced]):
                    await trio.sleep(POLL_S)
        (peer,) = peers
        assert (peer.addresses, peer.source, peer.hearsay) == ((at("10.0.0.9", announced),), PeerSource.MDNS, True)
        assert (peer.connected, peer.via, peer.last_error) == (False, (), "")
    finally:
        await trio.to_thread.run_sync(zeroconf.close)


async def test_a_machine_without_multicast_is_told_of_in_the_log() -> None:
    """And nothing else comes of it."""
    with capture_logs() as logs, trio.fail_after(LIMIT_S):
        discovery = MdnsDiscovery(a_peer(), (), ("nonsense",))
        assert [address async for address in discovery.addresses()] == []
    assert [log["event"] for log in logs] == ["mDNS does not work here, so nobody is found by it"]
