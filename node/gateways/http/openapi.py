"""The description of the gateway in OpenAPI 3.1, made from the table of operations and the models that it names."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from node.gateways.http.attribute_docs import attribute_docs
from node.gateways.http.operations import JSON, OPERATIONS, Operation
from node.gateways.http.request_models import TaskRequest
from node.gateways.http.response_models import BatchItem, ErrorBody, ErrorView, EventView, LaggedView
from protocol import JsonObject, TaskResult

OPENAPI_PATH: Final = "/v1/openapi.json"
API_VERSION: Final = "1.0.0"

# Any request can meet these: malformed; no token, or not this host; a defect.
_ALWAYS: Final = (400, 401, 421, 500)
_ANY_OTHER: Final = "default"

_DESCRIPTION: Final = (
    "Tasks, peers and health of one peertask node. Served on a Unix socket in the node's data folder, and, when asked,"
    " on loopback TCP with the bearer token of the data folder. Times are milliseconds since the epoch; fields that end"
    " in `_iso` repeat them for people."
)

_Model = type[BaseModel | TaskResult]


@cache
def openapi_document() -> JsonObject:
    """Return the OpenAPI document; the same object each time."""
    paths: dict[str, dict[str, JsonObject]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "peertask", "version": API_VERSION, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Over TCP only."}},
        },
        "security": [{}, {"token": []}],
    }


def _describe(operation: Operation) -> JsonObject:
    described: JsonObject = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation),
    }
    if operation.details:
        described["description"] = operation.details
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(operation.body)}}}
    return described


def _path_parameters(operation: Operation) -> list[JsonObject]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]


def _query_parameters(operation: Operation) -> list[JsonObject]:
    if operation.query is None:
        return []
    schema, docs = operation.query.model_json_schema(), attribute_docs(operation.query)
    parameters = []
    for name, shape in schema["properties"].items():
        parameter = {"name": name, "in": "query", "required": False, "schema": _inlined(shape, schema.get("$defs", {}))}
        if name in docs:
            parameter["description"] = docs[name]
        if "array" in str(shape):
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _inlined(shape: Any, definitions: JsonObject) -> Any:
    if isinstance(shape, list):
        return [_inlined(item, definitions) for item in shape]
    if not isinstance(shape, dict):
        return shape
    if "$ref" in shape:
        return _inlined(definitions[shape["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in shape.items()}


def _responses(operation: Operation) -> JsonObject:
    answers = {str(status): _answer(operation, status) for status in operation.answers}
    content = {JSON: {"schema": _reference(ErrorView)}}
    errors: JsonObject = {
        str(status): {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*_ALWAYS, *operation.errors} - set(operation.answers))
    }
    return {**answers, **errors, _ANY_OTHER: {"description": "Any other error", "content": content}}


def _answer(operation: Operation, status: int) -> JsonObject:
    described: JsonObject = {"description": HTTPStatus(status).phrase}
    model = operation.answers[status]
    if model is not None:
        described["content"] = {operation.media_type: {"schema": _reference(model)}}
    elif operation.media_type != JSON and status == HTTPStatus.OK:
        described["content"] = {operation.media_type: {"schema": {"type": "string"}}}
    return described


def _schemas() -> JsonObject:
    models: dict[_Model, JsonSchemaMode] = dict.fromkeys(
        (ErrorView, ErrorBody, EventView, LaggedView, BatchItem, TaskRequest), "validation"
    )
    for operation in OPERATIONS:
        named = (operation.body, *operation.answers.values())
        models |= dict.fromkeys((model for model in named if model is not None), "validation")
    _, schema = models_json_schema(
        list(models.items()),  # type: ignore[arg-type]
        ref_template="#/components/schemas/{model}",
    )
    for model in models:
        properties = schema["$defs"][model.__name__]["properties"]
        for name, text in attribute_docs(model).items():
            properties[name] = {**properties[name], "description": text}
    return schema["$defs"]  # type: ignore[no-any-return]


def _reference(model: _Model) -> JsonObject:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
