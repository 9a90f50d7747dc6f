"""Requests about the node and its peers."""

from __future__ import annotations

from node.gateways.http.gateway import Call, Gateway, Reply
from node.gateways.http.response_models import HealthView, NodeView, PeerList, PeerView
from node.interfaces import PeerInfo
from protocol import PeerId

_OK, _NO_CONTENT, _UNAVAILABLE = 200, 204, 503


async def show_node(gateway: Gateway, _call: Call) -> Reply:
    """Return what the node says about itself."""
    return Reply(NodeView.of(gateway.node.info()))


async def show_health(gateway: Gateway, _call: Call) -> Reply:
    """Return whether the node does its work."""
    health = gateway.node.health()
    return Reply(HealthView.of(health), _OK if health.status == "ok" else _UNAVAILABLE)


async def show_metrics(gateway: Gateway, _call: Call) -> Reply:
    """Return the metrics for Prometheus."""
    return Reply(gateway.node.metrics())


async def list_peers(gateway: Gateway, _call: Call) -> Reply:
    """Return every known peer."""
    return Reply(PeerList.of(gateway.node.peers()))


async def connect(gateway: Gateway, call: Call) -> Reply:
    """Open a session with a peer and keep it."""
    peer_id = await gateway.node.connect(call.body.address)
    found = [peer for peer in gateway.node.peers() if peer.peer_id == peer_id]
    return Reply(PeerView.of(found[0] if found else PeerInfo(peer_id, connected=False)))


async def disconnect(gateway: Gateway, call: Call) -> Reply:
    """End the session with a peer and do not dial it again."""
    await gateway.node.disconnect(PeerId(call.path["peer_id"]))
    return Reply(None, _NO_CONTENT)
