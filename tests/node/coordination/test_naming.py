"""Graphs as people write them: names instead of ids."""

from __future__ import annotations

from typing import Any

import pytest

from node.coordination.naming import resolve_names
from protocol import InvalidTask, new_task_id


def test_names_become_ids_and_titles() -> None:
    """Dependencies and parents may be names, in any order, or ids that the node has; an id that is given stays."""
    given, elsewhere = new_task_id(), new_task_id()
    graph = resolve_names(
        {
            "last": {"prompt": "b", "depends_on": ["first", elsewhere], "parent_id": "goal"},
            "first": {"prompt": "a", "id": given, "metadata": {"title": "The first", "x": 1}},
            "goal": {"prompt": "c", "depends_on": ("last",), "parent_id": elsewhere.upper()},
        }
    )
    last, first, goal = graph.tasks
    assert graph.ids == {"last": last["id"], "first": given, "goal": goal["id"]}
    assert (last["depends_on"], last["parent_id"]) == ([given, elsewhere], goal["id"])
    assert (goal["depends_on"], goal["parent_id"]) == ([last["id"]], elsewhere)
    assert [task["metadata"] for task in graph.tasks] == [
        {"title": "last"},
        {"title": "The first", "x": 1},
        {"title": "goal"},
    ]
    assert "depends_on" not in first
    assert not graph.fresh
    assert resolve_names({"one": {"prompt": ""}}).fresh


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"": {"prompt": "a"}}, "'' cannot be the name of a task. Use 1 to 64"),
        ({"-x": {"prompt": "a"}}, "'-x' cannot be the name"),
        ({"a" * 65: {"prompt": "a"}}, "cannot be the name"),
        ({str(new_task_id()): {"prompt": "a"}}, "cannot be the name"),
        ({"a": {}}, "task 'a' has no prompt"),
        ({"a": "text"}, "task 'a' has no prompt"),
        ({"a": {"prompt": "a", "id": "7"}}, "field id: '7' is not a UUID"),
        ({"a": {"prompt": "a", "depends_on": "b"}}, "field depends_on of task 'a': it is not a list of names, but 'b'"),
        ({"a": {"prompt": "a", "depends_on": [7]}}, "there is no task 7 in the graph. Name a task"),
        ({"fetch": {"prompt": "a"}, "b": {"prompt": "b", "depends_on": ["fecth"]}}, r"Did you mean 'fetch'\?"),
        ({"a": {"prompt": "a", "parent_id": "goal"}}, "field parent_id of task 'a': there is no task 'goal'"),
    ],
)
def test_a_name_that_means_nothing_is_refused_in_words(graph: dict[str, Any], message: str) -> None:
    """The message names the task, and what was probably meant."""
    with pytest.raises(InvalidTask, match=message):
        resolve_names(graph)


def test_fields_that_are_wrong_are_left_for_the_check_of_the_task() -> None:
    """It says what a field must be."""
    (task,) = resolve_names({"a": {"prompt": "a", "metadata": 5}}).tasks
    assert task["metadata"] == 5
