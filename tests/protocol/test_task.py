"""What a task is, what it may not be, and how it looks in JSON."""

import copy
import json
import os
import re
import uuid

import pytest
from hypothesis import given
from pydantic import ValidationError

from protocol import (
    DEFAULT_PRIORITY,
    DEFAULT_RETRY,
    MAX_PAYLOAD_BYTES,
    InvalidTask,
    RetryPolicy,
    Task,
    draw_ids_from,
    new_task_id,
    parse_task_id,
)
from tests.protocol import strategies
from tests.protocol.samples import ALICE, FULL_TASK, NOON, OTHER_ID, PLAIN_TASK, TASK_ID

VERSION_1 = "c232ab00-9414-11ec-b3c8-9f6bdeced846"


def test_a_new_task_has_a_uuid_a_prompt_a_sender_a_time_and_a_priority() -> None:
    """The least that a task is made from gives a complete task."""  # covers CORE-1, CORE-3, CORE-4, CORE-13, CORE-19
    task = Task.new("Hello", ALICE, timestamp=NOON)
    assert (task.prompt, task.sender, task.timestamp, task.priority) == ("Hello", ALICE, NOON, 5)
    assert (task.kind, task.project, task.params, task.metadata, task.retry) == (
        "mock",
        "default",
        {},
        {},
        DEFAULT_RETRY,
    )
    assert DEFAULT_PRIORITY == 5


def test_ids_are_random_uuids_of_version_4() -> None:
    """No two tasks share an id, on any node."""  # covers CORE-29
    ids = {new_task_id() for _ in range(100)}
    assert len(ids) == 100
    assert {uuid.UUID(task_id).version for task_id in ids} == {4}
    assert uuid.UUID(Task.new("Hello", ALICE, timestamp=NOON).id).version == 4


def test_ids_that_come_in_a_row_lie_side_by_side_and_cannot_be_guessed() -> None:
    """An index keeps a commit's tasks on a few of its pages; what the ids of a draw do not share is random."""
    with draw_ids_from(os.urandom):
        ids = [new_task_id() for _ in range(1_000)]
    beginnings = {task_id[:8] for task_id in ids}
    assert 4 <= len(beginnings) <= 5
    assert len({task_id[9:] for task_id in ids}) == len({task_id[24:] for task_id in ids}) == 1_000


def test_a_task_cannot_be_changed_and_can_be_copied_and_printed() -> None:
    """A task is a value: shared without care, copied with `replace`, and readable in a log."""  # covers CORE-19
    with pytest.raises(AttributeError):
        PLAIN_TASK.priority = 6  # type: ignore[misc]
    assert copy.deepcopy(FULL_TASK) == FULL_TASK
    assert "prompt='Hello'" in repr(PLAIN_TASK)


def test_a_task_does_not_share_its_params_with_whoever_made_it() -> None:
    """A dict that is changed after the task was made does not change the task."""
    params = {"model": "small"}
    task = Task.new("Hello", ALICE, timestamp=NOON, params=params)
    params["model"] = "large"
    assert task.params == {"model": "small"}


def test_the_reference_of_a_task_names_its_project_and_its_id() -> None:
    """The readable name is also that of a checkpoint file."""
    assert FULL_TASK.reference == f"task-night-batch-{TASK_ID}"


@given(strategies.tasks)
def test_a_task_survives_its_json(task: Task) -> None:
    """A task read back from its dict, its text or its bytes is the same task."""  # covers CORE-2, FILE-7
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert Task.from_json(task.to_json()) == task
    assert Task.from_json(task.to_json().encode()) == task


def test_the_json_of_a_task_has_every_field() -> None:
    """A reader in another language need not know the defaults."""
    assert set(PLAIN_TASK.to_dict()) == set(Task.__slots__)
    assert json.loads(PLAIN_TASK.to_json()) == PLAIN_TASK.to_dict()


def test_unknown_fields_are_ignored() -> None:
    """An older node takes a newer node's task."""
    assert Task.from_dict({**PLAIN_TASK.to_dict(), "mood": "good"}) == PLAIN_TASK


@pytest.mark.parametrize("field", ["id", "prompt", "sender", "timestamp"])
def test_a_task_without_a_required_field_is_refused(field: str) -> None:
    """The error names the field that is missing."""
    shape = PLAIN_TASK.to_dict()
    del shape[field]
    with pytest.raises(InvalidTask, match=f"field {field} is missing"):
        Task.from_dict(shape)


