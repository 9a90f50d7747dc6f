"""Requests about the node and its peers; every answer is checked against the description."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.gateways.http.node_control import Health
from node.interfaces import PeerInfo
from protocol import PeerAdvert, PeerId
from tests.node.gateways.http_node import OWN_ID, PEER_ADDRESS, PEER_ID, connected, serving


async def test_the_node_tells_who_it_is(tmp_path: Path) -> None:
    """Everything that another node needs to reach this one, and what it can do."""
    async with serving(tmp_path) as served, connected(served) as client:
        assert (await client.get("/v1/node")).json() == {
            "peer_id": OWN_ID,
            "addresses": [f"/ip4/127.0.0.1/tcp/4000/p2p/{OWN_ID}"],
            "agent": "peertask/test",
            "advert": {"kinds": ["echo", "mock"], "personas": [], "slots": 4, "load": 1},
            "started_at": 1_800_000_000_000,
            "started_at_iso": "2027-01-15T08:00:00.000Z",
            "relays": [{"peer_id": PEER_ID, "reserved": False, "last_error": "it is full"}],
        }


async def test_peers_come_and_go(tmp_path: Path) -> None:
    """Connecting, listing and leaving agree about who is there."""
    async with serving(tmp_path) as served, connected(served) as client:
        assert (await client.get("/v1/peers")).json() == {"peers": []}
        peer = (await client.post("/v1/peers", json={"address": PEER_ADDRESS})).json()
        assert (peer["peer_id"], peer["connected"], peer["advert"]) == (PEER_ID, True, None)
        assert (await client.get("/v1/peers")).json() == {"peers": [peer]}
        assert (await client.delete(f"/v1/peers/{PEER_ID}")).status_code == 204
        assert (await client.get("/v1/peers")).json() == {"peers": []}


async def test_a_peer_says_what_it_offers_and_why_it_is_away(tmp_path: Path) -> None:
    """Everything that the node knows about a peer is told."""
    async with serving(tmp_path) as served, connected(served) as client:
        away = PeerInfo(
            PeerId("12D3KooWAway"),
            connected=False,
            advert=PeerAdvert(kinds=("echo",), slots=2),
            latency_ms=1.5,
            last_error="no address answered",
        )
        served.node.known[away.peer_id] = away
        [peer] = (await client.get("/v1/peers")).json()["peers"]
        assert peer["advert"] == {"kinds": ["echo"], "personas": [], "slots": 2, "load": 0}
        assert (peer["latency_ms"], peer["last_error"]) == (1.5, "no address answered")


async def test_a_peer_that_does_not_answer_is_an_error_in_words(tmp_path: Path) -> None:
    """The error of the network goes through to the client, with what to do next."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.post("/v1/peers", json={"address": "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWAway"})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["remedy"]) == (
            502,
            "PEER_UNREACHABLE",
            "Check that the peer runs",
        )


@pytest.mark.parametrize("body", [{}, {"address": 4}, {"address": PEER_ADDRESS, "adress": "x"}, []])
async def test_a_malformed_request_for_a_peer_is_refused(tmp_path: Path, body: object) -> None:
    """A body that is not what the operation takes never reaches the network."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.post("/v1/peers", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "PROTOCOL")
        assert served.node.known == {}


@pytest.mark.parametrize(
    ("health", "status"),
    [(Health("ok"), 200), (Health("draining"), 503), (Health("failing", ("the store cannot be written",)), 503)],
)
async def test_health_is_also_the_status_of_the_answer(tmp_path: Path, health: Health, status: int) -> None:
    """A probe that looks at nothing but the status sees whether the node works."""
    async with serving(tmp_path) as served, connected(served) as client:
        served.node.status = health
        response = await client.get("/v1/health")
        assert response.status_code == status
        assert response.json() == {"status": health.status, "problems": list(health.problems)}


async def test_metrics_have_the_type_that_prometheus_asks_for(tmp_path: Path) -> None:
    """The text is passed on as it is."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.get("/metrics")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.text == served.node.metrics()
