"""``peertask node``: run a node until it is told to stop."""

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
        'One object for each event. The first is `{"event": "ready"}` with `peer_id`, `addresses` (each with '
        "`/p2p/ID`), `control` (the path of its socket), `http` (a URL or null), `data` and `pid`; then come "
        "`draining` with `reason`, and `stopped`."
    ),
    examples=[
        ("peertask node", ""),
        ("peertask node --listen /ip4/0.0.0.0/tcp/4001", "reachable from other machines"),
        ("peertask node --peer /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", ""),
        (
            "peertask node --rendezvous-at /dns4/meet.example/tcp/4001/p2p/12D3KooW…",
            "find others that registered there",
        ),
        (
            "peertask node --relay /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…",
            "behind NAT: others reach it through that relay",
        ),
        ("peertask node --listen /ip4/0.0.0.0/tcp/4001 --relay-service", "be a relay for others"),
        ("peertask node --allow summarise=12D3KooW…", "let a peer use a closed kind"),
        ("peertask node --persona reviewer --persona writer", "take the tasks that name these personas too"),
        ("peertask node --json", "for programs: the first line says where it answers"),
    ],
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Where to listen; may be given several times. [default: /ip4/127.0.0.1/tcp/0: this machine only, a free port]",
)
@click.option("--peer", "peers", multiple=True, metavar="ADDRESS", help="A peer to stay connected to, with /p2p/ID.")
@click.option(
    "--share-peers/--no-share-peers",
    default=None,
    help="Tell peers of each other, and take note of those that they tell of. [default: share]",
)
@click.option("--mdns", is_flag=True, default=None, help="Find nodes on the local network, and be found there.")
@click.option("--rendezvous", is_flag=True, default=None, help="Let peers register here, so that others find them.")
@click.option(
    "--rendezvous-at",
    multiple=True,
    metavar="ADDRESS",
    help="Register at this node, which has --rendezvous, and ask it who else has.",
)
@click.option(
    "--relay",
    "relays",
    multiple=True,
    metavar="ADDRESS",
    help="Be reached through this relay, which has --relay-service: for a node that nobody can dial.",
)
@click.option(
    "--relay-service", is_flag=True, default=None, help="Let peers that nobody can dial be reached through this node."
)
@click.option("--relay-for", multiple=True, metavar="PEER", help="Only this peer may be reached so; may be repeated.")
@click.option(
    "--allow",
    multiple=True,
    metavar="[KIND=]PEER",
    help="A peer that may use the closed kinds, or one of them; mock and echo are open to all.",
)
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="PEER",
    help="A peer that may do tasks of this node that did not name it, as `peertask work` asks for; may be repeated.",
)
@click.option(
    "--store",
    type=click.Choice(["sqlite", "files", "redis", "memory"]),
    help="Where tasks are kept. [default: sqlite, in the data folder]",
)
@click.option(
    "--audit/--no-audit",
    default=None,
    help="Whether to keep the log that `peertask audit` reads, in the data folder. [default: audit]",
)
@click.option("--persona", "personas", multiple=True, metavar="NAME", help="A persona whose tasks it takes.")
@click.option(
    "--coordination/--no-coordination",
    default=None,
    help="Whether tasks go to workers by persona; without, the node does what it is given. [default: --coordination]",
)
@click.option("--http", metavar="HOST:PORT", help="Speak HTTP on loopback too, with the token in the data folder.")
@click.option("--temporary", is_flag=True, help="Make the data folder, and remove it at the end.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: for programs that start nodes.")
@node_options
def command(call: Invocation, *, temporary: bool, until_eof: bool, **settings: Any) -> ExitCode:
    """Run a node: it lets its peers use what it can do, and has tasks done for the programs of this machine.

    It prints its addresses when it is ready. SIGINT (Ctrl-C), SIGTERM or the end of its terminal lets it finish what it
    executes, for 10 seconds at most, and end; a second one ends it at once. With `nohup` it outlives its terminal.
    """
    exit_quietly_while_starting()
    from node.cli.serving import serve_node

    return serve_node(call, settings, temporary=temporary, until_eof=until_eof)
