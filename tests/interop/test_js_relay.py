"""Relays, nodes behind them and visitors of another make fit together."""

from __future__ import annotations

from pathlib import Path

from node import NodeConfig, open_node
from tests.interop.js_programs import NEEDS_NPM, ask, js_relay

pytestmark = NEEDS_NPM

NOWHERE = NodeConfig(listen=())


async def test_a_node_is_reached_through_a_js_relay(client_folder: Path) -> None:
    """It reserves there, and another node dials it."""
    async with (
        js_relay(client_folder) as relay,
        open_node(NodeConfig(listen=(), relays=(relay,))) as works,
        open_node(NOWHERE) as asks,
    ):
        assert works.addresses == (f"{relay}/p2p-circuit/p2p/{works.peer_id}",)
        assert (await asks.submit("hello", kind="echo", to=works.addresses[0])).result == "hello"


async def test_a_js_client_reaches_a_node_through_a_relay(client_folder: Path) -> None:
    """The client knows of relays what js-libp2p does."""
    async with (
        open_node(NodeConfig(relay_service=True)) as relay,
        open_node(NodeConfig(listen=(), relays=relay.addresses)) as works,
    ):
        *_, result = await ask(client_folder, works.addresses[0], "echo", "hello")
        assert (result["type"], result["result"]["result"]) == ("result", "hello")
