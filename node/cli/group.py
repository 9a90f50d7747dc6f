"""The command ``peertask`` itself: knows the names of its commands, and imports one when it is needed."""

from __future__ import annotations

import importlib
from typing import Final

import click
from click.exceptions import NoSuchCommand

COMMANDS: Final = (
    "demo",
    "node",
    "send",
    "map",
    "list",
    "show",
    "watch",
    "cancel",
    "peers",
    "id",
    "bench",
    "completion",
)
"""In the order in which people meet them; each is ``node.cli.commands.<name>.command``."""


class LazyGroup(click.Group):
    """A group whose commands are modules of `node.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click asks for it
        """Return the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import a command; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"node.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or say which is meant."""
        typed = args[0]
        if typed not in COMMANDS and not typed.startswith("-") and not ctx.resilient_parsing:
            raise NoSuchCommand(typed, possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Every command explains itself with --help, and speaks JSON with --json.",
)
@click.version_option(package_name="peertask", message="%(prog)s %(version)s")
def peertask() -> None:
    r"""Run tasks on the machines of peers that you trust, without a broker between them.

    \b
      peertask demo                            watch five nodes send each other tasks
      peertask node                            run a node; it prints its address
      peertask send --to ADDRESS "a prompt"    let that node do a task
    """
