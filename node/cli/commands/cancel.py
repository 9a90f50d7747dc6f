"""``peertask cancel``: stop tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from protocol import TaskId


@click.command(
    cls=DocumentedCommand,
    json_output="One [TaskView](http.md#taskview) for each task.",
    examples=[
        ("peertask cancel 3f2b6c1e-…", ""),
        ("peertask list --status executing --json | jq -r .id | xargs peertask cancel", ""),
    ],
)
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@client_options
def command(call: Invocation, *, tasks: tuple[str, ...]) -> ExitCode:
    """Ask the node of the data folder to stop tasks, wherever they run; one that has ended stays as it is."""
    from node.cli.local import ask_local_node
    from protocol import parse_task_id

    task_ids = [parse_task_id(task) for task in tasks]

    async def question(client: ControlClient) -> ExitCode:
        return await _cancel(client, task_ids, as_json=call.as_json)

    return ask_local_node(call, question)


async def _cancel(client: ControlClient, task_ids: list[TaskId], *, as_json: bool) -> ExitCode:
    from node.cli.reporting import report_error
    from protocol import ErrorCode, PeertaskError

    worst = ExitCode.OK
    for task_id in task_ids:
        try:
            task = await client.cancel(task_id)
        except PeertaskError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            worst = report_error(error, as_json=as_json, task_id=task_id)
            continue
        click.echo(task.model_dump_json() if as_json else f"{task.id}  {task.status.value}")
    return worst
