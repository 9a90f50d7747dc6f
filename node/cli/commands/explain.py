"""``peertask explain``: why a task is where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.response_models import ExplanationView, ReasonView, TrialView


@click.command(
    cls=DocumentedCommand,
    json_output="The [ExplanationView](http.md#explanationview).",
    examples=[
        ("peertask explain 3f2b6c1e-…", ""),
        ("peertask explain 3f2b6c1e-… --json | jq -r '.waits_for[].text'", "only what it waits for"),
    ],
)
@click.argument("task")
@client_options
def command(call: Invocation, *, task: str) -> ExitCode:
    """Tell why a task is where it is: what it waits for, who could do it and why others cannot, and what was tried.

    It is worked out at the moment from what the node of the data folder knows; ask again to see what has changed.
    """
    from node.cli.local import ask_local_node
    from protocol import parse_task_id

    task_id = parse_task_id(task)

    async def question(client: ControlClient) -> ExitCode:
        found = await client.explain(task_id)
        click.echo(found.model_dump_json() if call.as_json else "\n".join(_lines(found)))
        return ExitCode.OK

    return ask_local_node(call, question)


def _lines(found: ExplanationView) -> Iterator[str]:
    from node.cli.terminal import status_word

    yield f"task       {found.task_id}"
    yield f"status     {status_word(found)}{found.outcome and f', {found.outcome}'}"
    for reason in found.waits_for:
        yield f"waits for  {reason.text}{_until(reason)}"
        if reason.remedy:
            yield f"           → {reason.remedy}"
    if found.candidates:
        yield from ("", "who could do it")
        for one in found.candidates:
            yield f"  {one.verdict.value.replace('_', ' '):<13}  {one.peer_id}  {one.text}"
    if found.trials:
        yield from ("", "what was tried")
        yield from map(_trial, found.trials)


def _until(reason: ReasonView) -> str:
    from node.gateways.http.response_models import iso_time

    return f", until {iso_time(reason.until)}" if reason.until else ""


def _trial(trial: TrialView) -> str:
    from node.cli.terminal import short_time

    if trial.ended_at is None:
        return f"  attempt {trial.attempt}  {trial.holder}  goes on"
    taken = short_time(trial.ended_at - trial.begun_at)
    end = f"{trial.code.value}: {trial.text}" if trial.code else "brought the result"
    return f"  attempt {trial.attempt}  {trial.holder}  {end} (after {taken})"
