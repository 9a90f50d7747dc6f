"""The description of the gateway is complete, consistent, and what is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from starlette.routing import Route

from node.feed import Feed
from node.gateways.http.app import create_app
from node.gateways.http.gateway import Gateway
from node.gateways.http.openapi import OPENAPI_PATH, openapi_document
from node.gateways.http.operations import OPERATIONS
from node.manager import TaskManager
from node.stores.memory import MemoryStore
from node.testing.clocks import FakeClock
from tests.node.gateways.http_node import OWN_ID, ScriptedNode, connected, idle_work, serving


def _described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in openapi_document()["paths"].items():
        for method, operation in operations.items():
            yield path, method.upper(), operation


async def test_the_description_is_served(tmp_path: Path) -> None:
    """A client can learn everything from the node itself."""
    async with serving(tmp_path) as served, connected(served) as client:
        document = (await client.get(OPENAPI_PATH)).json()
        assert document["openapi"] == "3.1.0"
        assert document["paths"].keys() == openapi_document()["paths"].keys()


def test_what_is_routed_and_what_is_described_are_the_same() -> None:
    """No path is secret, and none is promised in vain."""
    clock = FakeClock()
    manager = TaskManager(MemoryStore(), clock, Feed(), own_id=OWN_ID)
    app = create_app(Gateway(manager, ScriptedNode(), clock, idle_work(manager, clock)))
    routed = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routed - {(OPENAPI_PATH, "GET")} == {(path, method) for path, method, _ in _described()}


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    """A generator of clients meets no dangling name and no nonsense."""
    document = openapi_document()
    schemas = document["components"]["schemas"]
    referenced = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referenced <= schemas.keys()
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    """Generated clients name their methods after the operations."""
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(operation.summary.endswith(".") for operation in OPERATIONS)
    for path, _, operation in _described():
        in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        assert {"400", "401", "421", "500"} <= operation["responses"].keys()


def test_every_parameter_and_every_field_of_a_task_is_explained() -> None:
    """What a client may send needs no guessing."""
    for path, method, operation in _described():
        for parameter in operation["parameters"]:
            assert parameter["in"] == "path" or parameter.get("description"), (method, path, parameter["name"])
    for name in ("TaskRequest", "RetryRequest", "BatchRequest", "ConnectRequest"):
        properties = openapi_document()["components"]["schemas"][name]["properties"]
        assert all(shape.get("description") for shape in properties.values()), name
