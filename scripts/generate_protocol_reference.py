"""Writes the tables and diagrams in docs/reference/protocol.md from protocol/; --check only compares."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from typing import Any

from generated_part import PROJECT, write_generated_part
from pydantic import TypeAdapter

from protocol import (
    DEFAULT_LIMITS,
    FRAME_TYPES,
    SESSION_TABLE,
    SPOKEN_BY,
    TASK_TABLE,
    Artifact,
    Failure,
    Limits,
    PeerAdvert,
    PeerHint,
    Receipt,
    RetryPolicy,
    Role,
    SessionState,
    Task,
    TaskResult,
    TaskState,
)
from protocol.framing import ENVELOPE_BYTES
from protocol.json_value import MAX_JSON_DEPTH, MAX_JSON_VALUES
from protocol.structure import MAX_VALUES
from protocol.task import MAX_INT64, NAME_PATTERN, UUID4_PATTERN

STRUCTURES = (Task, RetryPolicy, TaskResult, Artifact, Failure, Receipt, PeerAdvert, PeerHint, Limits)
VECTORS = PROJECT / "tests" / "protocol" / "vectors"
_NAMED_PATTERNS = {UUID4_PATTERN: "task id", NAME_PATTERN: "name"}
_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean", "object": "JSON object"}


def describe_protocol() -> str:
    """Return the sizes, the frames, the structures in them, and who may say what when."""
    return "\n\n".join(
        [
            "## Sizes",
            _sizes(),
            "## Frames",
            _overview(),
            *(_frame(name, cls) for name, cls in FRAME_TYPES.items()),
            "## Structures",
            *(_section(cls.__name__, cls, _summary(cls)) for cls in STRUCTURES),
            "## A session, state by state",
            _session_table(),
            _diagram(SESSION_TABLE, SessionState.FRESH),
            "## A task, state by state",
            *(_task_tables()),
        ]
    )


def _sizes() -> str:
    rows = [
        ("body of a frame", f"{DEFAULT_LIMITS.frame:,} bytes", "`limits.frame` in Hello"),
        ("body above which chunks are needed", f"{DEFAULT_LIMITS.chunk:,} bytes", "`limits.chunk` in Hello"),
        (
            "one task or result, as msgpack",
            f"{DEFAULT_LIMITS.payload:,} bytes, and {ENVELOPE_BYTES:,} for the frame around it",
            "`limits.payload` in Hello",
        ),
        ("tasks of one peer at work at a node", f"{DEFAULT_LIMITS.in_flight:,}", "`limits.in_flight` in Hello"),
        ("values in one JSON object, at all levels", f"{MAX_JSON_VALUES:,}", "no"),
        ("levels of nesting in one JSON object", f"{MAX_JSON_DEPTH:,}", "no"),
        ("keys and values in one body, at all levels", f"{MAX_VALUES:,}", "no"),
    ]
    return _table(("what", "limit", "announced"), rows)


def _overview() -> str:
    rows = [
        (f"[`{name}`](#{name})", SPOKEN_BY[cls].value if cls in SPOKEN_BY else "either side", _summary(cls))
        for name, cls in FRAME_TYPES.items()
    ]
    return _table(("type", "said by", "meaning"), rows)


def _frame(name: str, cls: type[Any]) -> str:
    examples = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    shown = [
        f"{example['name'].capitalize()}:\n\n```json\n{json.dumps(example['map'], ensure_ascii=False)}\n```"
        for index, example in enumerate(examples)
        if index == 0 or example["map"] != examples[0]["map"]
    ]
    shown.insert(1, f"and on the stream, with its length:\n\n```text\n{_wrapped(examples[0]['hex'])}\n```")
    return "\n\n".join([_section(name, cls, _description(cls)), *shown])


def _wrapped(digits: str) -> str:
    pairs = [digits[start : start + 2] for start in range(0, len(digits), 2)]
    return "\n".join(" ".join(pairs[start : start + 32]) for start in range(0, len(pairs), 32))


def _section(title: str, cls: type[Any], text: str) -> str:
    schema = TypeAdapter(cls).json_schema()
    meanings = _attributes(cls)
    rows = [
        (f"`{name}`", *_type_and_limits(shape), _default(name, shape, schema), meanings[name])
        for name, shape in ((field.name, schema["properties"][field.name]) for field in dataclasses.fields(cls))
    ]
    return f"### {title}\n\n{text}\n\n{_table(('field', 'type', 'limits', 'default', 'meaning'), rows)}"


def _summary(cls: type[Any]) -> str:
    return inspect.getdoc(cls).partition("\n")[0]  # type: ignore[union-attr]


def _description(cls: type[Any]) -> str:
    text = inspect.getdoc(cls).partition("\nAttributes:")[0]  # type: ignore[union-attr]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")).replace("``", "`").strip()


def _attributes(cls: type[Any]) -> dict[str, str]:
    """Return what the docstring of a class says about each of its attributes."""
    found: dict[str, str] = {}
    text = inspect.getdoc(cls).partition("Attributes:\n")[2]  # type: ignore[union-attr]
    for line in text.splitlines():
        if line.startswith("     "):
            found[next(reversed(found))] += f" {line.strip()}"
        elif ": " in line:
            name, _, meaning = line.strip().partition(": ")
            found[name] = meaning
    return {name: meaning.replace("``", "`").replace("None", "nil") for name, meaning in found.items()}


def _type_and_limits(shape: dict[str, Any]) -> tuple[str, str]:
    if "anyOf" in shape:
        kind, bounds = _type_and_limits(shape["anyOf"][0])
        return f"{kind} or nil", bounds
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return ("code", "[codes](errors.md)") if name == "ErrorCode" else (f"map: [{name}](#{name.lower()})", "")
    if shape["type"] == "array":
        kind, bounds = _type_and_limits(shape["items"])
        return f"array of {kind}", "; ".join(filter(None, [_bounds(shape, "Items", "items"), bounds]))
    if "enum" in shape:
        return "text", " or ".join(f"`{value}`" for value in shape["enum"])
    if shape.get("format") == "binary":
        return "binary", _bounds(shape, "Length", "bytes")
    if shape.get("pattern") in _NAMED_PATTERNS:
        return _NAMED_PATTERNS[shape["pattern"]], ""
    return _TYPES[shape["type"]], _bounds(shape, "Length", "characters") or _range(shape)


def _bounds(shape: dict[str, Any], what: str, unit: str) -> str:
    least, most = shape.get(f"min{what}"), shape.get(f"max{what}")
    if most is None:
        return f"at least {least} {unit}" if least else ""
    return f"{least or 0} to {most:,} {unit}"


def _range(shape: dict[str, Any]) -> str:
    if "maximum" not in shape:
        return ""
    most = "2⁶³ - 1" if shape["maximum"] == MAX_INT64 else f"{shape['maximum']:,}"
    return f"{shape['minimum']:,} to {most}"


def _default(name: str, shape: dict[str, Any], schema: dict[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = shape.get("default", {})
    return "nil" if default is None else "its defaults" if "$ref" in shape else f"`{json.dumps(default)}`"


def _session_table() -> str:
    rows = [
        (state.value, _frame_names(row, SessionState.OPEN), _frame_names(row, SessionState.ENDED))
        for state, row in SESSION_TABLE.items()
    ]
    return _table(("a direction that is", "may carry, and is open then", "may carry, and is ended then"), rows)


def _frame_names(row: dict[Any, Any], after: SessionState) -> str:
    return ", ".join(cls.__name__ for cls in FRAME_TYPES.values() if row.get(cls) is after) or "nothing"


def _task_tables() -> list[str]:
    requester, worker = TASK_TABLE[Role.REQUESTER], TASK_TABLE[Role.WORKER]
    if requester != worker:
        raise ValueError("the roles have tables of their own now: this page must show both")
    rows = [
        (state.value, *(row[cls].value if cls in row else "" for cls in SPOKEN_BY)) for state, row in worker.items()
    ]
    heads = [f"{cls.__name__}" for cls in SPOKEN_BY]
    speakers = ("said by", *(role.value for role in SPOKEN_BY.values()))
    return [_table(("", *heads), [speakers, *rows]), _diagram(worker, TaskState.IDLE)]


def _diagram(table: dict[Any, dict[Any, Any]], start: Any) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start.value}"]
    for state, row in table.items():
        for after in dict.fromkeys(row.values()):
            frames = [cls.__name__ for cls in FRAME_TYPES.values() if row.get(cls) is after]
            lines.append(f"    {state.value} --> {after.value}: {_any_of(frames)}")
    return "\n".join([*lines, "```"])


def _any_of(frames: list[str]) -> str:
    missing = [cls.__name__ for cls in FRAME_TYPES.values() if cls.__name__ not in frames]
    few = 3
    return " or ".join(frames) if len(missing) > few else f"all but {', '.join(missing)}"


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    cells = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in cells)


if __name__ == "__main__":
    sys.exit(write_generated_part("docs/reference/protocol.md", "generate_protocol_reference.py", describe_protocol()))
