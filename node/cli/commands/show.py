"""``peertask show``: one task and all that has come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import TaskSummary, TaskView
    from protocol import TaskId


# A screen has room for the rest too.
_MAX_SHOWN = 10


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "The [TaskView](http.md#taskview); with `--events` one [EventView](http.md#eventview) for each fact that is "
        "kept, or a [LaggedView](http.md#laggedview) where facts are missing; with `--receipt` the "
        "[ReceiptView](http.md#receiptview), which `peertask verify` takes."
    ),
    examples=[
        ("peertask show 3f2b6c1e-…", ""),
        ("peertask show 3f2b6c1e-… --events", "what has happened to it"),
        ("peertask show 3f2b6c1e-… --receipt --json > receipt.json", "for `peertask verify`"),
        ("peertask show 3f2b6c1e-… --json | jq .result.result", ""),
    ],
)
@click.argument("task")
@click.option("--events", is_flag=True, help="Show what has happened to it so far instead: a line for each fact.")
@click.option("--receipt", is_flag=True, help="Show who signed for its result instead; asks that peer if need be.")
@client_options
def command(call: Invocation, *, task: str, events: bool, receipt: bool) -> ExitCode:
    """Show a task that the node of the data folder knows, and what has come of it so far."""
    from node.cli.local import ask_local_node
    from protocol import parse_task_id

    task_id = parse_task_id(task)

    async def question(client: ControlClient) -> ExitCode:
        if receipt:
            return await _tell_receipt(client, task_id, as_json=call.as_json)
        found = await client.get(task_id)
        if events:
            await _tell_events(client, found, as_json=call.as_json)
            return ExitCode.OK
        if call.as_json:
            click.echo(found.model_dump_json())
            return ExitCode.OK
        waits_for = await _other_hindrances(client, found)
        retries = await client.list_tasks(retry_of=task_id, limit=1) if found.failure else ()
        click.echo("\n".join(_lines(found, waits_for, *retries)))
        return ExitCode.OK

    return ask_local_node(call, question)


async def _tell_receipt(client: ControlClient, task_id: TaskId, *, as_json: bool) -> ExitCode:
    from node.cli.receipts import receipt_lines

    view = await client.receipt(task_id)
    click.echo(view.model_dump_json() if as_json else "\n".join(receipt_lines(view)))
    return ExitCode.OK


async def _other_hindrances(client: ControlClient, task: TaskView) -> str:
    """Say what keeps a task from starting beside those that it depends on, which are shown with how they stand."""
    if task.status.value != "pending":
        return ""
    reasons = (await client.explain(task.id)).waits_for
    return "; ".join(reason.text for reason in reasons if reason.wait != "dependency")


async def _tell_events(client: ControlClient, task: TaskView, *, as_json: bool) -> None:
    from node.cli.events import tell_event
    from node.gateways.http.response_models import EventView

    async with client.watch(task.id) as items:
        async for item in items:
            tell_event(item, as_json=as_json)
            if isinstance(item, EventView) and item.seq >= task.seq:
                return


def _lines(task: TaskView, waits_for: str = "", retry: TaskSummary | None = None) -> Iterator[str]:
    from node.cli.terminal import short_time, status_word

    yield f"task       {task.id}"
    progress = f", {task.progress:.0%}" if task.progress else ""
    yield f"status     {status_word(task)}{progress} {task.progress_message}".rstrip()
    if waits_for:
        yield f"waits for  {waits_for}"
    yield from _relatives(task)
    yield f"kind       {task.kind}, priority {task.priority}, project {task.project}"
    if task.persona:
        yield f"persona    {task.persona}"
    yield f"asked by   {task.requester}"
    yield f"done by    {task.holder or '–'}"
    yield f"attempts   {task.attempt} ({task.failures} failed, {task.lost_leases} lost their worker)"
    yield f"created    {task.created_at_iso}"
    yield f"updated    {task.updated_at_iso} ({short_time(task.updated_at - task.created_at)} later)"
    if task.retry_of:
        yield f"retry of   {task.retry_of}"
    if retry is not None:
        yield f"retried as {retry.id}, which is {retry.status.value}"
    if task.params:
        yield f"params     {json.dumps(task.params, ensure_ascii=False)}"
    yield from ("", "prompt", _indented(task.prompt))
    if task.result is not None:
        yield from ("", f"result (took {short_time(task.result.duration_ms)})", _indented(task.result.result))
        for artifact in task.result.artifacts:
            yield f"  artifact {artifact.name}: {artifact.media_type}, {len(artifact.content):,} characters"
    if task.failure is not None:
        yield from ("", f"failure {task.failure.code.value}", _indented(task.failure.message))


def _relatives(task: TaskView) -> Iterator[str]:
    for label, awaited in zip_longest(("waits for",), task.waits_for[:_MAX_SHOWN], fillvalue=None):
        if awaited is not None:
            status = "not kept any more" if awaited.status is None else awaited.status.value
            yield f"{label or '':<10} {awaited.id}  {status}  {awaited.title or ''}".rstrip()
    if len(task.waits_for) > _MAX_SHOWN:
        yield f"           and {len(task.waits_for) - _MAX_SHOWN:,} more"
    if task.parent_id is not None:
        yield f"part of    {task.parent_id}"
    children = task.children
    if children.total:
        lost = f", {children.failed:,} failed, {children.cancelled:,} cancelled"
        yield f"children   {children.complete:,} of {children.total:,} complete{lost}, {children.progress:.0%} done"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()) or "  (empty)"
