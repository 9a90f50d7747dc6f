"""Writes the commands, options and exit codes in docs/reference/cli.md from node/cli; --check only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from generated_part import write_generated_part

from node.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from node.cli.group import COMMANDS, PROGRAM, peertask
from node.cli.help import DocumentedCommand, example_lines
from protocol import ErrorCode


def describe_commands() -> str:
    """Return a section for each command, and one for the exit codes."""
    return "\n".join([*_commands(), *_exit_codes()])


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    for name, meaning in COMMANDS.items():
        yield f"- [`peertask {name}`](#peertask-{name}): {meaning[:1].lower()}{meaning[1:]}"
    with peertask.make_context(PROGRAM, [], resilient_parsing=True) as program:
        for name in COMMANDS:
            command = peertask.get_command(program, name)
            if isinstance(command, DocumentedCommand):
                yield from _section(command, command.make_context(name, [], parent=program, resilient_parsing=True))


def _section(command: DocumentedCommand, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n### `{context.command_path}`\n"
    yield f"`{context.command_path} {usage}`\n"
    yield from (f"{_on_one_line(paragraph)}\n" for paragraph in (command.help or "").split("\n\n"))
    yield "```sh"
    yield from example_lines(command.examples)
    yield "```\n"
    yield "| option | meaning |\n|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    if command.json_output:
        yield f"\nWith `--json`: {command.json_output[:1].lower()}{command.json_output[1:]}"


def _exit_codes() -> Iterator[str]:
    yield "\n## Exit codes\n"
    yield "| code | meaning | codes of [errors](errors.md) |\n|---|---|---|"
    for code, meaning in MEANINGS.items():
        yield f"| {code.value} | {meaning} | {', '.join(_error_codes(code))} |"


def _error_codes(exit_code: ExitCode) -> list[str]:
    return [f"`{code}`" for code in ErrorCode if exit_code_of(code) is exit_code]


def _cell(text: str) -> str:
    return _on_one_line(text).replace("|", "\\|")


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(write_generated_part("docs/reference/cli.md", "generate_cli_reference.py", describe_commands()))
