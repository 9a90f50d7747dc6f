"""Files of graphs: what is read, and what is refused before anything is sent."""

from __future__ import annotations

import io
import sys
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


@pytest.mark.parametrize("text", [TOML, JSON, f" \n{JSON}"])
def test_standard_input_takes_both_formats(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It has no name to tell them apart by, and needs none."""
    give(monkeypatch, text)
    fetch, report = read_graph("-").tasks
    assert (fetch["prompt"], report["depends_on"]) == ("a", [fetch["id"]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tasks": ', "standard input is not JSON: .* What begins with { is read as JSON"),
        ("tasks = [", "standard input is not TOML: .* and anything else as TOML"),
        ("[]", "standard input is not TOML"),
        ("", "standard input has no tasks"),
    ],
)
def test_faulty_standard_input_says_as_what_it_was_read(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """So that whoever meant the other format sees why it was not taken as that."""
    give(monkeypatch, text)
    with pytest.raises(InvalidTask, match=message):
        read_graph("-")


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


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
