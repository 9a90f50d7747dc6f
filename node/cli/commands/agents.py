"""``peertask agents``: the outside workers of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.gateways.http.client import ControlClient
    from node.gateways.http.work_models import AgentView


@click.command(
    cls=DocumentedCommand,
    json_output="One [AgentView](http.md#agentview) for each agent.",
    examples=[
        ("peertask agents", ""),
        ("peertask agents --remove agent-7", "give its tasks to others"),
        ("peertask agents --json | jq -r 'select(.tasks == []) | .id'", "those that have nothing to do"),
    ],
)
@click.option("--remove", multiple=True, metavar="AGENT", help="First let an agent go; its tasks are given to others.")
@client_options
def command(call: Invocation, *, remove: tuple[str, ...]) -> ExitCode:
    """List the agents of the node in the data folder: workers of other programs, which claim tasks from it."""
    from node.cli.local import ask_local_node

    async def question(client: ControlClient) -> ExitCode:
        for agent_id in remove:
            await client.remove_agent(agent_id)
        _tell(await client.agents(), as_json=call.as_json)
        return ExitCode.OK

    return ask_local_node(call, question)


def _tell(agents: tuple[AgentView, ...], *, as_json: bool) -> None:
    from node.cli.terminal import echo_models, echo_table

    if as_json:
        echo_models(agents)
        return
    columns = ("AGENT", "PERSONA", "KINDS", "TASKS", "HEARD OF", "GONE AT")
    echo_table(columns, map(_row, agents), empty="No agents. How to write one: docs/how-to/write-a-worker.md")


def _row(agent: AgentView) -> tuple[str, ...]:
    from node.gateways.http.response_models import iso_time

    return (
        agent.id,
        agent.persona or "–",
        ", ".join(agent.kinds),
        str(len(agent.tasks)),
        agent.heard_at_iso,
        iso_time(agent.lapses_at),
    )
