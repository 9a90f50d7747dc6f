"""Files of graphs: what is read, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.cli.graph_file import read_graph
from protocol import InvalidTask

TOML = """
[defaults]
kind = "echo"
priority = 7

[tasks.fetch]
prompt = "a"

[tasks.report]
kind = "mock"
prompt = "b"
depends_on = ["fetch"]
timeout_s = 5
to = "somebody"
"""
JSON = """{"defaults": {"kind": "echo", "priority": 7}, "tasks": {"fetch": {"prompt": "a"},
"report": {"kind": "mock", "prompt": "b", "depends_on": ["fetch"], "timeout_s": 5, "to": "somebody"}}}"""


@pytest.mark.parametrize(("name", "text"), [("graph.toml", TOML), ("graph.json", JSON), ("graph", JSON)])
def test_both_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    """Defaults go into each task that does not say otherwise."""
    path = tmp_path / name
    path.write_text(text)
    graph = read_graph(str(path))
    fetch, report = graph.tasks
    assert list(graph.ids) == ["fetch", "report"]
    assert (fetch["kind"], fetch["priority"], report["kind"], report["priority"]) == ("echo", 7, "mock", 7)
    assert (report["depends_on"], report["to"], report["timeout_s"]) == ([fetch["id"]], "somebody", 5)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.toml", "tasks = [", "g.toml is not TOML"),
        ("g.json", TOML, "g.json is not JSON: .*a file whose name ends in .toml is read as TOML"),
        ("g.json", "[" * 100_000, "is not JSON"),
        ("g.json", '{"tasks": {"a": {"prompt": "1"}, "a": {"prompt": "2"}}}', "an object has 'a' twice"),
        ("g.json", "[]", "has no tasks"),
        ("g.json", '{"tasks": []}', "has no tasks"),
        ("g.json", '{"tasks": {}}', "has no tasks"),
        ("g.json", '{"tasks": {"a": {"prompt": "1"}}, "task": {}}', "the unknown part 'task'"),
        ("g.json", '{"tasks": {"a": {"prompt": "1"}}, "defaults": []}', "`defaults` is not a table"),
        ("g.json", '{"tasks": {"a": 5}}', "task 'a' of .*g.json is not a table"),
        ("g.json", '{"tasks": {"a": {"prompt": "1", "priority": 256}}}', "task 'a' of .*: field priority: "),
        ("g.json", '{"tasks": {"a": {"prompt": "1", "promtp": "2"}}}', "task 'a' of .*: field promtp is unknown"),
        ("g.json", '{"tasks": {"a": {"prompt": "1", "depends_on": ["b"]}}}', "field depends_on of task 'a'"),
    ],
)
def test_a_faulty_file_is_refused_by_its_name_and_that_of_the_task(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    """Before anything is sent."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidTask, match=f"(?i){message}"):
        read_graph(str(path))
