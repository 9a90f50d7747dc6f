"""Where the program begins, and where every error ends: as one message, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click

from node.cli.exit_codes import ExitCode
from node.cli.group import peertask


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
        code = peertask.main(arguments, prog_name="peertask", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        from node.cli.terminal import forget_stdout

        forget_stdout()
        return ExitCode.PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user about it
        from node.cli.reporting import report_error

        return report_error(error, as_json=manner.as_json, debug=manner.debug)
    return code or ExitCode.OK

