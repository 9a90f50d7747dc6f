"""``peertask work``: do the tasks of another node, from wherever this machine is."""

from __future__ import annotations

from typing import Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, node_options
from node.cli.starting import exit_quietly_while_starting


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each event, as of [`peertask node`](#peertask-node); `ready` has `works_for` (a peer id), "
        "`slots`, `kinds` and `personas` besides."
    ),
    examples=[
        ("peertask work --for /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", ""),
        ("peertask work --for ADDRESS --slots 2 --kind mock", "two tasks at a time, and only of this kind"),
        ("peertask work --for ADDRESS --data worker", "beside a node that has the usual data folder"),
    ],
)
@click.option(
    "--for",
    "work_for",
    required=True,
    metavar="ADDRESS",
    help="Whose tasks to do: the address of a node, with /p2p/ID.",
)
@click.option(
    "--slots",
    "work_slots",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many tasks to take at once. [default: as many as there are processors]",
)
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only do tasks of this kind; may be repeated.")
@click.option("--persona", "personas", multiple=True, metavar="NAME", help="Who this node can act as; may be repeated.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: for programs that start workers.")
@node_options
def command(call: Invocation, *, until_eof: bool, **settings: Any) -> ExitCode:
    """Do the tasks of another node: connect to it, and ask it for work.

    Nobody needs to reach this machine, so it may be behind NAT. It takes tasks from that node alone, and connects again
    when the connection is lost. That node gives work only to workers that it knows: `peertask node --worker PEER`
    there names this one; `peertask id` here prints its peer id. SIGINT (Ctrl-C) or SIGTERM lets it finish what it
    executes, for 10 seconds at most, and end; a second one ends it at once.
    """
    exit_quietly_while_starting()
    from node.cli.serving import serve_node

    return serve_node(call, settings, temporary=False, until_eof=until_eof, defaults={"listen": ()})
