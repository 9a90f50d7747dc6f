"""``peertask demo``: watch nodes send each other tasks."""

from __future__ import annotations

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import DEBUG

DEFAULT_NODES = 5
DEFAULT_TASKS = 200
# Keeps five nodes in motion for some seconds: long enough to watch, short enough to wait for.
DEFAULT_IN_FLIGHT = 4


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object, also the last line: `nodes`, `tasks`, `complete`, `failed`, `lost` (never ended), "
        "`duplicates` (results recorded beyond the first), `tasks_per_s`, `p50_ms`, `p99_ms`, `wall_s` (from "
        "the first task to the last end)."
    ),
    examples=[
        ("peertask demo", ""),
        ("peertask demo --nodes 8 --tasks 1000 --in-flight 16", ""),
        ("peertask demo --kill", ""),
        ("peertask demo --json | tail -1 | jq .tasks_per_s", ""),
    ],
)
@click.option(
    "--nodes", type=click.IntRange(1, 50), metavar="N", default=DEFAULT_NODES, show_default=True, help="How many nodes."
)
@click.option(
    "--tasks",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=DEFAULT_TASKS,
    show_default=True,
    help="How many tasks in all.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 50),
    metavar="N",
    default=DEFAULT_IN_FLIGHT,
    show_default=True,
    help="How many tasks each node has asked for at a time.",
)
@click.option("--kill", is_flag=True, help="Kill a node mid-way, and see that every task still completes.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
@DEBUG
def command(*, nodes: int, tasks: int, in_flight: int, kill: bool, as_json: bool, debug: bool) -> ExitCode:  # noqa: ARG001 - the entry reads --debug
    """Start several nodes on this machine, connect them, and let tasks flow between all of them.

    Each node is a process of its own, `peertask node`, and the tasks are mock tasks of 100 to 500 ms. The exit code is
    0 only when every task has exactly one result. No process and no file is left behind.
    """
    if kill and nodes == 1:
        raise click.UsageError("--kill needs a node that is left over: give --nodes 2 or more")
    from node.cli.demo.run import DemoOptions, run_demo
    from node.cli.running import run

    options = DemoOptions(nodes=nodes, tasks=tasks, in_flight=in_flight, kill=kill, as_json=as_json)

    async def work() -> ExitCode:
        return await run_demo(options)

    return run(work)
