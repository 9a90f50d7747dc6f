"""What `peertask peers` shows of where a peer is."""

from __future__ import annotations

import pytest

from node.cli.commands.peers import _address
from node.gateways.http.response_models import PeerView
from node.interfaces import PeerInfo
from protocol import PeerId

PEER, RELAY = PeerId("12D3KooWPeer"), PeerId("12D3KooWRelay")
STRAIGHT = f"/ip4/192.0.2.9/tcp/4001/p2p/{PEER}"
THROUGH = f"/ip4/192.0.2.7/tcp/4001/p2p/{RELAY}/p2p-circuit/p2p/{PEER}"


@pytest.mark.parametrize(
    ("addresses", "relay", "shown"),
    [
        ((), None, "–"),
        ((STRAIGHT, THROUGH), None, "/ip4/192.0.2.9/tcp/4001"),
        ((THROUGH,), None, "/ip4/192.0.2.7/tcp/4001/p2p-circuit"),
        ((STRAIGHT, THROUGH), RELAY, "/ip4/192.0.2.7/tcp/4001/p2p-circuit"),
        ((STRAIGHT,), RELAY, "relay …ooWRelay"),
    ],
)
def test_a_session_through_a_relay_is_seen_from_its_address(
    addresses: tuple[str, ...], relay: PeerId | None, shown: str
) -> None:
    """Of several addresses that one which the session goes over; ids are in a column of their own."""
    info = PeerInfo(PEER, connected=relay is not None, addresses=addresses, relay=relay)
    assert _address(PeerView.of(info)) == shown
