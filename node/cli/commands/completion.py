"""``peertask completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    cls=DocumentedCommand,
    examples=[
        ('eval "$(peertask completion bash)"', "in ~/.bashrc"),
        ('eval "$(peertask completion zsh)"', "in ~/.zshrc"),
        ("peertask completion fish > ~/.config/fish/completions/peertask.fish", ""),
    ],
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> ExitCode:
    """Print the script that lets a shell complete the commands and options of peertask."""
    from node.cli.group import COMPLETION_VARIABLE, PROGRAM, peertask

    click.echo(SHELLS[shell](peertask, {}, PROGRAM, COMPLETION_VARIABLE).source())
    return ExitCode.OK
