"""What a user asks for, checked before anything is started or sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from protocol import InvalidTask, JsonObject, Task

STDIN: Final = "-"

_SPELLED_AS: Final = {
    "id": "--id",
    "kind": "--kind",
    "persona": "--persona",
    "priority": "--priority",
    "params": "--param",
    "project": "--project",
    "session_id": "--session",
    "timeout_ms": "--execution-timeout",
    "retry.attempts": "--attempts",
}
"""How the fields of a task are spelled on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked beside the prompt.

    Attributes:
        to: who shall do it, as an address or a peer id; None lets the node choose.
        timeout_s: when the user stops caring, in seconds; None for never.
        fields: fields of the task that were given, by name.
    """

    to: str | None = None
    timeout_s: float | None = None
    fields: JsonObject = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        to: str | None,
        timeout: float | None,
        execution_timeout: float | None,
        params: Iterable[str],
        attempts: int | None,
        retry_on: Iterable[str],
        **fields: Any,
    ) -> Request:
        """Make the request that the options of a command describe.

        Raises:
            InvalidTask: names the option that is wrong, and its limit.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        if execution_timeout is not None:
            given["timeout_ms"] = max(1, round(execution_timeout * 1000))
        if parameters := _parameters(params):
            given["params"] = parameters
        if policy := _retry_policy(attempts, list(retry_on)):
            given["retry"] = policy
        request = cls(to=to, timeout_s=timeout, fields=given)
        request.check("", place="the options")
        return request

    def check(self, prompt: str, *, place: str) -> None:
        """Refuse what no node would take, before anything is started or sent.

        Args:
            prompt: what is asked.
            place: where it stands, for the message.

        Raises:
            InvalidTask: names the field, its limit and the place.
        """
        try:
            Task.new(prompt, "me", timestamp=0, **self.fields)
        except InvalidTask as error:
            path = error.message.removeprefix("field ").split(":")[0].split(".")
            spelled = _SPELLED_AS.get(path[0]) or _SPELLED_AS.get(".".join(path[:2]), place)
            raise InvalidTask(f"{spelled}: {error.message}", remedy=error.remedy) from None


def read_prompt(prompt: str) -> tuple[str, str]:
    """Return the prompt that an argument stands for, and the place that it came from.

    Raises:
        InvalidTask: standard input is not UTF-8.
    """
    return (read_text(STDIN), "standard input") if prompt == STDIN else (prompt, "PROMPT")


def read_lines(source: str) -> list[str]:
    """Return the lines of a file, or of standard input when it is called ``-``, without their line feeds.

    Raises:
        InvalidTask: it is not UTF-8.
        click.ClickException: it cannot be read.
    """
    return [line.removesuffix("\r") for line in read_text(source).removesuffix("\n").split("\n")]


def read_text(source: str) -> str:
    """Return what is in a file, or on standard input when it is called ``-``; raises as `read_lines` does."""
    try:
        content = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        return content.decode()
    except UnicodeDecodeError as error:
        place = "standard input" if source == STDIN else source
        raise InvalidTask(
            f"{place} is not UTF-8: {error.reason} at byte {error.start}", remedy="Convert it, with iconv for example"
        ) from None
    except OSError as error:
        raise click.FileError(source, error.strerror) from error


def _retry_policy(attempts: int | None, codes: list[str]) -> JsonObject:
    policy: JsonObject = {} if attempts is None else {"attempts": attempts}
    return {**policy, "retry_on": codes} if codes else policy


def _parameters(texts: Iterable[str]) -> JsonObject:
    parameters: JsonObject = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidTask(f"--param: {text!r} is not NAME=VALUE", remedy="Write, say, --param temperature=0.2")
        parameters[name] = _json_or_text(value)
    return parameters


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
