"""Writes the table of settings in docs/reference/configuration.md from node/config.py; --check only compares."""

from __future__ import annotations

import json
import sys
from typing import Any

from generated_part import write_generated_part

from node.config import NodeConfig, variable_of
from node.gateways.http.attribute_docs import attribute_docs


def describe_settings() -> str:
    """Return a section for each setting, in the order of the model."""
    schema = NodeConfig.model_json_schema()
    docs = attribute_docs(NodeConfig)
    return "\n\n".join(_section(name, schema["properties"][name], docs[name]) for name in NodeConfig.model_fields)


def _section(name: str, shape: dict[str, Any], meaning: str) -> str:
    default = NodeConfig.model_fields[name].get_default(call_default_factory=True, validated_data={})
    return (
        f"### `{name}`\n\n{meaning}\n\n"
        f"- Variable: `{variable_of(name)}`\n"
        f"- Value: {_value(shape)}\n"
        f"- Default: {_default(default)}"
    )


def _value(shape: dict[str, Any]) -> str:
    options = [option for option in shape.get("anyOf", [shape]) if option.get("type") != "null"]
    return " or ".join(map(_one_value, options))


def _one_value(shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    return _TYPES[shape["type"]] + _bounds(shape)


_TYPES = {
    "boolean": "`true` or `false`",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list of texts",
    "object": "a table of lists of texts",
}


def _bounds(shape: dict[str, Any]) -> str:
    low, high = shape.get("minimum"), shape.get("maximum")
    least = f" of at least {low:,}" if low is not None else ""
    return f"{least} and at most {high:,}" if high is not None else least


def _default(value: Any) -> str:
    match value:
        case None:
            return "none"
        case tuple() | dict():
            return f"`{json.dumps(value)}`" if value else "empty"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"{value:,}"
        case _:
            return f"`{value}`"


if __name__ == "__main__":
    sys.exit(
        write_generated_part(
            "docs/reference/configuration.md", "generate_configuration_reference.py", describe_settings()
        )
    )
