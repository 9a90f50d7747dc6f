"""``peertask retry``: have tasks done again that ended without a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ERROR_CODES, ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from protocol import TaskId

# As many as a node lists at a time.
_PAGE = 1000


@click.command(
    cls=DocumentedCommand,
    json_output="One [TaskSummary](http.md#tasksummary) for each new task; its `retry_of` is the old one.",
    examples=[
        ("peertask retry 3f2b6c1e-…", ""),
        ("peertask retry --all-failed", "all that `peertask list --failed` shows and this node asked for"),
        ("peertask retry --all-failed --code TIMEOUT --project nightly", ""),
        ("peertask watch $(peertask retry 3f2b6c1e-… --json | jq -r .id)", "and follow the new task"),
    ],
)
@click.argument("tasks", metavar="[TASK...]", nargs=-1)
@click.option("--all-failed", is_flag=True, help="Every task that failed and was not retried since.")
@click.option(
    "--code",
    multiple=True,
    type=click.Choice(ERROR_CODES),
    metavar="CODE",
    help="With --all-failed: only those with this error code.",
)
@click.option("--project", metavar="NAME", help="With --all-failed: only of this project.")
@click.option("--session", "session_id", metavar="NAME", help="With --all-failed: only of this conversation.")
@client_options
def command(
    call: Invocation, *, tasks: tuple[str, ...], all_failed: bool, code: tuple[str, ...], **filters: Any
) -> ExitCode:
    """Have tasks done again that failed or were cancelled, and that the node of the data folder asked for.

    Each becomes a new task with the same prompt, fields and time; the old one stays as it is, and `peertask show` tells
    of both which the other is. A task can be retried once: after that its retry can.
    """
    query = {name: value for name, value in filters.items() if value is not None}
    if code:
        query["code"] = ",".join(code)
    if bool(tasks) == all_failed:
        raise click.UsageError("give the ids of tasks, or --all-failed")
    if query and not all_failed:
        raise click.UsageError("--code, --project and --session choose among --all-failed")
    from node.cli.local import ask_local_node
    from protocol import parse_task_id

    task_ids = [parse_task_id(task) for task in tasks]

    async def question(client: ControlClient) -> ExitCode:
        if all_failed:
            return await _retry_all(client, query, as_json=call.as_json)
        return await _retry(client, task_ids, as_json=call.as_json)

    return ask_local_node(call, question)


async def _retry_all(client: ControlClient, query: dict[str, Any], *, as_json: bool) -> ExitCode:
    """Retry a page of failed tasks after the other: what has been retried is not in the next one."""
    own_id = (await client.info()).peer_id
    query |= {"status": "failed", "unretried": "true", "requester": own_id, "limit": _PAGE}
    failed = await client.list_tasks(**query)
    if not failed:
        click.echo("No failed tasks.", err=True)
        return ExitCode.OK
    query["before"] = failed[0].created_at + 1  # or a retry that fails at once would be retried without end
    worst = ExitCode.OK
    while failed and worst is ExitCode.OK:
        worst = await _retry(client, [task.id for task in failed], as_json=as_json)
        failed = await client.list_tasks(**query)
    return worst


async def _retry(client: ControlClient, task_ids: list[TaskId], *, as_json: bool) -> ExitCode:
    from node.cli.reporting import report_error
    from protocol import PeertaskError

    worst = ExitCode.OK
    for task_id, became in zip(task_ids, await client.retry_many(task_ids), strict=True):
        if isinstance(became, PeertaskError):
            worst = report_error(became, as_json=as_json, task_id=task_id)
        else:
            click.echo(became.model_dump_json() if as_json else f"{task_id}  is tried again as  {became.id}")
    return worst
