"""Puts the parts of this package to work for a node."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio
from libp2p.abc import INetConn

from node.net.host import HardenedHost
from node.net.relay.client import RelayClient
from node.net.relay.messages import HOP, STOP
from node.net.relay.reservations import Reservations
from node.net.relay.service import RelayService
from protocol import PeerId

FIRST_TRY_S: Final = 2.0
"""How long a node that starts waits for its relays, so that it can say at once where it is reached."""


def serve_as_relay(
    host: HardenedHost, users: frozenset[PeerId], addresses: Callable[[], Sequence[str]]
) -> Reservations[INetConn]:
    """Let peers be reached through a host, and return what it does for them at any time.

    Args:
        host: of the node.
        users: who may; everybody when there is none.
        addresses: tells where the host is reached itself, with its peer id.
    """
    nursery = host.get_network().nursery
    service = RelayService(host, nursery, addresses, users=users, epoch_s=time.time)
    host.set_stream_handler(HOP, service.serve)
    return service.reservations


async def be_reached_through_relays(
    host: HardenedHost, relays: Sequence[str], nursery: trio.Nursery, on_change: Callable[[], None], rng: random.Random
) -> RelayClient:
    """Reserve at relays from now on, and return who knows the addresses that come of it.

    Args:
        host: of the node.
        relays: their addresses, with ``/p2p/ID``.
        nursery: where the reservations are kept up.
        on_change: called when the addresses have changed.
        rng: spreads what is tried again.

    Raises:
        InvalidAddress: one of the addresses is not that of a relay.
    """
    client = RelayClient(host, host.get_network(), relays, on_change=on_change, epoch_s=time.time, rng=rng)
    host.set_stream_handler(STOP, client.accept)
    nursery.start_soon(client.run)
    with trio.move_on_after(FIRST_TRY_S):
        await client.wait_tried()
    return client
