"""``peertask peers``: the peers that a node knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import PeerView


@click.command(
    cls=DocumentedCommand,
    json_output="One [PeerView](http.md#peerview) for each peer.",
    examples=[
        ("peertask peers", ""),
        ("peertask peers --connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", ""),
        ("peertask peers --json | jq 'select(.connected) | .peer_id'", ""),
    ],
)
@click.option("--connect", multiple=True, metavar="ADDRESS", help="Connect to a peer first, and stay connected to it.")
@click.option("--disconnect", multiple=True, metavar="PEER", help="First end the session with a peer, and let it be.")
@client_options
def command(call: Invocation, *, connect: tuple[str, ...], disconnect: tuple[str, ...]) -> ExitCode:
    """List the peers that the node of the data folder knows, the connected ones first."""
    from node.cli.local import ask_local_node

    async def question(client: ControlClient) -> ExitCode:
        for address in connect:
            await client.connect(address)
        for peer_id in disconnect:
            await client.disconnect(peer_id)
        _tell(await client.peers(), as_json=call.as_json)
        return ExitCode.OK

    return ask_local_node(call, question)


def _tell(peers: tuple[PeerView, ...], *, as_json: bool) -> None:
    from node.cli.terminal import echo_models, echo_table

    if as_json:
        echo_models(peers)
        return
    columns = ("PEER", "STATE", "LATENCY", "KINDS", "LOAD", "ADDRESS", "KNOWN FROM", "LAST ERROR")
    echo_table(columns, map(_row, peers), empty="No peers are known; connect to one with --connect.")


def _row(peer: PeerView) -> tuple[str, ...]:
    advert = peer.advert
    return (
        peer.peer_id,
        "connected" if peer.connected else "told of" if peer.hearsay else "away",
        f"{peer.latency_ms:.1f} ms" if peer.latency_ms is not None else "–",
        ", ".join(advert.kinds) if advert else "–",
        f"{advert.load}/{advert.slots}" if advert else "–",
        _address(peer),
        _origin(peer),
        peer.last_error,
    )


def _address(peer: PeerView) -> str:
    """Return where a peer is, without any peer id; of one that is connected through a relay, where that one is."""
    from node.cli.terminal import short_peer

    through = [address for address in peer.addresses if peer.relay and f"/p2p/{peer.relay}/p2p-circuit" in address]
    if peer.relay and not through:
        return f"relay {short_peer(peer.relay)}"
    shown = [*through, *peer.addresses]
    return re.sub("/p2p/[^/]+", "", shown[0]) if shown else "–"


def _origin(peer: PeerView) -> str:
    from node.cli.terminal import short_peer

    if peer.source not in {"peer", "rendezvous"}:
        return peer.source.value
    return f"{peer.source} {', '.join(map(short_peer, peer.via))}".rstrip()
