"""Files of graphs, in JSON or TOML: read, and checked before anything is sent."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from node.cli.request import STDIN, read_text
from node.coordination.naming import NamedGraph, resolve_names
from node.gateways.http.request_models import TaskRequest
from protocol import InvalidTask, JsonObject, describe_invalid

_TOML: Final = ".toml"
_SECTIONS: Final = frozenset({"defaults", "tasks"})
_FORMAT_OF_FILES: Final = "A file whose name ends in .toml is read as TOML, and any other as JSON"
_FORMAT_OF_STDIN: Final = "What begins with { is read as JSON, and anything else as TOML"


def read_graph(source: str) -> NamedGraph:
    """Return the graph in a file, or on standard input when it is called ``-``.

    Raises:
        InvalidTask: names the file, the task and the field that is wrong.
        click.ClickException: it cannot be read.
    """
    text = read_text(source)
    if source == STDIN:
        place, shape = "standard input", _parsed_stdin(text)
    else:
        place, shape = source, _parsed(text, source, toml=source.endswith(_TOML), remedy=_FORMAT_OF_FILES)
    _check_shape(shape, place)
    defaults = shape.get("defaults", {})
    graph = resolve_names({name: _with(defaults, fields, name, place) for name, fields in shape["tasks"].items()})
    for name, fields in zip(graph.ids, graph.tasks, strict=True):
        _check_fields(fields, f"task {name!r} of {place}")
    return graph


def _parsed_stdin(text: str) -> Any:
    """Read what has no name: a graph in JSON is an object, and nothing in TOML begins like one."""
    toml = not text.lstrip().startswith("{")
    return _parsed(text, "standard input", toml=toml, remedy=_FORMAT_OF_STDIN)


def _parsed(text: str, place: str, *, toml: bool, remedy: str) -> Any:
    try:
        return tomllib.loads(text) if toml else json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f"{place} is not {'TOML' if toml else 'JSON'}: {error}", remedy=remedy) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"an object has {twice!r} twice")
    return fields


def _check_shape(shape: Any, place: str) -> None:
    remedy = "See docs/reference/graph-file.md"
    if not isinstance(shape, dict) or not isinstance(shape.get("tasks"), dict) or not shape["tasks"]:
        raise InvalidTask(f"{place} has no tasks: it needs a table `tasks` with one table for each", remedy=remedy)
    if not isinstance(shape.get("defaults", {}), dict):
        raise InvalidTask(f"{place}: `defaults` is not a table", remedy=remedy)
    unknown = sorted(shape.keys() - _SECTIONS)
    if unknown:
        raise InvalidTask(f"{place} has the unknown part {unknown[0]!r}; it has `defaults` and `tasks`", remedy=remedy)


def _with(defaults: JsonObject, fields: Any, name: str, place: str) -> JsonObject:
    if not isinstance(fields, Mapping):
        raise InvalidTask(f"task {name!r} of {place} is not a table of fields")
    return {**defaults, **fields}


def _check_fields(fields: JsonObject, place: str) -> None:
    try:
        TaskRequest.model_validate(fields)
    except ValidationError as error:
        remedy = f"The fields of a task are: {', '.join(sorted(TaskRequest.model_fields))}"
        raise InvalidTask(f"{place}: {describe_invalid(error)}", remedy=remedy) from None
