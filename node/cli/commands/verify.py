"""``peertask verify``: whether a receipt proves what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from protocol import Receipt, Task, TaskResult

_FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "One object: `valid`, `faults` (texts), `checked` (of `signature`, `executor`, `task` and `result`), and the "
        "[ReceiptView](http.md#receiptview) under `receipt`."
    ),
    examples=[
        ("peertask show 3f2b6c1e-… --receipt --json > receipt.json", ""),
        ("peertask show 3f2b6c1e-… --json > task.json", ""),
        ("peertask verify receipt.json --task task.json", "the task and its result too"),
        ("peertask verify receipt.json --by 12D3KooW…", "only if this peer has signed"),
    ],
)
@click.argument("receipt", type=_FILE)
@click.option("--task", type=_FILE, metavar="FILE", help="What `peertask show --json` printed: must be what was done.")
@click.option(
    "--result", type=_FILE, metavar="FILE", help="A result as JSON, or what `show --json` printed: must be what came."
)
@click.option("--by", metavar="PEER", help="Who must have signed it. [default: whoever it names]")
@client_options
def command(call: Invocation, *, receipt: Path, task: Path | None, result: Path | None, by: str | None) -> ExitCode:
    """Check a receipt: who signed it, for which task and result, and what does not fit. Asks no node and no network.

    Exits with 1 when it is not valid. What is not given is not checked: without --task and --result only the signature
    is. A task that came from `peertask show --json` has its result with it, which is checked too.
    """
    from node.cli.receipts import read_json
    from protocol import Receipt

    given = read_json(receipt, "a receipt", Receipt.from_dict)
    asked, came = _read_task(task), _read_result(result or task, required=result is not None)
    faults = _faults(given, by, asked, came)
    checked = {"signature": True, "executor": by is not None, "task": asked is not None, "result": came is not None}
    _tell(given, faults, [name for name, done in checked.items() if done], as_json=call.as_json)
    return ExitCode.FAILED if faults else ExitCode.OK


def _read_task(path: Path | None) -> Task | None:
    from node.cli.receipts import read_json
    from protocol import Task

    return None if path is None else read_json(path, "a task", Task.from_dict)


def _read_result(path: Path | None, *, required: bool) -> TaskResult | None:
    from node.cli.receipts import read_json

    return None if path is None else read_json(path, "a result", lambda shape: _parse_result(shape, required))


def _parse_result(shape: Mapping[str, Any], required: bool) -> TaskResult | None:
    """Return the result that a JSON object is, or that the task in it has."""
    from protocol import InvalidTask, TaskResult

    came = shape.get("result") if "prompt" in shape else shape
    if came is not None:
        return TaskResult.from_dict(came)
    if required:
        raise InvalidTask("it is a task that has no result")
    return None


def _faults(receipt: Receipt, by: str | None, task: Task | None, result: TaskResult | None) -> list[str]:
    from node.net.signing import verify
    from protocol import PeerId, receipt_faults

    return receipt_faults(receipt, verify, executor=PeerId(by) if by else None, task=task, result=result)


def _tell(receipt: Receipt, faults: list[str], checked: list[str], *, as_json: bool) -> None:
    from node.cli.receipts import receipt_lines
    from node.cli.terminal import echo_json

    if as_json:
        echo_json({"valid": not faults, "faults": faults, "checked": checked, "receipt": receipt.to_dict()})
        return
    lines = [*receipt_lines(receipt), f"checked    {', '.join(checked)}", ""]
    lines += [f"NOT VALID  {fault}" for fault in faults] or [
        f"valid      peer {receipt.executor} has signed that it completed this task"
    ]
    click.echo("\n".join(lines))
