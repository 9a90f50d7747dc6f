"""``peertask doctor``: why peers do not see each other."""

from __future__ import annotations

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each finding: `level` (`ok`, `warning` or `problem`), `about` (an address, a peer, or "
        "`this node`), `text`, and `remedy` (empty when nothing is to be done). For an address that was dialled also "
        "`symptom` (`reached`, `malformed`, `name unknown`, `no route`, `refused`, `timed out`, `closed`, "
        "`not libp2p`, `wrong peer`, `itself`, `incompatible`, `no session`; through a relay also `relay unreachable`, "
        "`no relay`, `no reservation`, `relay refuses`, `relay full`, `peer silent` or `relay broken`) and "
        "`elapsed_ms`; else both are null."
    ),
    examples=[
        ("peertask doctor", "dial every peer that is known"),
        ("peertask doctor 12D3KooW…", "why this peer is away"),
        ("peertask doctor /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", "before it is a peer"),
        ("peertask doctor --kind summarise 12D3KooW…", "whether it lets this node use a kind"),
    ],
)
@click.argument("targets", nargs=-1, metavar="[PEER|ADDRESS]...")
@click.option("--kind", metavar="KIND", help="Check that the peers offer this kind to this node.")
@client_options
def command(call: Invocation, *, targets: tuple[str, ...], kind: str | None) -> ExitCode:
    """Dial peers, and say in words what stands in the way and what to do.

    Each address is dialled from this machine, as a stranger while the node of the data folder runs, else as that node.
    Without arguments all known peers are dialled: those of the running node, or else of the settings. The exit code is
    1 when a problem was found.
    """
    from node.cli.diagnosing import Doctor
    from node.cli.running import run

    return run(Doctor(call, kind).examine_all(targets))
