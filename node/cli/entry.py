"""Where the program begins, and where every error ends: as one message, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click
from click.exceptions import Exit
from click.shell_completion import shell_complete

from node.cli.exit_codes import ExitCode
from node.cli.group import COMPLETION_VARIABLE, PROGRAM, peertask


@dataclass(frozen=True, slots=True)
class Manner:
    """How errors are told.

    Attributes:
        as_json: as an object on one line.
        debug: with the traceback.
    """

    as_json: bool
    debug: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Manner:
        """Find out from the arguments as they were typed, because wrong ones are told in the same manner."""
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        return cls(as_json="--json" in options, debug="--debug" in options)


def main() -> NoReturn:
    """Run the command that the arguments of this process name, and exit."""
    arguments = sys.argv[1:]
    sys.exit(run_command(arguments, Manner.of(arguments)))


def run_command(arguments: Sequence[str], manner: Manner) -> int:
    """Run a command and return its exit code; an error is told on standard error."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except Exit as exit_:
        return exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        from node.cli.terminal import forget_stdout

        forget_stdout()
        return ExitCode.PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user about it
        from node.cli.reporting import report_error

        return report_error(error, as_json=manner.as_json, debug=manner.debug)
    return code


def _invoke(arguments: Sequence[str]) -> int:
    """Do what `click.Command.main` does, without its own ways to end a program."""
    asked_to_complete = os.environ.get(COMPLETION_VARIABLE)
    if asked_to_complete:
        return shell_complete(peertask, {}, PROGRAM, COMPLETION_VARIABLE, asked_to_complete)
    with peertask.make_context(PROGRAM, list(arguments)) as context:
        return peertask.invoke(context) or ExitCode.OK
