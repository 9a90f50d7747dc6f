"""``peertask map``: have a task done for each line of a file."""

from __future__ import annotations

from typing import Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, node_options, task_options

# Keeps a few peers busy with tasks of some tenths of a second, and leaves room for others at a peer.
DEFAULT_CONCURRENCY = 64


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each line that ended, as it ends: `line` (from 1) and the fields of a "
        "[TaskResult](http.md#taskresult), or `line`, `task_id` and `failure`, a [Failure](http.md#failure)."
    ),
    examples=[
        ("peertask map --to 12D3KooW… prompts.txt > results.txt", ""),
        ("seq 1000 | peertask map --kind echo --concurrency 256 - --json > results.jsonl", ""),
    ],
)
@click.argument("source", metavar="FILE|-")
@task_options
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    metavar="N",
    help="How many tasks are asked for at once.",
)
@click.option("--fresh", is_flag=True, help="Ask for everything, also for what an interrupted map has already.")
@node_options
def command(call: Invocation, *, source: str, concurrency: int, fresh: bool, **options: Any) -> ExitCode:
    """Have a task done for each line of FILE, or of standard input; blank lines are left out.

    Results are printed in the order of the lines, and a line that failed leaves an empty one; with --json they are
    printed as they come, each with its line number.

    What keeps the tasks from starting is told on standard error, each reason once; with --json it is not.

    A map that was interrupted, or in which lines failed, goes on when the same command is given again: it prints what
    is there, and asks only for what is missing.
    """
    from node.cli.mapping import map_lines
    from node.cli.request import Request, read_lines
    from node.cli.running import run

    request = Request.of(**options)
    lines = read_lines(source)
    for number, line in enumerate(lines, 1):
        request.check(line, place=f"line {number} of {source}")

    async def work() -> ExitCode:
        return await map_lines(call, lines, request, concurrency=concurrency, fresh=fresh)

    return run(work)
