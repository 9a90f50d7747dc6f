"""``peertask id``: who the node of a data folder is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    cls=DocumentedCommand,
    json_output="One object: `peer_id`, `addresses` (null when no node runs), `data`, `running`.",
    examples=[
        ("peertask id", ""),
        ("peertask id --json | jq -r '.addresses[0]'", ""),
    ],
)
@client_options
def command(call: Invocation) -> ExitCode:
    """Print the peer id of the data folder, and where its node answers if one runs; a new folder gets an identity.

    The first line is the peer id, which is what `peertask node --allow` of another machine wants.
    """
    from node.cli.running import run
    from node.cli.settings import data_folder

    folder = data_folder(call)

    async def work() -> ExitCode:
        return await _identify(folder, as_json=call.as_json)

    return run(work)


async def _identify(folder: Path, *, as_json: bool) -> ExitCode:
    from node.cli.terminal import echo_json

    peer_id, addresses = await _ask(folder)
    if as_json:
        echo_json({"peer_id": peer_id, "addresses": addresses, "data": str(folder), "running": addresses is not None})
    else:
        click.echo("\n".join([peer_id, *(addresses or [])]))
    return ExitCode.OK


async def _ask(folder: Path) -> tuple[str, list[str] | None]:
    from node.gateways.http.client import ControlClient
    from protocol import ErrorCode, PeertaskError

    try:
        node = await ControlClient(folder).info()
    except PeertaskError as error:
        if error.code is not ErrorCode.NODE_UNAVAILABLE:
            raise
        return _read_identity(folder), None
    return node.peer_id, list(node.addresses)


def _read_identity(folder: Path) -> str:
    from node.net.identity import load_or_create_identity, peer_id_of

    return peer_id_of(load_or_create_identity(folder))
