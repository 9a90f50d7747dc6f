"""How errors are told: what failed, why, and what to do next, on standard error."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict, dataclass
from typing import Final

import click

from node.cli.exit_codes import ExitCode, exit_code_of
from protocol import ErrorCode, PeertaskError

USAGE: Final = "USAGE"
"""Stands where the code of an error stands, for an argument that the command line itself refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """An error as ``--json`` tells it, on one line of standard error under the key ``error``.

    Attributes:
        code: one of docs/reference/errors.md, or USAGE.
        message: what failed, where and why.
        remedy: what to do next; empty when nothing can be done.
        exit_code: what the command exits with.
        task_id: the task that it is about; null when it is about none.
        retry_after_ms: how long to wait before asking again; null when the node does not say.
    """

    code: str
    message: str
    remedy: str
    exit_code: int
    task_id: str | None = None
    retry_after_ms: int | None = None


def report_error(
    error: BaseException, *, as_json: bool = False, debug: bool = False, task_id: str | None = None
) -> ExitCode:
    """Tell the user about an error, and return the exit code that it calls for.

    Args:
        error: what ended the command; of several at once, the first that explains itself is told.
        as_json: as an object on one line.
        debug: with the traceback before it.
        task_id: the task that it is about.
    """
    report = describe_error(error, task_id)
    if debug:
        traceback.print_exception(error)
    text = json.dumps({"error": asdict(report)}, ensure_ascii=False) if as_json else _for_people(report)
    click.echo(text, err=True)
    return ExitCode(report.exit_code)


def describe_error(error: BaseException, task_id: str | None = None) -> ErrorReport:
    """Say what an error means to the user."""
    told = _most_telling(error)
    if isinstance(told, PeertaskError):
        return ErrorReport(
            code=told.code.value,
            message=told.message,
            remedy=told.remedy,
            exit_code=exit_code_of(told.code),
            task_id=task_id,
            retry_after_ms=told.retry_after_ms,
        )
    if isinstance(told, click.ClickException):
        return ErrorReport(
            code=USAGE, message=_without_stop(told.format_message()), remedy=_help_of(told), exit_code=ExitCode.USAGE
        )
    return ErrorReport(
        code=ErrorCode.INTERNAL.value,
        message=f"{type(told).__name__}: {told}",
        remedy="This is a defect of peertask. Run the command again with --debug to see where, and report it",
        exit_code=ExitCode.DEFECT,
        task_id=task_id,
    )


def _most_telling(error: BaseException) -> BaseException:
    """Return the error that the user can do something about, out of those that ended several tasks of a program."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    told = [_most_telling(one) for one in error.exceptions]
    return next((one for one in told if isinstance(one, PeertaskError)), told[0])


def _help_of(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"See `{context.command_path if context else 'peertask'} --help`"


def _without_stop(text: str) -> str:
    return text.strip().rstrip(".")


def _for_people(report: ErrorReport) -> str:
    colours = sys.stderr.isatty()
    head = click.style("error:", fg="red", bold=True) if colours else "error:"
    lines = [f"{head} {report.message}"]
    if report.remedy:
        lines.append(f"  → {report.remedy}")
    return "\n".join(lines)
