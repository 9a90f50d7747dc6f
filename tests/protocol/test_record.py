"""What a node keeps of a task, and its JSON shape."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    InvalidTask,
    Progressed,
    Receipt,
    Released,
    Started,
    Submitted,
    TaskRecord,
    TaskResult,
    TaskStatus,
    advance,
    begin,
    fact_from_dict,
    fact_to_dict,
)
from tests.protocol import strategies
from tests.protocol.samples import FACTS, FAILURE, FULL_RESULT, RECEIPT, TASK_ID, TRANSITIONS_BY_NAME, pending

facts: st.SearchStrategy[Fact] = st.one_of(
    st.builds(
        Submitted,
        task=strategies.tasks,
        at=strategies.counts,
        requester=strategies.peer_ids,
        target=st.none() | strategies.peer_ids,
        deadline=st.none() | strategies.counts,
    ),
    st.builds(
        Claimed,
        task_id=strategies.task_ids,
        at=strategies.counts,
        attempt=strategies.counts,
        holder=strategies.peer_ids,
        lease_until=strategies.counts,
    ),
    st.builds(Started, task_id=strategies.task_ids, at=strategies.counts, attempt=strategies.counts),
    st.builds(
        Progressed,
        task_id=strategies.task_ids,
        at=strategies.counts,
        attempt=strategies.counts,
        fraction=st.floats(0, 1),
        message=strategies.texts,
        lease_until=strategies.counts,
    ),
    st.builds(
        Completed,
        task_id=strategies.task_ids,
        at=strategies.counts,
        attempt=strategies.counts,
        result=strategies.results,
        receipt=st.none() | strategies.receipts,
    ),
    st.builds(
        Failed,
        task_id=strategies.task_ids,
        at=strategies.counts,
        attempt=strategies.counts,
        failure=strategies.failures,
    ),
    st.builds(
        Released,
        task_id=strategies.task_ids,
        at=strategies.counts,
        attempt=strategies.counts,
        reason=strategies.codes,
        message=strategies.texts,
        not_before=strategies.counts,
    ),
    st.builds(CancelRequested, task_id=strategies.task_ids, at=strategies.counts),
    st.builds(Cancelled, task_id=strategies.task_ids, at=strategies.counts),
)


@given(facts)
def test_a_fact_survives_its_json(fact: Fact) -> None:
    """A fact read back from JSON text is the same fact, of the same type."""
    again = fact_from_dict(json.loads(json.dumps(fact_to_dict(fact))))
    assert (type(again), again) == (type(fact), fact)


@given(
    st.builds(Submitted, strategies.tasks, strategies.counts, strategies.peer_ids),
    strategies.results,
    strategies.receipts,
)
def test_a_record_survives_its_json(submitted: Submitted, result: TaskResult, receipt: Receipt) -> None:
    """A record read back from JSON text equals the one that was written, with its result and receipt."""
    record = begin(submitted)
    record = advance(record, Claimed(record.id, 2, 1, record.requester, 3))
    record = advance(advance(record, Started(record.id, 3, 1)), Completed(record.id, 4, 1, result, receipt))
    assert TaskRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize("path", [(), ("Claimed", "Failed"), ("Claimed", "CancelRequested", "Cancelled")])
def test_a_record_of_any_end_survives_its_json(path: tuple[str, ...]) -> None:
    """A record without a result, or with a failure, is read back as it was."""
    record = pending()
    for name in path:
        record = advance(record, TRANSITIONS_BY_NAME[name])
    assert TaskRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_fact_of_a_newer_version_is_read_by_the_fields_that_are_known() -> None:
    """Unknown keys are ignored, so an older node reads a newer store."""
    shape = fact_to_dict(FACTS["Started"])
    assert fact_from_dict({**shape, "mood": "good"}) == FACTS["Started"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"fact": "Vanished"}, KeyError),
        ({"reason": "BAD_WEATHER"}, ValueError),
    ],
)
def test_a_fact_that_cannot_be_read_is_refused(change: dict[str, str], error: type[Exception]) -> None:
    """An unknown name or reason is an error, not a guess."""
    with pytest.raises(error):
        fact_from_dict({**fact_to_dict(FACTS["Released"]), **change})


def test_a_fact_without_a_field_is_refused() -> None:
    """Every field of a fact is in its shape; a missing one is named."""
    shape = fact_to_dict(FACTS["Claimed"])
    del shape["holder"]
    with pytest.raises(KeyError, match="holder"):
        fact_from_dict(shape)


def test_a_malformed_task_in_a_record_is_named() -> None:
    """What was damaged in a store is told by the field."""
    shape = pending().to_dict()
    shape["task"]["priority"] = 300
    with pytest.raises(InvalidTask, match="field priority"):
        TaskRecord.from_dict(shape)


def test_the_shape_of_a_record_is_complete_and_in_order() -> None:
    """The JSON of a record is sorted, so that two can be compared by eye; what follows from the rest is left out."""
    record = pending()
    names = sorted({*TaskRecord.__slots__} - {"id", "terminal", "receipt"})
    assert list(record.to_dict()) == names
    record.receipt = RECEIPT
    assert list(record.to_dict()) == sorted([*names, "receipt"])


def test_a_record_that_is_read_back_knows_its_id_and_whether_it_has_ended() -> None:
    """What the shape leaves out is there again, in a record of any status."""
    for path in ((), ("Claimed",), ("Claimed", "Failed")):
        record = pending()
        for name in path:
            record = advance(record, TRANSITIONS_BY_NAME[name])
        again = TaskRecord.from_dict(record.to_dict())
        assert (again.id, again.terminal) == (TASK_ID, path == ("Claimed", "Failed"))


def test_the_submitted_fact_names_the_task() -> None:
    """Every fact has a task id, the first one too."""
    assert {fact.task_id for fact in FACTS.values()} == {TASK_ID}


def test_only_three_statuses_are_terminal() -> None:
    """Nothing more can happen to what is complete, failed or cancelled."""
    assert {status for status in TaskStatus if status.terminal} == {"complete", "failed", "cancelled"}
    assert not pending().terminal


def test_records_differ_by_any_slot_and_from_anything_else() -> None:
    """Two records are equal when every slot is, and a record is never equal to something else."""
    record = pending()
    claimed = advance(record, TRANSITIONS_BY_NAME["Claimed"])
    assert (record == pending(), record == claimed, record == "task") == (True, False, False)


def test_a_record_tells_the_essentials_when_printed() -> None:
    """Logs and test failures show which task, its status, its attempt and the number of its last fact."""
    assert repr(pending()) == f"<TaskRecord {TASK_ID} pending attempt=0 seq=1>"


def test_the_outcome_of_a_record_is_shown_in_its_own_shape() -> None:
    """A result stands in a record as it stands alone; so does a failure."""
    done = pending()
    for name in ("Claimed", "Started", "Completed"):
        done = advance(done, TRANSITIONS_BY_NAME[name])
    failed = advance(advance(pending(), TRANSITIONS_BY_NAME["Claimed"]), TRANSITIONS_BY_NAME["Failed"])
    assert done.to_dict()["result"] == FULL_RESULT.to_dict()
    assert failed.to_dict()["failure"] == FAILURE.to_dict()
    assert failed.to_dict()["failure"]["code"] == ErrorCode.TIMEOUT.value