WRONG: dict[str, list[object]] = {
    "id": ["", "x", 7, VERSION_1, TASK_ID.upper(), f"{TASK_ID}\n", f" {TASK_ID}", None],
    "prompt": [5, None, b"text", "\ud800", "x" * (MAX_PAYLOAD_BYTES + 1)],
    "sender": ["", "x" * 129, 5, None],
    "timestamp": [-1, 2**63, "5", 1.5, 1.0, True, None],
    "kind": ["", "a b", "-x", "ä", "a/b", "..", "x" * 129, "x\n", None, 5],
    "params": [None, [], "{}", {1: 2}, {b"a": 1}, {"a": {1, 2}}, {"a": (1,)}, {"a": b"x"}, {"a": object()}],
    "priority": [-1, 256, "5", True, 5.0, None],
    "project": ["", "../x", "a b", None],
    "session_id": ["", "a b", 5],
    "persona": ["", "a b", 5],
    "depends_on": [None, "x", ["x"], [TASK_ID] * 1025, {TASK_ID: 1}, [None]],
    "on_failed_dependency": ["", "ignore", None, 5],
    "parent_id": ["", "x", TASK_ID.upper(), 5],
    "timeout_ms": [0, -1, 86_400_001, "5", True, 1.0],
    "retry": [None, 3, {"attempts": 0}, {"attempts": 101}, {"attempts": "3"}, {"attempts": True}],
    "metadata": [None, [], {"a": float("nan")}, {"\ud800": 1}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    """Nothing is coerced: a value of another type, or out of range, is an error that names the field."""
    with pytest.raises(InvalidTask, match=f"^field {field}[.:]") as caught:
        Task.from_dict({**PLAIN_TASK.to_dict(), field: value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backoff_ms", -1),
        ("backoff_ms", 3_600_001),
        ("backoff_ms", 1.0),
        ("factor", 0.5),
        ("factor", 11),
        ("factor", "2"),
        ("factor", True),
        ("factor", float("nan")),
        ("max_backoff_ms", "1"),
        ("elsewhere", 1),
        ("elsewhere", "yes"),
        ("retry_on", "TIMEOUT"),
        ("retry_on", ["TIMEOUT"] * 129),
    ],
)
def test_a_wrong_retry_policy_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    """The parts of a task are as strict as the task."""
    with pytest.raises(InvalidTask, match=f"^field retry.{field}: "):
        Task.from_dict({**PLAIN_TASK.to_dict(), "retry": {field: value}})


def test_a_code_that_is_none_is_refused_by_its_place() -> None:
    """A misspelt code would never be retried, and nobody would know."""
    with pytest.raises(InvalidTask, match=r"^field retry\.retry_on\.1: .*TIMEOUT"):
        Task.from_dict({**PLAIN_TASK.to_dict(), "retry": {"retry_on": ["TIMEOUT", "TIME_OUT"]}})


def test_an_integer_is_a_good_factor() -> None:
    """JSON does not tell 2 from 2.0, so neither does a task."""
    task = Task.from_dict({**PLAIN_TASK.to_dict(), "retry": {"factor": 2}})
    assert task.retry == RetryPolicy(factor=2.0)


def test_json_that_is_no_json_is_refused() -> None:
    """Text that cannot be read is an invalid task, whatever is wrong with it."""
    for text in ("", "{", "[]", '{"a": 1}', b"\xff", '{"params": NaN}'):
        with pytest.raises(InvalidTask):
            Task.from_json(text)


def test_the_plain_constructor_checks_as_well() -> None:
    """There is no way to a task that is not checked; the constructor raises pydantic's error."""
    with pytest.raises(ValidationError):
        Task(id=TASK_ID, prompt="Hello", sender=ALICE, timestamp=NOON, priority=256)


@pytest.mark.parametrize("text", [TASK_ID, TASK_ID.upper(), f"  {TASK_ID}\n", uuid.UUID(TASK_ID)])
def test_a_task_id_may_be_written_in_other_ways(text: str | uuid.UUID) -> None:
    """What a person pastes is brought to the one form that is compared."""
    assert parse_task_id(text) == TASK_ID


@pytest.mark.parametrize("text", ["", "x", "3f1c9d2e", VERSION_1, "x" * 1000, OTHER_ID.replace("-", "")])
def test_what_is_no_uuid_of_version_4_is_no_task_id(text: str) -> None:
    """The error shows the form that is asked for, and not more of the text than helps."""
    with pytest.raises(InvalidTask, match=re.escape("xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx")) as caught:
        parse_task_id(text)
    assert len(str(caught.value)) < 300
