"""``peertask demo``: watch nodes send each other tasks."""

from __future__ import annotations

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import DEBUG

DEFAULT_NODES = 5
DEFAULT_TASKS = 200
# Some ten seconds, in which a dozen things happen to the nodes.
DEFAULT_CHAOS_TASKS = 600
# One is killed, one is disturbed, and one is left in peace.
CHAOS_NODES = 3
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
        ("peertask demo --chaos", "nodes are killed, frozen and cut off while they work"),
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
    help=f"How many tasks in all. [default: {DEFAULT_TASKS}, and {DEFAULT_CHAOS_TASKS} with --chaos]",
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
@click.option(
    "--chaos",
    is_flag=True,
    help="Kill, freeze and cut off nodes at random while they run graphs of tasks, and see that every task completes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON.")
@DEBUG
def command(
    *,
    nodes: int,
    tasks: int | None,
    in_flight: int,
    kill: bool,
    chaos: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - the entry reads it
) -> ExitCode:
    """Start several nodes on this machine, connect them, and let tasks flow between all of them.

    Each node is a process of its own, `peertask node`, and the tasks are mock tasks of 100 to 500 ms. The exit code is
    0 only when every task has exactly one result. No process and no file is left behind.
    """
    if kill and nodes == 1:
        raise click.UsageError("--kill needs a node that is left over: give --nodes 2 or more")
    if chaos and (kill or nodes < CHAOS_NODES):
        raise click.UsageError(f"--chaos kills nodes too, and needs --nodes {CHAOS_NODES} or more: leave --kill out")
    from node.cli.demo.run import DemoOptions, run_demo
    from node.cli.running import run

    tasks = tasks or (DEFAULT_CHAOS_TASKS if chaos else DEFAULT_TASKS)
    options = DemoOptions(nodes=nodes, tasks=tasks, in_flight=in_flight, kill=kill, chaos=chaos, as_json=as_json)

    async def work() -> ExitCode:
        return await run_demo(options)

    return run(work)
