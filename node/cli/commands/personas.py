"""``peertask personas``: who may be asked to do tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from node.gateways.http.client import ControlClient
    from node.gateways.http.persona_models import PersonaList, PersonaView

ACTIONS = ("list", "show", "add", "remove", "import")


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One [PersonaView](http.md#personaview) for each persona: those that are listed, or the one that was shown, "
        "added or imported. For `remove` an object with `id` and `removed` for each."
    ),
    examples=[
        ("peertask personas list", ""),
        ("peertask personas show reviewer", ""),
        ("peertask personas add reviewer --name 'Code reviewer' 'Reads code, and says what is wrong.'", ""),
        ("peertask personas add reviewer - < reviewer.txt", ""),
        ("peertask personas import agents/ writer.toml", "one persona for each file"),
        ("peertask personas remove reviewer", ""),
        ("peertask node --persona reviewer", "run a node that acts as it"),
        ("peertask send --persona reviewer 'Look at this'", "and have such a node do a task"),
    ],
)
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("arguments", metavar="[ID|FILE...] [DEFINITION]", nargs=-1)
@click.option("--name", metavar="TEXT", help="With add: what people call it. [default: its id]")
@client_options
def command(call: Invocation, *, action: str, arguments: tuple[str, ...], name: str | None) -> ExitCode:
    """List, show, define and remove the personas that the node of the data folder knows.

    A persona has an id, which tasks name, and a definition, which says in words what it does. Definitions are kept in
    the database of the node, and in the files of its folder personas/; add writes to the database where there is one.
    DEFINITION is the text itself, or - for standard input. A file is TOML with name and definition, or Markdown; of a
    folder all such files are imported.
    """
    _check_usage(action, arguments, name)
    from node.cli.local import ask_local_node

    actions: dict[str, Callable[[ControlClient], Awaitable[ExitCode]]] = {
        "list": lambda client: _list(client, as_json=call.as_json),
        "show": lambda client: _show(client, arguments[0], as_json=call.as_json),
        "add": lambda client: _add(client, arguments[0], arguments[1], name, as_json=call.as_json),
        "remove": lambda client: _remove(client, arguments, as_json=call.as_json),
        "import": lambda client: _import(client, arguments, as_json=call.as_json),
    }
    return ask_local_node(call, actions[action])


def _check_usage(action: str, arguments: tuple[str, ...], name: str | None) -> None:
    wanted = {"list": "nothing else", "show": "one ID", "add": "an ID and a DEFINITION, or -"}.get(action)
    right = {"list": 0, "show": 1, "add": 2}.get(action, max(1, len(arguments)))
    if len(arguments) != right:
        raise click.UsageError(f"personas {action} takes {wanted or 'one ID or FILE, or several'}")
    if name is not None and action != "add":
        raise click.UsageError("--name belongs to add")


async def _list(client: ControlClient, *, as_json: bool) -> ExitCode:
    from node.cli.terminal import echo_models

    found = await client.personas()
    if as_json:
        echo_models(found.personas)
    else:
        _tell_list(found)
    for problem in found.problems:
        click.echo(f"left out: {problem}", err=True)
    return ExitCode.OK


def _tell_list(found: PersonaList) -> None:
    from node.cli.terminal import echo_table, short_text

    rows = (
        (
            one.id,
            one.name,
            "yes" if one.declared else "no",
            str(len(one.peers)),
            str(len(one.agents)),
            short_text(one.definition),
            one.place or "–",
        )
        for one in found.personas
    )
    columns = ("PERSONA", "NAME", "THIS NODE", "PEERS", "AGENTS", "DEFINITION", "KEPT IN")
    echo_table(columns, rows, empty="No personas; define one with `peertask personas add`.")


async def _show(client: ControlClient, persona_id: str, *, as_json: bool) -> ExitCode:
    persona = await client.persona(persona_id)
    if as_json:
        click.echo(persona.model_dump_json())
        return ExitCode.OK
    click.echo(f"persona    {persona.id}")
    click.echo(f"name       {persona.name}")
    click.echo(f"this node  {'acts as it' if persona.declared else 'does not act as it'}")
    click.echo(f"peers      {', '.join(persona.peers) or 'no connected peer acts as it'}")
    click.echo(f"agents     {', '.join(persona.agents) or 'no agent acts as it'}")
    click.echo(f"kept in    {persona.place}")
    click.echo(f"\n{persona.definition}")
    return ExitCode.OK


async def _add(client: ControlClient, persona_id: str, text: str, name: str | None, *, as_json: bool) -> ExitCode:
    from node.cli.request import read_prompt

    definition, _ = read_prompt(text)
    _tell_saved(await client.save_persona(persona_id, definition, name), as_json=as_json)
    return ExitCode.OK


async def _remove(client: ControlClient, persona_ids: tuple[str, ...], *, as_json: bool) -> ExitCode:
    from node.cli.reporting import report_error
    from node.cli.terminal import echo_json
    from protocol import ErrorCode, PeertaskError

    worst = ExitCode.OK
    for persona_id in persona_ids:
        try:
            await client.remove_persona(persona_id)
        except PeertaskError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            worst = report_error(error, as_json=as_json)
            continue
        if as_json:
            echo_json({"id": persona_id, "removed": True})
        else:
            click.echo(f"{persona_id} is removed")
    return worst


async def _import(client: ControlClient, places: tuple[str, ...], *, as_json: bool) -> ExitCode:
    """Import what can be read, and say what cannot."""
    from node.cli.reporting import report_error
    from node.stores.files.personas import persona_files, read_persona
    from protocol import PeertaskError

    worst = ExitCode.OK
    for path in (path for place in places for path in persona_files(Path(place))):
        try:
            persona = read_persona(path)
        except PeertaskError as error:
            worst = ExitCode.USAGE
            report_error(error, as_json=as_json)
            continue
        _tell_saved(await client.save_persona(persona.id, persona.definition, persona.name), as_json=as_json)
    return worst


def _tell_saved(persona: PersonaView, *, as_json: bool) -> None:
    click.echo(persona.model_dump_json() if as_json else f"{persona.id} is kept in {persona.place}")
