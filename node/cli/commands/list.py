"""``peertask list``: the tasks that a node knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ERROR_CODES, ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import TaskSummary

# As many lines as fit on a screen; --limit asks for more.
DEFAULT_LIMIT = 20
STATUSES = ("pending", "claimed", "executing", "cancelling", "complete", "failed", "cancelled")


@click.command(
    cls=DocumentedCommand,
    json_output="One [TaskSummary](http.md#tasksummary) for each task.",
    examples=[
        ("peertask list", ""),
        ("peertask list --status failed --status cancelled", ""),
        ("peertask list --failed", "what failed, why, and was not retried"),
        ("peertask list --failed --code TIMEOUT --code EXECUTION_FAILED", ""),
        ("peertask list --json --limit 1000 | jq -r .status | sort | uniq -c", ""),
    ],
)
@click.option("--status", multiple=True, type=click.Choice(STATUSES), help="Only these; may be given several times.")
@click.option("--failed", is_flag=True, help="Only those that failed and were not retried since, and why.")
@click.option(
    "--code",
    multiple=True,
    type=click.Choice(ERROR_CODES),
    metavar="CODE",
    help="Only those that ended with this error code; may be given several times.",
)
@click.option("--project", metavar="NAME", help="Only of this project.")
@click.option("--session", "session_id", metavar="NAME", help="Only of this conversation.")
@click.option("--requester", metavar="PEER", help="Only those that this peer asked for.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=DEFAULT_LIMIT,
    show_default=True,
    help="At most so many, 1000 at most.",
)
@client_options
def command(
    call: Invocation, *, status: tuple[str, ...], failed: bool, code: tuple[str, ...], **filters: Any
) -> ExitCode:
    """List the tasks that the node of the data folder knows, the newest first.

    With --failed these are the ones that nobody will do any more unless they are retried: see `peertask retry`.
    """
    if failed and status:
        raise click.UsageError("--failed is --status failed, without those that were retried: give one of the two")
    from node.cli.local import ask_local_node

    query = {name: value for name, value in filters.items() if value is not None}
    if status:
        query["status"] = ",".join(status)
    if failed:
        query |= {"status": "failed", "unretried": "true"}
    if code:
        query["code"] = ",".join(code)

    async def question(client: ControlClient) -> ExitCode:
        return await _list(client, query, failed=failed, as_json=call.as_json)

    return ask_local_node(call, question)


async def _list(client: ControlClient, query: dict[str, Any], *, failed: bool, as_json: bool) -> ExitCode:
    from node.cli.terminal import echo_models

    tasks = await client.list_tasks(**query)
    if as_json:
        echo_models(tasks)
    elif failed:
        _tell_failed(tasks)
    else:
        _tell(tasks)
    return ExitCode.OK


def _tell_failed(tasks: tuple[TaskSummary, ...]) -> None:
    from node.cli.terminal import echo_table, short_peer, short_text

    rows = (
        (
            task.id,
            task.failure.code.value if task.failure else "–",
            task.kind,
            short_peer(task.requester),
            short_peer(task.holder),
            str(task.attempt),
            task.updated_at_iso,
            short_text(task.failure.message if task.failure else ""),
        )
        for task in tasks
    )
    columns = ("TASK", "CODE", "KIND", "ASKED BY", "DONE BY", "ATTEMPTS", "ENDED", "WHY")
    echo_table(columns, rows, empty="No failed tasks.")


def _tell(tasks: tuple[TaskSummary, ...]) -> None:
    from node.cli.terminal import echo_table, short_peer, short_text, short_time, status_word

    rows = (
        (
            task.id,
            status_word(task),
            task.kind,
            short_peer(task.requester),
            short_peer(task.holder),
            short_time(task.updated_at - task.created_at),
            short_text(task.prompt),
        )
        for task in tasks
    )
    columns = ("TASK", "STATUS", "KIND", "ASKED BY", "DONE BY", "TOOK", "PROMPT")
    echo_table(columns, rows, empty="No tasks.")
