"""``peertask submit``: have a graph of tasks done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.cli.map_progress import MapProgress
    from node.coordination.naming import NamedGraph
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import TaskView


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object for each task, with its `name` and `task_id`; with `--wait` one as each ends, with `status` too, "
        "and the `result` or the `failure`, a [Failure](http.md#failure)."
    ),
    examples=[
        ("peertask submit graph.toml", "print the id of each task, and leave"),
        ("peertask submit graph.json --wait", "tell how each ends"),
        ("peertask submit graph.toml --wait --json | jq -r 'select(.name == \"report\") | .result'", ""),
        ("planner | peertask submit -", "JSON or TOML on standard input"),
    ],
)
@click.argument("source", metavar="FILE|-")
@click.option("--wait", is_flag=True, help="Wait for the end of all tasks, and tell how each ended.")
@client_options
def command(call: Invocation, *, source: str, wait: bool) -> ExitCode:
    """Have tasks done that depend on each other, as FILE says in JSON or TOML; see docs/reference/graph-file.md.

    The node that runs in the data folder takes all of them in, or none. They go on when this command ends, also when
    Ctrl-C ends the waiting; `peertask cancel` stops them.

    With --wait the exit code is 1 when a task ended without a result, and what keeps tasks from starting is told on
    standard error, each reason once; with --json it is not.
    """
    from node.cli.graph_file import read_graph
    from node.cli.local import ask_local_node

    graph = read_graph(source)

    async def question(client: ControlClient) -> ExitCode:
        if wait:
            return await _submit_and_wait(client, graph, as_json=call.as_json)
        await client.submit_graph(graph.tasks)
        _tell_ids(graph, as_json=call.as_json)
        return ExitCode.OK

    return ask_local_node(call, question)


def _tell_ids(graph: NamedGraph, *, as_json: bool) -> None:
    from node.cli.terminal import echo_json, echo_table

    if not as_json:
        echo_table(("NAME", "TASK"), graph.ids.items(), empty="No tasks.")
        return
    for name, task_id in graph.ids.items():
        echo_json({"name": name, "task_id": task_id})


async def _submit_and_wait(client: ControlClient, graph: NamedGraph, *, as_json: bool) -> ExitCode:
    from node.cli.graph_watch import GraphWatch
    from node.cli.map_progress import MapProgress, show_progress
    from node.cli.waiting import telling_what_is_waited_for

    progress = MapProgress(len(graph.ids), name="graph")

    watch = GraphWatch(client, graph, _teller(progress, as_json=as_json))
    async with (
        show_progress(progress, quiet=as_json),
        telling_what_is_waited_for(watch.look_for_hindrances, quiet=as_json),
    ):
        await watch.run()
    if progress.failed and not as_json:
        click.echo(f"{progress.failed:,} of {progress.total:,} tasks ended without a result", err=True)
    return ExitCode.FAILED if progress.failed else ExitCode.OK


def _teller(progress: MapProgress, *, as_json: bool) -> Callable[[str, TaskView], None]:
    from node.cli.terminal import echo_json

    def tell(name: str, task: TaskView) -> None:
        progress.complete += task.result is not None
        progress.failed += task.result is None
        if as_json:
            echo_json(_shape(name, task))
        else:
            click.echo("\t".join((name, task.status.value, _outcome(task))))

    return tell


def _shape(name: str, task: TaskView) -> dict[str, object]:
    shape: dict[str, object] = {"name": name, "task_id": task.id, "status": task.status.value}
    if task.result is not None:
        return {**shape, "result": task.result.result}
    return {**shape, "failure": task.failure and task.failure.to_dict()}


def _outcome(task: TaskView) -> str:
    from node.cli.terminal import short_text

    if task.result is not None:
        return short_text(task.result.result)
    return "" if task.failure is None else short_text(f"{task.failure.code.value}: {task.failure.message}")
