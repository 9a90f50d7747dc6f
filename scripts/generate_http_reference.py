"""Writes the operations and shapes in docs/reference/http.md from their OpenAPI description; --check only compares."""

from __future__ import annotations

import json
import sys
from typing import Any

from generated_part import write_generated_part

from node.gateways.http.errors import STATUS_OF
from node.gateways.http.openapi import openapi_document


def describe_api() -> str:
    """Return the operations, then the shapes that they name, then the statuses of errors."""
    document = openapi_document()
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    shapes = [_shape(name, shape) for name, shape in sorted(_SCHEMAS.items())]
    return "\n\n".join(["## Operations", *operations, "## Shapes", *shapes, "## Statuses of errors", _statuses()])


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method} {path}`", "", f"{operation['summary']} {operation.get('description', '')}".strip(), ""]
    lines += [
        f"- `?{parameter['name']}=` {_type(parameter['schema'])}. {parameter.get('description', '')}"
        for parameter in operation["parameters"]
        if parameter["in"] == "query"
    ]
    if "requestBody" in operation:
        lines.append(f"- Body: {_content(operation['requestBody'])}")
    lines += [
        f"- {status}: {_content(answer)}"
        for status, answer in operation["responses"].items()
        if _content(answer) != _content(_ERROR)
    ]
    errors = [status for status, answer in operation["responses"].items() if _content(answer) == _content(_ERROR)]
    lines.append(f"- Errors: {', '.join(errors[:-1])}, and rarely others")
    return "\n".join(lines)


_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorView"}}}}


def _content(answer: dict[str, Any]) -> str:
    described = [
        _type(content["schema"]) if media_type == "application/json" else f"`{media_type}`"
        for media_type, content in answer.get("content", {}).items()
    ]
    return ", ".join(described) or "no content"


def _shape(name: str, shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return f"### {name}\n\nOne of {', '.join(f'`{value}`' for value in shape['enum'])}."
    required = set(shape.get("required", ()))
    rows = [
        f"| `{field}` | {_type(inner)} | {_presence(field, inner, required)} | {inner.get('description', '')} |"
        for field, inner in shape["properties"].items()
    ]
    summary = shape.get("description", "").split("\n")[0]
    return "\n".join([f"### {name}", "", summary, "", "| field | type | | meaning |", "|---|---|---|---|", *rows])


def _presence(field: str, shape: dict[str, Any], required: set[str]) -> str:
    if field in required:
        return "always"
    default = shape.get("default")
    return "optional" if default in (None, [], {}) else f"default `{json.dumps(default)}`"


def _type(shape: dict[str, Any]) -> str:
    if "anyOf" in shape:
        return " or ".join(map(_type, shape["anyOf"]))
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}" if "items" in shape else "list"
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    return str(shape.get("type", "any"))


_SCHEMAS = openapi_document()["components"]["schemas"]


def _statuses() -> str:
    rows = [f"| {code} | {status} |" for code, status in STATUS_OF.items()]
    return "\n".join(["| code | status |", "|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(write_generated_part("docs/reference/http.md", "generate_http_reference.py", describe_api()))
