"""The readable name of a task, and what may stand in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import (
    InvalidTask,
    Reference,
    Task,
    extract_project_id,
    is_safe_folder_name,
    parse_reference,
    project_folder,
)
from tests.protocol.strategies import names, tasks

UUID = "0b0c9d44-2f1e-4c3a-8d7e-3f2a1b0c9d44"


@given(tasks)
def test_a_reference_says_which_task_it_is(task: Task) -> None:
    """What `Task.reference` makes is taken apart again, and the plain UUID names the same task."""
    # covers FILE-10, FILE-12
    assert parse_reference(task.reference) == Reference(task.project, task.id)
    assert parse_reference(f" {task.id.upper()}\n") == Reference(None, task.id)
    assert extract_project_id(task.reference) == project_folder(task.project)


@pytest.mark.parametrize(
    "text", ["", "x", UUID[:-1], f"task-{UUID}", f"task-a/b-{UUID}", f"task-..-{UUID}", "task-a-7"]
)
def test_what_names_no_task_is_refused_with_the_form_that_does(text: str) -> None:
    """The remedy shows both forms."""
    with pytest.raises(InvalidTask, match="names no task") as refused:
        parse_reference(text)
    assert "task-{project}-{uuid}" in refused.value.remedy


def test_a_uuid_of_another_version_names_no_task() -> None:
    """Tasks have UUIDs of version 4 only; the project of such a name is still told."""
    other = f"task-alpha-{UUID[:14]}1{UUID[15:]}"
    assert extract_project_id(other) == "alpha"
    with pytest.raises(InvalidTask):
        parse_reference(other)


@given(names)
def test_a_project_is_a_folder_of_its_own_where_that_is_safe(project: str) -> None:
    """Only devices of Windows and a dot at the end are not."""
    # covers FILE-13
    assert project_folder(project) == (project if is_safe_folder_name(project) else "default")
    if not is_safe_folder_name(project):
        assert project.endswith(".") or project.partition(".")[0].upper()[:3] in {
            "CON",
            "PRN",
            "AUX",
            "NUL",
            "COM",
            "LPT",
        }


@pytest.mark.parametrize("name", ["console", "COM10", "COM", "nully", "a.con", "aux-1", "x" * 128, "1", "a..b"])
def test_names_that_only_look_like_devices_are_safe(name: str) -> None:
    """Nobody is kept from a name without need."""
    # covers FILE-13
    assert is_safe_folder_name(name)


@given(st.text(max_size=20_000))
def test_a_long_text_is_judged_quickly_and_in_few_words(text: str) -> None:
    """Neither the work nor the message grows with what a stranger sends."""
    with pytest.raises(InvalidTask) as refused:
        parse_reference("task-" * 4_000 + text)
    assert len(str(refused.value)) < 600
