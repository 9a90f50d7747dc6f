"""Runs a node as a process of its own: ready, draining, stopped.

What can be refused is refused before the node is imported, which takes longer than everything else.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from node.background import open_background
from node.cli.exit_codes import ExitCode
from node.cli.options import Invocation
from node.cli.running import exit_at_once, signals_of_a_node
from node.cli.settings import folder_of, load_settings
from node.cli.terminal import forget_stdout
from node.config import NodeConfig
from node.coordination.quotas import EVERY_KIND
from node.gateways.http.folder import find_control, occupied
from protocol import ErrorCode, PeertaskError

if TYPE_CHECKING:
    from node.app import Node
    from node.gateways.offering import Offering

_TEMPORARY_PREFIX = "peertask-node-"


def serve_node(
    call: Invocation,
    settings: Mapping[str, Any],
    *,
    temporary: bool,
    until_eof: bool,
    defaults: Mapping[str, object] | None = None,
) -> ExitCode:
    """Run a node until a signal, or the end of standard input, stops it, or nobody wants its work.

    Args:
        call: the options that all commands have.
        settings: the other settings of the node that were given on the command line.
        temporary: whether its data folder is a fresh one that ends with it.
        until_eof: whether it stops when standard input ends.
        defaults: settings that hold where nobody says otherwise.

    Raises:
        PeertaskError: code INVALID_CONFIG; also when another node runs in the data folder. What the node that this one
            works for has declined its offer with.
    """
    with _data_folder(call, temporary=temporary) as placed:
        usual = {"store": "sqlite", "audit": True, **_log_format(placed), **(defaults or {})}
        config = load_settings(placed, defaults=usual, **_overrides(settings))
        with occupied(folder_of(config)):
            pass  # another node that has the folder is told of now; the node itself occupies it for good
        importlib.import_module("node.app")  # seconds, in which a signal shall still end the program in no time
        trio.run(_serve, config, call.as_json, until_eof)
    return ExitCode.OK


@contextmanager
def _data_folder(call: Invocation, *, temporary: bool) -> Iterator[Invocation]:
    if not temporary:
        yield call
        return
    folder = _make_folder(call.data)
    try:
        yield replace(call, data=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX))
    try:
        wanted.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise click.UsageError(
            f"--temporary cannot make the data folder {wanted}, which it would remove at the end: {error.strerror}"
        ) from error
    return wanted


def _log_format(call: Invocation) -> dict[str, object]:
    return {"log_format": "json"} if call.as_json else {}


def _overrides(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings that were given; an option that was not must not hide the configuration file."""
    given = {name: value for name, value in settings.items() if value not in {None, ()}}
    if "allow" in given:
        given["allow"] = _peers_by_kind(given["allow"])
    return given


def _peers_by_kind(texts: Iterable[str]) -> dict[str, list[str]]:
    peers: dict[str, list[str]] = {}
    for text in texts:
        kind, equals, peer_id = text.rpartition("=")
        peers.setdefault(kind if equals else EVERY_KIND, []).append(peer_id)
    return peers


async def _serve(config: NodeConfig, as_json: bool, until_eof: bool) -> None:
    from node.app import open_node
    from node.collector import tune_collector
    from node.telemetry import configure_logging

    configure_logging(config.log_level, config.log_format)
    _warn_of_tasks_elsewhere(config)
    with trio.open_signal_receiver(*signals_of_a_node()) as signals:
        async with open_node(config) as node, open_background() as nursery:
            tune_collector()
            _check_kinds(node)
            _tell_ready(node, as_json)
            why = await _asked_to_stop(signals, until_eof, node.offering)
            nursery.start_soon(_exit_on_signal, signals)
            _tell("draining", f"{why}: finishing what runs, for {config.drain_s:g} s at most", as_json, reason=why)
            await node.drain()
    _tell("stopped", "stopped", as_json)
    if node.offering is not None and node.offering.refusal is not None:
        raise node.offering.refusal


def _check_kinds(node: Node) -> None:
    missing = sorted(set(node.config.kinds) - set(node.kinds))
    if missing:
        raise PeertaskError(
            f"this node has no executor for kind {missing[0]!r}",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Name a kind that it has, or none for all of them",
        )


def _warn_of_tasks_elsewhere(config: NodeConfig) -> None:
    import structlog

    from node.storage import left_behind

    place = left_behind(config)
    if place is not None:
        structlog.get_logger(__name__).warning(
            "the data folder has tasks that this node does not see, because they are in another kind of store",
            store=config.store,
            other=str(place),
            remedy="Name that store with --store, or carry them over with `peertask store export` and `import`",
        )


async def _asked_to_stop(signals: AsyncIterator[int], until_eof: bool, offering: Offering | None) -> str:
    """Return why the node shall stop."""
    reasons: list[str] = []
    async with trio.open_nursery() as nursery:

        async def await_signal() -> None:
            reasons.append(signal.Signals(await anext(signals)).name)
            nursery.cancel_scope.cancel()

        async def await_eof() -> None:
            await _end_of_stdin()
            reasons.append("end of input")
            nursery.cancel_scope.cancel()

        async def await_decline(offering: Offering) -> None:
            await offering.declined()
            reasons.append("the offer was declined")
            nursery.cancel_scope.cancel()

        nursery.start_soon(await_signal)
        if until_eof:
            nursery.start_soon(await_eof)
        if offering is not None:
            nursery.start_soon(await_decline, offering)
    return reasons[0]


async def _end_of_stdin() -> None:
    stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    while await stdin.receive_some():
        pass


async def _exit_on_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        exit_at_once(number)


def _tell_ready(node: Node, as_json: bool) -> None:
    folder = folder_of(node.config)
    control = find_control(folder)
    facts = {
        "peer_id": node.peer_id,
        "addresses": list(node.addresses),
        "control": control.socket,
        "http": control.url,
        "data": str(folder),
        "pid": control.pid,
        **_terms(node),
    }
    _tell("ready", _introduction(node, folder, control.url), as_json, **facts)


def _terms(node: Node) -> dict[str, object]:
    """Return what a node that works for another offers it."""
    if node.offering is None:
        return {}
    config = node.config
    return {
        "works_for": node.offering.owner,
        "slots": config.in_flight,
        "kinds": list(node.kinds),
        "personas": list(config.personas),
    }


def _introduction(node: Node, folder: Path, url: str | None) -> str:
    lines = [f"peer id   {node.peer_id}"]
    lines += [f"address   {address}" for address in node.addresses]
    lines += [f"data      {folder}"]
    lines += [f"http      {url}"] if url else []
    lines += [f"kinds     {', '.join(node.kinds)}"]
    lines += [f"personas  {', '.join(node.config.personas)}"] if node.config.personas else []
    if node.offering is not None:
        return "\n".join([*lines, f"works for {node.offering.owner}, {node.config.in_flight} tasks at a time"])
    lines.append("")
    if node.addresses:
        lines += ["From another terminal:", f"  peertask send --to {node.addresses[0]} 'Hello'"]
    return "\n".join(lines)


def _tell(event: str, text: str, as_json: bool, **facts: object) -> None:
    """Tell whoever started the node; that nobody listens any more must not stop it."""
    try:
        click.echo(json.dumps({"event": event, **facts}) if as_json else text)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
