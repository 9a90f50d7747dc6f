"""Networks under test with real hosts, and what tests of them need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair

from node.clock import SystemClock
from node.interfaces import Network
from node.net.finder import Finding
from node.net.host import HostConfig
from node.net.network import PeerNetwork
from node.net.relay.roles import Relaying
from node.net.session import Pulse
from node.testing.network_sides import Side
from tests.integration.hosts import LOOPBACK

# So short that a test need not wait, so long that a busy machine is not taken for a frozen one.
SHORT_PULSE = Pulse(heartbeat_s=0.2, silence_s=1.0)


def make_network(
    *listen: str,
    key_pair: KeyPair | None = None,
    pulse: Pulse | None = None,
    finding: Finding | None = None,
    listen_nowhere: bool = False,
    relaying: Relaying | None = None,
) -> PeerNetwork:
    """A network on loopback that does not run yet, with an identity of its own unless given."""
    listen = () if listen_nowhere else listen or (LOOPBACK,)
    config = HostConfig(key_pair=key_pair or create_new_key_pair(), listen=listen)
    return PeerNetwork(config, pulse=pulse, finding=finding, clock=SystemClock(), relaying=relaying)


@asynccontextmanager
async def network_pair() -> AsyncIterator[tuple[Network, Network]]:
    """Two networks that can reach each other."""
    yield make_network(), make_network()


@asynccontextmanager
async def side(
    *listen: str, key_pair: KeyPair | None = None, pulse: Pulse | None = None, finding: Finding | None = None
) -> AsyncIterator[Side]:
    """A network that runs, and what it tells."""
    made = Side(make_network(*listen, key_pair=key_pair, pulse=pulse, finding=finding))
    async with made.running():
        yield made


def port_of(some_side: Side) -> str:
    """The address that a running network listens on, without its id, so that another can take the port over."""
    return some_side.address.partition("/p2p/")[0]
