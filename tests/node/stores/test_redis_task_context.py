"""Task contexts: their shape, and the way from a record and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from node.stores.redis import (
    STATE_OF,
    ContextStatus,
    Message,
    Part,
    State,
    TaskContext,
    completed,
    context_of,
    record_of,
    status_of,
)
from node.stores.redis.task_context import read_record
from node.testing import TEST_PEER, make_task
from protocol import (
    Artifact,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    PeertaskError,
    Started,
    Submitted,
    TaskRecord,
    TaskResult,
    TaskStatus,
    advance,
    begin,
)
from tests.doc_examples import ROOT
from tests.node.stores.records import records

NODE = PeerId("12D3KooWNode")
SCHEMA = json.loads((ROOT / "docs" / "reference" / "task-context.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
# The machines that run this suite are shared, and their pauses are not defects; a record takes a while to draw.
patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def complete_record(*artifacts: Artifact, metadata: dict[str, Any] | None = None) -> TaskRecord:
    """Return the record of a task that is complete."""
    task = make_task("count to two", session_id="talk", metadata=metadata or {})
    record = begin(Submitted(task, 1_000, TEST_PEER))
    record = advance(record, Claimed(task.id, 2_000, 1, TEST_PEER, 9_000))
    record = advance(record, Started(task.id, 2_500, 1))
    return advance(record, Completed(task.id, 3_000, 1, TaskResult(task.id, "one two", 500, artifacts)))


def shape_of(record: TaskRecord) -> dict[str, Any]:
    """Return the JSON of a record's context."""
    shape: dict[str, Any] = json.loads(context_of(record, NODE).to_json())
    return shape


@patient
@given(record=records())
def test_a_record_comes_back_from_its_value_as_it_was(record: TaskRecord) -> None:
    """Whatever a record holds goes into the server and comes back without loss, and so does the context."""
    # covers REDIS-4, REDIS-29
    context = context_of(record, NODE)
    read = TaskContext.from_json(context.to_json())
    assert read == context
    assert record_of(read, NODE) == record
    assert context_of(record_of(read, NODE), NODE).to_json() == context.to_json()


@patient
@given(record=records())
def test_every_value_has_the_shape_of_the_reference(record: TaskRecord) -> None:
    """Other programs can rely on the JSON schema of docs/reference."""
    # covers REDIS-32
    VALIDATOR.validate(shape_of(record))


def test_the_schema_refuses_what_is_no_task_context() -> None:
    """A schema that takes everything would prove nothing."""
    # covers REDIS-32
    Draft202012Validator.check_schema(SCHEMA)
    good = shape_of(complete_record())
    for wrong in (
        {**good, "status": {"state": "Done"}},
        {**good, "status": {"state": "InProgress", "completedAt": "2026-01-01T00:00:00.000Z"}},
        {**good, "history": [{"role": "user", "parts": []}]},
        {**good, "artifacts": [{"artifactId": "0", "parts": [{"kind": "text"}]}]},
        {name: value for name, value in good.items() if name != "sessionId"},
    ):
        assert not VALIDATOR.is_valid(wrong)


def test_the_fields_are_those_of_a2a() -> None:
    """Prompt, answer, artifacts and state stand where a program that knows A2A looks for them."""
    # covers REDIS-18, REDIS-19, REDIS-20, REDIS-21, REDIS-22, REDIS-23
    plot = Artifact(name="plot.png", content="iVBORw==", media_type="image/png", encoding="base64")
    table = Artifact(name="table.csv", content="a,b", media_type="text/csv")
    record = complete_record(plot, table, metadata={"workflowId": "w-1", "userId": "u-1"})
    shape = shape_of(record)
    assert set(shape) == {"id", "sessionId", "status", "history", "artifacts", "metadata"}
    assert (shape["id"], shape["sessionId"]) == (record.id, "talk")
    at = "1970-01-01T00:00:03.000Z"
    assert shape["status"] == {"state": "Completed", "timestamp": at, "completedAt": at}
    assert [(message["role"], message["parts"]) for message in shape["history"]] == [
        ("user", [{"kind": "text", "text": "count to two"}]),
        ("agent", [{"kind": "text", "text": "one two"}]),
    ]
    file = {"name": "plot.png", "mimeType": "image/png", "bytes": "iVBORw=="}
    text = {"kind": "text", "text": "a,b", "metadata": {"mimeType": "text/csv"}}
    assert shape["artifacts"] == [
        {"artifactId": "0", "name": "plot.png", "parts": [{"kind": "file", "file": file}]},
        {"artifactId": "1", "name": "table.csv", "parts": [text]},
    ]
    assert shape["metadata"]["workflowId"] == "w-1"
    assert shape["metadata"]["userId"] == "u-1"
    assert shape["metadata"]["peertask"]["node"] == NODE


def test_a_failure_says_why_in_a_message() -> None:
    """Whoever looks at a failed task reads the reason, and when it was."""
    task = make_task()
    failed = Failed(task.id, 2_000, 0, Failure.of(ErrorCode.NO_EXECUTOR, "nobody can"))
    status = shape_of(advance(begin(Submitted(task, 1_000, TEST_PEER)), failed))["status"]
    assert (status["state"], status["completedAt"]) == ("Failed", "1970-01-01T00:00:02.000Z")
    assert status["message"]["parts"][0]["text"] == "nobody can"


