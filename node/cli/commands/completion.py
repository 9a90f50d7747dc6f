"""``peertask completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PEERTASK_COMPLETE"
"""Where click looks for a request to complete; it follows from the name of the program."""


@click.command(
    cls=DocumentedCommand,
    examples=[
        ('eval "$(peertask completion bash)"', "in ~/.bashrc"),
        ('eval "$(peertask completion zsh)"', "in ~/.zshrc"),
        ("peertask completion fish > ~/.config/fish/completions/peertask.fish", ""),
    ],
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> ExitCode:
    """Print the script that lets a shell complete the commands and options of peertask."""
    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"click cannot complete for {shell}")
    click.echo(completion(context.find_root().command, {}, "peertask", VARIABLE).source())
    return ExitCode.OK
