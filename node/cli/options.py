"""The options that several commands have, with one spelling and one meaning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from node.cli.exit_codes import ERROR_CODES, ExitCode

Command = Callable[..., ExitCode]
_Function = TypeVar("_Function", bound=Callable[..., Any])

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("console", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How a command was called, as far as all commands are alike.

    Attributes:
        data: the data folder that was named.
        config: the configuration file that was named.
        as_json: whether results are told as JSON, one object a line.
        debug: whether errors are told with their tracebacks.
        log_level: the least severe log records to write; None where the command decides.
        log_format: how they are written; None where the command decides.
    """

    data: Path | None = None
    config: Path | None = None
    as_json: bool = False
    debug: bool = False
    log_level: str | None = None
    log_format: str | None = None


def client_options(function: Command) -> Command:
    """Add the options of a command that asks the node of a data folder; it gets them as ``call``."""

    @functools.wraps(function)
    def command(
        *arguments: Any, data: Path | None, config: Path | None, as_json: bool, debug: bool, **options: Any
    ) -> ExitCode:
        logs = {name: options.pop(name, None) for name in ("log_level", "log_format")}
        call = Invocation(data=data, config=config, as_json=as_json, debug=debug, **logs)
        return function(call, *arguments, **options)

    return _stack(command, DATA, CONFIG, JSON, DEBUG)


def node_options(function: Command) -> Command:
    """Add the options of a command that may run a node itself: those of a client, and those for its log."""
    return _stack(client_options(function), LOG_LEVEL, LOG_FORMAT)


def task_options(function: Command) -> Command:
    """Add the options that describe a task; the command gets them by name, for `node.cli.asking.Wish`."""
    return _stack(
        function,
        TO,
        KIND,
        PERSONA,
        PRIORITY,
        TIMEOUT,
        EXECUTION_TIMEOUT,
        ATTEMPTS,
        RETRY_ON,
        PARAM,
        PROJECT,
        SESSION,
    )


def _stack(function: _Function, *decorators: Callable[[_Function], _Function]) -> _Function:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def _option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    return click.option(*names, **settings)


DATA = _option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The data folder of the node: its key, its control socket, its tasks. [default: one for this user]",
)
CONFIG = _option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A TOML file with settings; see docs/reference/configuration.md.",
)
JSON = _option("--json", "as_json", is_flag=True, help="Speak JSON, one object a line; errors too.")
DEBUG = _option("--debug", is_flag=True, help="Show the traceback of an error.")
LOG_LEVEL = _option("--log-level", type=click.Choice(LOG_LEVELS), help="The least severe records to log, on stderr.")
LOG_FORMAT = _option("--log-format", type=click.Choice(LOG_FORMATS), help="How records are logged.")
TO = _option(
    "--to",
    metavar="ADDRESS|PEER",
    help="Who shall do it: an address with /p2p/ID, or the id of a known peer. [default: the node chooses]",
)
KIND = _option("--kind", metavar="KIND", help="What shall do it: mock, echo, or what the peer offers. [default: mock]")
PERSONA = _option(
    "--persona", metavar="NAME", help="Who should do it: goes to a worker that acts as this persona only."
)
PRIORITY = _option("--priority", type=int, metavar="0..255", help="Higher goes first. [default: 5]")
TIMEOUT = _option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up after so long, waiting included. [default: never]",
)
EXECUTION_TIMEOUT = _option(
    "--execution-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Let one execution take so long at most. [default: as long as it takes]",
)
ATTEMPTS = _option("--attempts", type=int, metavar="1..100", help="Let so many executions fail. [default: 3]")
RETRY_ON = _option(
    "--retry-on",
    multiple=True,
    type=click.Choice(ERROR_CODES),
    metavar="CODE",
    help="An error code that is worth another attempt; may be given several times. [default: each failure says itself]",
)
PARAM = _option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter for the executor; VALUE is JSON, or else text. May be given several times.",
)
PROJECT = _option("--project", metavar="NAME", help="Groups tasks for people. [default: default]")
SESSION = _option("--session", "session_id", metavar="NAME", help="Groups the tasks of one conversation.")
