"""Visits to a host behind a relay, and those that come to nothing."""

from __future__ import annotations

import pytest
import trio
from libp2p.abc import IMuxedConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.transport.upgrader import TransportUpgrader

from node.net.errors import CircuitFailed
from node.net.host import HardenedHost, dial
from node.net.identity import peer_id_of
from node.net.relay import streams as relay_streams
from node.net.streams import ByteStream
from tests.integration.foreign_peers import YAMUX_ONLY, noise_only

LIMIT_S = 30.0
NOBODY = peer_id_of(create_new_key_pair())


async def refusal(visitor: HardenedHost, address: str) -> CircuitFailed:
    """Why an address that leads through a relay leads nowhere."""
    with pytest.raises(CircuitFailed) as caught, trio.fail_after(LIMIT_S):
        await dial(visitor, [address])
    assert caught.value.remedy
    return caught.value


async def come_as(key_pair: KeyPair, stream: relay_streams.CancellableStream, wanted: ID) -> IMuxedConn:
    """Shake hands with a host over a circuit."""
    raw = RawConnection(ByteStream(stream, None), initiator=True)
    upgrader = TransportUpgrader(noise_only(key_pair), YAMUX_ONLY)
    secured = await upgrader.upgrade_security(raw, is_initiator=True, peer_id=wanted)
    return await upgrader.upgrade_connection(secured, secured.get_remote_peer())