def test_nothing_large_stands_twice_in_a_value() -> None:
    """A task of a megabyte takes a megabyte in the server, and so does its result."""
    record = complete_record(Artifact(name="a", content="ARTIFACT"))
    value = context_of(record, NODE).to_json()
    assert [value.count(text) for text in (b"count to two", b"one two", b"ARTIFACT")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", "InProgress"),
        ("claimed", "InProgress"),
        ("executing", "InProgress"),
        ("cancelling", "InProgress"),
        ("complete", "Completed"),
        ("failed", "Failed"),
        ("cancelled", "Cancelled"),
    ],
)
def test_every_status_has_a_state(status: str, state: str) -> None:
    """The table of the design, row by row; there and back it stays in its state."""
    # covers REDIS-20
    assert STATE_OF[TaskStatus(status)] is State(state)
    assert STATE_OF[status_of(State(state))] is State(state)
    assert set(STATE_OF) == set(TaskStatus)


@pytest.mark.parametrize(
    ("state", "status"),
    [("InProgress", "executing"), ("Completed", "complete"), ("Failed", "failed"), ("Cancelled", "cancelled")],
)
def test_every_state_has_a_status(state: str, status: str) -> None:
    """What other programs write means something here."""
    # covers REDIS-20
    assert status_of(State(state)) is TaskStatus(status)


def test_metadata_that_use_our_name_are_kept_too() -> None:
    """A requester may have any key in its metadata, ours included."""
    record = complete_record(metadata={"peertask": {"node": "somebody"}, "a": None})
    context = TaskContext.from_json(context_of(record, NODE).to_json())
    assert context.kept_by == NODE
    assert record_of(context, NODE) == record


def test_fields_of_other_programs_are_kept() -> None:
    """A program that reads, changes and writes a context loses nothing that another one has put there."""
    part = Part.model_validate({"kind": "data", "data": {"x": None}, "extra": 1})
    context = TaskContext.model_validate(
        {
            "id": "t",
            "sessionId": "s",
            "status": {"state": "InProgress", "progress": 3},
            "history": [{"role": "user", "parts": [part], "messageId": "m", "kind": "message"}],
            "custom": {"deep": [1]},
        }
    )
    shape = json.loads(context.to_json())
    assert (shape["custom"], shape["status"]["progress"]) == ({"deep": [1]}, 3)
    assert shape["history"][0]["kind"] == "message"
    assert shape["history"][0]["parts"] == [{"kind": "data", "data": {"x": None}, "extra": 1}]


def test_a_completed_context_says_when() -> None:
    """The time is the caller's; the rest stays as it was."""
    # covers REDIS-11
    status = ContextStatus(state=State.IN_PROGRESS)
    context = TaskContext(id="t", session_id="s", status=status, history=(Message.of("user", "hi", "m"),))
    done = completed(context, 1_500)
    assert (done.status.state, done.status.completed_at) == (State.COMPLETED, "1970-01-01T00:00:01.500Z")
    assert (done.id, done.history) == (context.id, context.history)
    VALIDATOR.validate(json.loads(done.to_json()))


def spoilt(**changed: Any) -> TaskContext:
    """Return the context of a record, with something else in it."""
    shape = shape_of(complete_record())
    kept = {**shape["metadata"]["peertask"], **changed.pop("kept", {})}
    return TaskContext.model_validate({**shape, "metadata": {"peertask": kept}, **changed})


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (spoilt(metadata={}), "no node keeps this task"),
        (spoilt(kept={"node": "12D3KooWOther"}), "belongs to the node 12D3KooWOther"),
        (spoilt(kept={"version": 2}), "has version 2, and this program reads version 1"),
        (spoilt(kept={"record": {"status": "complete"}}), "incomplete"),
        (spoilt(kept={"record": None}), "incomplete"),
        (spoilt(history=[]), "incomplete"),
        (
            spoilt(artifacts=[{"artifactId": "0", "name": "", "parts": [{"text": "", "metadata": {"mimeType": ""}}]}]),
            "malf",
        ),
        (spoilt(status={"state": "Failed"}), "the context says otherwise"),
        (spoilt(id="another"), "the context says otherwise"),
    ],
)
def test_a_context_that_holds_no_good_record_says_why(context: TaskContext, why: str) -> None:
    """Another program may have written it, another version of this one, or a person."""
    with pytest.raises(PeertaskError, match=why) as refused:
        record_of(context, NODE)
    assert refused.value.code is ErrorCode.STORE_FAILED


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"\xff", b'{"metadata": 3}'])
def test_a_value_that_holds_no_record_says_why(value: bytes) -> None:
    """Whatever stands under a key does not stop a node that starts."""
    with pytest.raises(PeertaskError, match="it is no task context") as refused:
        read_record(value, NODE)
    assert refused.value.code is ErrorCode.STORE_FAILED


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"\xff", b'{"id": 3, "sessionId": "s", "status": {}}'])
def test_a_value_that_is_no_context_says_why(value: bytes) -> None:
    """Whatever stands under a key is an error in words, and not a crash."""
    with pytest.raises(PeertaskError, match="field") as refused:
        TaskContext.from_json(value)
    assert refused.value.code is ErrorCode.STORE_FAILED
