"""Dials peers for `peertask doctor`, with and without a running node, and tells what was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Final

import click
import trio

from node.cli.exit_codes import ExitCode
from node.cli.options import Invocation
from node.cli.settings import folder_of, load_settings
from node.cli.terminal import echo_json
from node.clock import SystemClock
from node.config import NodeConfig
from node.coordination.diagnosis import (
    Finding,
    Level,
    Need,
    Probe,
    explain_listening,
    explain_probe,
    explain_relay,
    explain_state,
    explain_unreachable,
)
from node.gateways.http.client import ControlClient
from node.gateways.http.folder import occupied
from node.gateways.http.response_models import NodeView, PeerView
from node.net.addresses import parse_endpoint, parse_peer_id
from node.net.probing import Prober, reach_of_address
from node.telemetry import configure_logging
from protocol import ErrorCode, PeerId, PeertaskError

# A dead address takes some ten seconds: a few dozen peers are done within a minute, and no firewall sees a scan.
DIALS_AT_ONCE: Final = 8

_MARKS: Final = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "red")}


class Doctor:
    """Examines peers.

    Args:
        call: the options of the command.
        kind: which kind the peers are to offer; None for none in particular.
    """

    def __init__(self, call: Invocation, kind: str | None) -> None:
        self._call = call
        self._kind = kind
        self._worst = ExitCode.OK

    def examine_all(self, targets: Sequence[str]) -> Callable[[], Awaitable[ExitCode]]:
        """Return the work: examine the node itself and some peers, or all that are known when none is named.

        Raises:
            PeertaskError: code INVALID_CONFIG or INVALID_ADDRESS.
        """

        async def work() -> ExitCode:
            config = load_settings(self._call, defaults={"log_level": "error"})
            configure_logging(config.log_level, config.log_format)
            with ExitStack() as stack:
                node, peers = await _ask_node(config)
                prober = _prober(config, stack, running=node is not None)
                own_id = node.peer_id if node is not None else prober.peer_id
                need = Need(own_id, self._kind, config.payload_bytes, known=node is None)
                self._examine_node(node)
                await self._examine_peers(_addresses_by_peer(targets, peers, config), peers, prober, need)
            return self._worst

        return work

    def _examine_node(self, node: NodeView | None) -> None:
        if node is None:
            text = "no node runs in the data folder: what is asked for now is whether peers can be reached from here"
            self._tell(Finding(Level.WARNING, "this node", text, "Start one with `peertask node`"))
            return
        direct = (address for address in node.addresses if not parse_endpoint(address).relay_id)
        reaches = filter(None, map(reach_of_address, direct))
        self._tell_all(explain_listening(reaches, sum(relay.reserved for relay in node.relays)))
        for relay in node.relays:
            self._tell(explain_relay(relay.peer_id, reserved=relay.reserved, error=relay.last_error))

    async def _examine_peers(
        self, addresses: dict[str, tuple[str, ...]], peers: dict[str, PeerView], prober: Prober, need: Need
    ) -> None:
        if not addresses:
            text = "no peer is known"
            remedy = "Give an address, or `peertask peers --connect ADDRESS`; a peer prints its address when it starts"
            self._tell(Finding(Level.PROBLEM, "this node", text, remedy))
        limiter = trio.CapacityLimiter(DIALS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for name, where in addresses.items():
                nursery.start_soon(self._examine, name, where, peers.get(name), prober, need, limiter)

    async def _examine(
        self,
        name: str,
        addresses: tuple[str, ...],
        peer: PeerView | None,
        prober: Prober,
        need: Need,
        limiter: trio.CapacityLimiter,
    ) -> None:
        probes: list[Probe] = []

        async def dial(address: str) -> None:
            async with limiter:
                probes.append(await prober.probe(address))

        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(dial, address)
        reached = any(one.introduction for one in probes)
        for one in sorted(probes, key=lambda one: addresses.index(one.address)):
            self._tell_probe(one, need, spare=reached)
        self._tell_all(explain_unreachable(name, probes))
        if peer is not None:
            self._tell_all(explain_state(name, connected=peer.connected, reached=reached, last_error=peer.last_error))

    def _tell_probe(self, one: Probe, need: Need, *, spare: bool) -> None:
        """Tell of an address; one of a peer that another address leads to is no more than a warning."""
        first, *others = explain_probe(one, need)
        if spare and first.level is Level.PROBLEM:
            first = Finding(Level.WARNING, first.about, first.text, first.remedy)
        self._tell(first, one)
        self._tell_all(others)

    def _tell_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._tell(finding)

    def _tell(self, finding: Finding, dialled: Probe | None = None) -> None:
        if finding.level is Level.PROBLEM:
            self._worst = ExitCode.FAILED
        if self._call.as_json:
            symptom = dialled.symptom.value if dialled is not None else None
            elapsed_ms = round(dialled.elapsed_ms) if dialled is not None else None
            echo_json({**asdict(finding), "symptom": symptom, "elapsed_ms": elapsed_ms})
            return
        word, colour = _MARKS[finding.level]
        click.echo(f"{click.style(word, fg=colour)}  {finding.about}\n    {finding.text}")
        if finding.remedy:
            click.echo(f"    → {finding.remedy}")


async def _ask_node(config: NodeConfig) -> tuple[NodeView | None, dict[str, PeerView]]:
    """Return what a running node says of itself and of its peers; nothing when none runs."""
    client = ControlClient(folder_of(config))
    try:
        node = await client.info()
    except PeertaskError as error:
        if error.code is not ErrorCode.NODE_UNAVAILABLE:
            raise
        return None, {}
    return node, {peer.peer_id: peer for peer in await client.peers()}


def _prober(config: NodeConfig, stack: ExitStack, *, running: bool) -> Prober:
    """Return who dials: the node of the data folder unless that runs, for then its sessions would be replaced."""
    if running:
        return Prober(SystemClock())
    stack.enter_context(occupied(folder_of(config)))
    return Prober(SystemClock(), folder_of(config))


def _addresses_by_peer(
    targets: Sequence[str], peers: dict[str, PeerView], config: NodeConfig
) -> dict[str, tuple[str, ...]]:
    """Return what to dial: the addresses of each peer that is meant."""
    if not targets:  # a visitor that is gone and left no address is no peer that anybody misses
        targets = [name for name, peer in peers.items() if peer.addresses or peer.connected]
        targets += () if peers else config.peers + config.bootstrap + config.rendezvous_at + config.relays
    found: dict[str, tuple[str, ...]] = {}
    for target in targets:
        if target.startswith("/"):
            name = parse_endpoint(target).peer_id or target
            found[name] = (*found.get(name, ()), target)
        else:
            peer_id = PeerId(parse_peer_id(target))
            found[peer_id] = peers[peer_id].addresses if peer_id in peers else ()
    return found
