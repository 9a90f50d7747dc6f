"""``peertask watch``: what happens to tasks, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import TaskView
    from protocol import TaskId


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One [EventView](http.md#eventview) for each fact, or a [LaggedView](http.md#laggedview) where facts "
        "are missing."
    ),
    examples=[
        ("peertask watch", "everything, until Ctrl-C"),
        ("peertask watch 3f2b6c1e-…", ""),
        ("peertask watch 3f2b6c1e-… --after 4 --json", ""),
    ],
)
@click.argument("task", required=False)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin after the fact with this number; facts of a task are numbered from 1.",
)
@client_options
def command(call: Invocation, *, task: str | None, after: int) -> ExitCode:
    """Print what happens to a task, from its first fact to its last; without TASK, to all tasks from now on.

    With a TASK the exit code tells how it ended.
    """
    if task is None and after:
        raise click.UsageError("--after needs a TASK: the facts of each are numbered on their own")
    from node.cli.local import ask_local_node
    from protocol import parse_task_id

    task_id = parse_task_id(task) if task is not None else None

    async def question(client: ControlClient) -> ExitCode:
        if task_id is None:
            return await _watch_all(client, as_json=call.as_json)
        return await _watch_one(client, task_id, after, as_json=call.as_json)

    return ask_local_node(call, question)


async def _watch_all(client: ControlClient, *, as_json: bool) -> ExitCode:
    from node.cli.events import tell_event

    async with client.watch_all() as items:
        async for item in items:
            tell_event(item, as_json=as_json)
    return ExitCode.OK


async def _watch_one(client: ControlClient, task_id: TaskId, after: int, *, as_json: bool) -> ExitCode:
    from node.cli.events import tell_event

    async with client.watch(task_id, after) as items:
        async for item in items:
            tell_event(item, as_json=as_json)
    return _exit_code(await client.finish(task_id))


def _exit_code(task: TaskView) -> ExitCode:
    from node.cli.exit_codes import exit_code_of

    return exit_code_of(task.failure.code) if task.failure is not None else ExitCode.OK
