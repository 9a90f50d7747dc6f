"""``peertask audit``: what a node has done, and whether its log of it is whole."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, client_options

if TYPE_CHECKING:
    from node.audit.verifying import Fault, Line, Report

# A screen.
DEFAULT_LAST = 40


@click.command(
    cls=DocumentedCommand,
    json_output=(
        "The lines of the log as they are; docs/reference/audit-log.md describes them. With `--verify` one object: "
        "`valid`, `entries`, `first`, `head` (with `n` and `digest`), `sealed` (the last entry that is signed for), "
        "`nodes`, `torn`, `faults` (each with `file`, `line`, `problem` and `remedy`), and `gaps` (entries)."
    ),
    examples=[
        ("peertask audit", "the last entries"),
        ("peertask audit 3f2b6c1e-…", "all about one task"),
        ("peertask audit --verify", "check that nothing was changed"),
        ("peertask audit --verify --head 1042:5f0c…", "and that it still has what was noted before"),
        ("peertask audit --json --last 1000000 | jq -r .fact | sort | uniq -c", ""),
    ],
)
@click.argument("task", required=False)
@click.option("--verify", is_flag=True, help="Check the whole log instead; exits with 1 when anything is wrong.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Show so many entries, the last. [default: 40]")
@click.option("--by", metavar="PEER", help="With --verify: who must have signed. [default: the key in the data folder]")
@click.option("--head", "heads", multiple=True, metavar="N:DIGEST", help="With --verify: an entry that must be there.")
@client_options
def command(
    call: Invocation, *, task: str | None, verify: bool, last: int | None, by: str | None, heads: tuple[str, ...]
) -> ExitCode:
    """Show the audit log in the data folder, or check it; no node need run, and one may.

    With --verify it names the file and the line of whatever was changed, moved, removed or put in.
    """
    from node.audit.segments import AUDIT_FOLDER, segment_files
    from node.cli.settings import data_folder
    from protocol import ErrorCode, PeertaskError, parse_task_id

    folder = data_folder(call)
    if not segment_files(folder / AUDIT_FOLDER):
        raise PeertaskError(
            f"there is no audit log in the data folder {folder}",
            code=ErrorCode.NOT_FOUND,
            remedy="`peertask node` writes one, unless it has --no-audit; name another folder with --data",
        )
    try:
        if verify:
            return _verify(folder, by, heads, as_json=call.as_json)
        _show(folder / AUDIT_FOLDER, task and parse_task_id(task), last, as_json=call.as_json)
    except BrokenPipeError:
        raise  # of whoever read what is printed here
    except OSError as error:
        raise PeertaskError(
            f"the audit log in {folder / AUDIT_FOLDER} cannot be read: {error.strerror or error}",
            code=ErrorCode.STORE_FAILED,
            remedy="Read it as the user that runs the node",
        ) from error
    return ExitCode.OK


def _show(folder: Path, task_id: str | None, last: int | None, *, as_json: bool) -> None:
    from node.audit.verifying import read_lines

    lines: Iterable[Line] = (line for line in read_lines(folder) if line.text.endswith(b"\n"))
    if task_id is not None:
        wanted = f'"task_id":"{task_id}"'.encode()
        lines = (line for line in lines if wanted in line.text)
    if last is not None or task_id is None:
        lines = deque(lines, maxlen=last or DEFAULT_LAST)
    for line in lines:
        click.echo(line.text.decode().rstrip("\n") if as_json else _told(line))


def _told(line: Line) -> str:
    """Return an entry for people; of one that is damaged, where it stands."""
    from node.gateways.http.response_models import iso_time

    try:
        entry = json.loads(line.text)
        number, at, fact = entry.pop("n"), iso_time(entry.pop("at")), entry.pop("fact")
        entry.pop("prev")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"{line.place} is no entry; see --verify"
    return f"{number:>8}  {at}  {fact:<18}{' '.join(_fields(entry))}"


def _fields(entry: dict[str, Any]) -> Iterator[str]:
    for name, value in entry.items():
        if name == "receipt":
            yield f"receipt={value.get('signature', '')[:8]}…"
        elif value not in (None, ""):
            yield f"{name}={value}"


def _verify(folder: Path, by: str | None, heads: tuple[str, ...], *, as_json: bool) -> ExitCode:
    from node.audit.segments import AUDIT_FOLDER
    from node.audit.verifying import verify_log
    from node.net.signing import verify
    from protocol import PeerId

    node = PeerId(by) if by else _own_id(folder)
    report = verify_log(folder / AUDIT_FOLDER, verify, node=node, known=[_parse_head(head) for head in heads])
    if as_json:
        _tell_json(report)
    else:
        click.echo("\n".join(_lines(report)))
    return ExitCode.OK if report.valid else ExitCode.FAILED


def _own_id(folder: Path) -> Any:
    """Return whose data folder it is; None for a copy without the key."""
    from node.net.identity import KEY_FILE, load_or_create_identity, peer_id_of

    return peer_id_of(load_or_create_identity(folder)) if (folder / KEY_FILE).exists() else None


def _parse_head(text: str) -> Any:
    from node.audit.chain import Head

    number, colon, digest = text.partition(":")
    if not (colon and number.isdecimal()):
        raise click.UsageError(f"--head {text} is not N:DIGEST, as --verify prints it")
    return Head(int(number), digest)


def _tell_json(report: Report) -> None:
    from node.cli.terminal import echo_json

    echo_json(
        {
            "valid": report.valid,
            "entries": report.entries,
            "first": report.first,
            "head": {"n": report.head.number, "digest": report.head.digest},
            "sealed": report.sealed,
            "nodes": sorted(report.nodes),
            "torn": report.torn,
            "faults": [_fault(fault) for fault in report.faults],
            "gaps": [entry for _, entry in report.gaps],
        }
    )


def _fault(fault: Fault) -> dict[str, Any]:
    return {"file": fault.place.file, "line": fault.place.line, "problem": fault.problem, "remedy": fault.remedy}


def _lines(report: Report) -> Iterator[str]:
    yield f"entries    {report.entries} (from {report.first} to {report.head.number})"
    yield f"head       {report.head.number}:{report.head.digest}"
    yield f"signed by  {', '.join(sorted(report.nodes)) or 'nobody'}"
    yield f"sealed     {f'up to entry {report.sealed}' if report.sealed else 'nothing yet'}"
    if report.torn:
        yield "torn       the last line has no end: its node is writing, or was killed and sets it aside when it starts"
    for place, entry in report.gaps:
        yield f"gap        {place}: the node says that it could not write {entry.get('missed')} entries"
    yield ""
    for fault in report.faults:
        yield f"NOT VALID  {fault.place}: {fault.problem}"
        yield f"           → {fault.remedy}"
    if report.valid:
        yield "valid      nothing was changed, moved, removed or put in"
