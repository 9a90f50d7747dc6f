"""``peertask store``: look after the tasks that a node keeps, while it does not run."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

ACTIONS = ("info", "check", "migrate", "export", "import", "gc")


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object, with `store` and `place`. For `info` also `tasks` (how many of each status), `oldest` and "
        "`newest` (milliseconds, or null) and `bytes` (or null). For `check` `tasks` and `faults` (texts). For "
        "`migrate` `migrations` (names) and `applied`. For `export` `tasks`. For `import` `tasks`, and `known`: those "
        "that were there already. For `gc` `forgotten` and `tasks`. After an export to standard output nothing follows."
    ),
    examples=[
        ("peertask store info", "what is kept, and where"),
        ("peertask store check", "read everything, and say what is wrong"),
        ("peertask store migrate --dry-run", "what a newer peertask would change in the file"),
        ("peertask store export tasks.jsonl", "a line for each task; - for standard output"),
        ("peertask store import tasks.jsonl --store files", "into another kind of store"),
        ("peertask store gc --older-than 1 --keep 1000", "forget finished tasks, and shrink the file"),
    ],
)
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--store", type=click.Choice(["sqlite", "files", "redis"]), help="Which store. [default: that of the settings]"
)
@click.option("--dry-run", is_flag=True, help="With migrate: only say what would be done.")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="With gc: forget what ended longer ago. [default: retention_hours]",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="N",
    help="With gc: keep so many finished tasks at most, the newest. [default: retention_records]",
)
@client_options
def command(
    call: Invocation,
    *,
    action: str,
    file: Path | None,
    store: str | None,
    dry_run: bool,
    older_than: float | None,
    keep: int | None,
) -> ExitCode:
    """Look after the tasks that the node of the data folder keeps; the node must not run meanwhile.

    Exports are lines of JSON that any store imports; what is there already is left as it is. A damaged SQLite file is
    only looked at by check; a node that starts on it sets it aside, and goes on with what can be read of it.
    """
    if (file is None) == (action in {"export", "import"}):
        raise click.UsageError(f"{action} takes {'a FILE, or - ' if file is None else 'no FILE'}".rstrip())
    from node.cli.running import run
    from node.cli.settings import load_settings
    from node.cli.storekeeping import Storekeeper
    from node.telemetry import configure_logging

    log_format = {"log_format": "json"} if call.as_json else {}
    settings = load_settings(call, defaults={"store": "sqlite", "log_level": "warning", **log_format}, store=store)
    configure_logging(settings.log_level, settings.log_format)
    keeper = Storekeeper(settings, as_json=call.as_json)

    async def work() -> ExitCode:
        match action:
            case "info":
                return await keeper.info()
            case "check":
                return await keeper.check()
            case "migrate":
                return await keeper.migrate(dry_run=dry_run)
            case "gc":
                return await keeper.forget_finished(older_than_h=older_than, keep=keep)
            case "export":
                return await keeper.export_to(file or Path("-"))
            case _:
                return await keeper.import_from(file or Path("-"))

    return run(work)
