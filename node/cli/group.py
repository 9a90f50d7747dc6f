"""The command ``peertask`` itself: knows the names of its commands, and imports one when it is needed."""

from __future__ import annotations

import importlib
from typing import Final

import click
from click.exceptions import NoSuchCommand

from node.cli.help import write_examples

PROGRAM: Final = "peertask"
COMPLETION_VARIABLE: Final = "_PEERTASK_COMPLETE"
"""Set by the script of `peertask completion` when the shell asks what may follow."""
COMMANDS: Final = {
    "demo": "Watch several nodes on this machine send each other tasks.",
    "node": "Run a node.",
    "work": "Do the tasks of another node.",
    "send": "Have a task done, and print its result.",
    "map": "Have a task done for each line of a file.",
    "submit": "Have tasks done that depend on each other.",
    "list": "List the tasks that a node knows.",
    "show": "Show one task and what has come of it.",
    "explain": "Tell why a task is where it is.",
    "watch": "Watch what happens to tasks.",
    "cancel": "Stop tasks.",
    "verify": "Check the receipt of a task without asking anybody.",
    "audit": "Read and check the log of what a node has done.",
    "retry": "Have tasks done again that failed or were cancelled.",
    "personas": "List and define who may be asked to do tasks.",
    "peers": "List the peers of a node, connect and disconnect them.",
    "doctor": "Find out why peers do not see each other.",
    "agents": "List the workers of other programs that claim tasks from a node.",
    "store": "Look after the tasks that a node keeps: check, move, tidy.",
    "id": "Print the peer id of a data folder.",
    "bench": "Measure peertask on this machine.",
    "simulate": "Let everything go wrong with many nodes, and check what is promised.",
    "completion": "Print what a shell needs to complete commands.",
}
"""What each command does, in the order in which people meet them; each is ``node.cli.commands.<name>.command``."""


EXAMPLES: Final = (
    ("peertask demo", "five nodes that send each other tasks"),
    ("peertask node", "run a node; it prints its address"),
    ("peertask send --to ADDRESS 'What is a monad?'", "let that node do a task"),
)


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write what to begin with."""
        write_examples(EXAMPLES, formatter)

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
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="peertask", message="%(prog)s %(version)s")
@click.pass_context
def peertask(context: click.Context) -> None:
    """Run tasks on the machines of peers that you trust, without a broker between them.

    Every command explains itself with --help, and speaks JSON with --json.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
