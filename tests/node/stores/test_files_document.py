"""The text in the file of a task: nothing is lost in it, and what is not one is told from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.checkpoints import EngineErrorCode
from node.stores.files.document import Malformed, decode, encode, read_metadata, utc_text
from node.testing import START_MS, TEST_PEER, make_task
from protocol import (
    LOST_REASONS,
    TRANSITIONS,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    Fact,
    Failed,
    Progressed,
    Released,
    Started,
    Submitted,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
)
from tests.node.stores.task_lives import finished
from tests.protocol.strategies import codes, counts, failures, peer_ids, receipts, results, tasks, texts

_ANY_TEXT = st.text(max_size=30)  # lone surrogates too: no file may be lost for the words of an executor


def _step(draw: st.DrawFn, record: TaskRecord, kind: type[Transition]) -> Transition:
    """Draw a fact of a kind that may follow on a record."""
    task_id, at, attempt = record.id, draw(counts), record.attempt
    makers: dict[type[Transition], Callable[[], Transition]] = {
        Claimed: lambda: Claimed(task_id, at, attempt + 1, draw(peer_ids), draw(counts)),
        Started: lambda: Started(task_id, at, attempt),
        Progressed: lambda: Progressed(task_id, at, attempt, draw(st.floats(0, 1)), draw(_ANY_TEXT), draw(counts)),
        Completed: lambda: Completed(task_id, at, attempt, _result(draw(results), record), draw(st.none() | receipts)),
        Failed: lambda: Failed(task_id, at, attempt, draw(failures)),
        Released: lambda: Released(
            task_id, at, attempt, draw(st.sampled_from(sorted(LOST_REASONS)) | codes), draw(_ANY_TEXT), draw(counts)
        ),
        CancelRequested: lambda: CancelRequested(task_id, at),
        Cancelled: lambda: Cancelled(task_id, at),
    }
    return makers[kind]()


def _result(result: TaskResult, record: TaskRecord) -> TaskResult:
    return TaskResult(record.id, result.result, result.duration_ms, result.artifacts)


@st.composite
def lives(draw: st.DrawFn) -> tuple[TaskRecord, list[Fact]]:
    """A task after some facts, and those facts."""
    submitted = Submitted(
        draw(tasks), draw(counts), draw(peer_ids), draw(st.none() | peer_ids), draw(st.none() | counts)
    )
    record, facts = begin(submitted), list[Fact]([submitted])
    for _ in range(draw(st.integers(0, 8))):
        if record.terminal:
            break
        kinds = sorted(TRANSITIONS[record.status], key=lambda kind: kind.__name__)
        fact = _step(draw, record, draw(st.sampled_from(kinds)))
        record = advance(record, fact)
        facts.append(fact)
    return record, facts


@given(lives(), st.integers(0, 3))
def test_a_record_and_its_facts_come_back_as_they_were(life: tuple[TaskRecord, list[Fact]], dropped: int) -> None:
    """Whatever happened to a task, and however many of the first facts are not kept, nothing is lost in the text."""
    # covers FILE-5, FILE-6, FILE-7
    record, facts = life
    kept = facts[dropped:]
    data = encode(record, kept)
    document = decode(data)
    assert document.record == record
    assert document.facts() == kept
    assert encode(document.record, document.facts()) == data
    assert data.endswith(b"\n")
    assert json.loads(data)["record"]["task"]["id"] == record.id


@given(lives())
def test_the_metadata_is_that_of_the_record(life: tuple[TaskRecord, list[Fact]]) -> None:
    """A list shows of a file what loading it would show."""
    # covers FILE-29
    record, facts = life
    metadata = read_metadata(encode(record, facts))
    assert set(metadata) == {"task_id", "status", "pipeline_id", "created_at", "updated_at"}
    assert metadata["task_id"] == record.id
    assert metadata["status"] == record.status
    assert (metadata["created_at"], metadata["updated_at"]) == (record.created_at, record.updated_at)


@given(texts | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_any_text_is_judged_in_words(text: str) -> None:
    """Whatever a file holds, reading it gives a task or a reason, and nothing else."""
    # covers FILE-31
    for judge in (decode, read_metadata):
        with pytest.raises(Malformed) as refused:
            judge(text.encode())
        assert str(refused.value)


def test_the_times_are_told_in_utc() -> None:
    """A moment is ISO 8601 with milliseconds; no moment, and one that the calendar has no name for, is none."""
    assert utc_text(START_MS) == "2027-01-15T08:00:00.000Z"
    assert utc_text(1) == "1970-01-01T00:00:00.001Z"
    assert utc_text(253_402_300_799_999) == "9999-12-31T23:59:59.999Z"
    assert [utc_text(none) for none in (None, 0, 253_402_300_800_000, 2**63 - 1)] == [None] * 4


def test_the_moments_in_words_are_not_read_back() -> None:
    """Who edits a file by hand changes the numbers; the words are made anew."""
    record, facts = _finished()
    document = json.loads(encode(record, facts))
    document["record"]["created_at_utc"] = "yesterday"
    assert decode(json.dumps(document).encode()).record == record


def test_metadata_needs_no_valid_task() -> None:
    """A list of checkpoints is not held up by a field that it does not show."""
    # covers FILE-30
    document = json.loads(encode(*_finished()))
    document["record"]["task"]["priority"] = "high"
    document["record"]["task"]["metadata"] = {"pipeline_id": "p-7"}
    document["facts"] = "none"
    data = json.dumps(document).encode()
    assert read_metadata(data)["pipeline_id"] == "p-7"
    with pytest.raises(Malformed):
        decode(data)


def _finished() -> tuple[TaskRecord, list[Fact]]:
    changes = finished(make_task())
    return changes[-1].record, [change.fact for change in changes]


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


def _edits() -> Iterator[tuple[Callable[[Any], None], str]]:
    yield _set("version", to=2), "its version is 2"
    yield _drop("version"), "its version is None"
    yield _set("record", to=[]), "it holds no record"
    yield _drop("record", "attempt"), "field attempt"
    yield _set("record", "attempt", to="two"), "field attempt"
    yield _set("record", "seq", to=0), "field seq"
    yield _set("record", "status", to="lost"), "field status"
    yield _set("record", "status", to="pending"), "does not fit its result"
    yield _set("record", "result", to=None), "does not fit its result"
    yield _set("record", "failure", to={"code": "TIMEOUT", "message": ""}), "does not fit its result"
    yield _set("record", "result", "task_id", to=str(make_task().id)), "another task"
    yield _set("record", "task", "priority", to=999), "field priority"
    yield _set("record", "task", "id", to="x"), "field id"
    yield _set("record", "result", to={"result": 3}), "field task_id"
    yield _drop("facts"), "not a list of objects"
    yield _set("facts", 0, to=1), "not a list of objects"
    yield _drop("facts", 1), "not numbered without a gap up to 4"
    yield _drop("facts", 3), "not numbered without a gap up to 4"
    yield _set("facts", 0, "seq", to=2), "not numbered"
    yield _set("facts", 1, "fact", to="Guessed"), "fact number 2 cannot be a 'Guessed'"
    yield _set("facts", 1, "fact", to=[]), "fact number 2 cannot be a []"
    yield _set("facts", 1, "fact", to="Submitted"), "fact number 2 cannot be a 'Submitted'"
    yield _set("facts", 0, "fact", to="Claimed"), "fact number 1 cannot be a 'Claimed'"
    yield _set("facts", 1, "at", to="now"), "fact number 2 is wrong: field at"
    yield _drop("facts", 1, "holder"), "fact number 2 is wrong: field holder"
    yield (
        _set("facts", 2, to={"seq": 3, "fact": "Released", "reason": "BORED", "at": 1, "attempt": 1}),
        "fact number 3 is wrong: 'BORED'",
    )


@pytest.mark.parametrize(("edit", "reason"), list(_edits()))
def test_an_edit_that_makes_no_sense_is_found(edit: Callable[[Any], None], reason: str) -> None:
    """What a person got wrong in a file is named, and not taken over."""
    # covers FILE-20, FILE-23
    document = json.loads(encode(*_finished()))
    edit(document)
    with pytest.raises(Malformed) as refused:
        decode(json.dumps(document).encode()).facts()
    assert reason in str(refused.value)
    assert refused.value.kind is EngineErrorCode.VALIDATION


def test_a_fact_that_the_record_tells_already_is_not_told_twice() -> None:
    """A prompt of megabytes stands in a file once, and so does a result."""
    changes = finished(make_task("the prompt"), "the result")
    data = encode(changes[-1].record, [change.fact for change in changes])
    assert data.count(b"the prompt") == data.count(b"the result") == 1
    assert TEST_PEER.encode() in data
