"""What came of a task: the JSON that others parse, failures, and what is refused."""

import json

import pytest
from hypothesis import given

from protocol import (
    TRAITS,
    Artifact,
    ErrorCode,
    Failure,
    InvalidTask,
    PeertaskError,
    Task,
    TaskFailed,
    TaskResult,
)
from protocol.result import MAX_MESSAGE_CHARS
from tests.protocol import strategies
from tests.protocol.samples import FAILURE, FULL_RESULT, RESULT, TASK_ID


def test_the_json_of_a_result_is_exactly_the_three_fields() -> None:
    """Programs compare this text byte by byte."""  # covers CORE-7, CORE-20
    expected = '{"task_id":"3f1c9d2e-5b7a-4e60-8c1d-2a9b0f4e6d71","result":"Mock result for: Hello","duration_ms":123}'
    assert RESULT.to_json() == expected
    assert json.dumps(RESULT.to_dict(), separators=(",", ":")) == expected
    assert list(RESULT.to_dict()) == ["task_id", "result", "duration_ms"]


def test_artifacts_stand_in_the_json_only_when_there_are_any() -> None:
    """A reader that knows nothing of artifacts never meets an empty list."""
    assert list(FULL_RESULT.to_dict()) == ["task_id", "result", "duration_ms", "artifacts"]
    assert FULL_RESULT.to_dict()["artifacts"][1] == {
        "name": "plot.png",
        "content": "iVBORw0KGgo=",
        "media_type": "image/png",
        "encoding": "base64",
    }


@given(strategies.results)
def test_a_result_survives_its_json(result: TaskResult) -> None:
    """A result read back from its dict or its text is the same result."""
    assert TaskResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert TaskResult.from_json(result.to_json()) == result


@given(strategies.failures)
def test_a_failure_survives_its_json(failure: Failure) -> None:
    """A failure read back from JSON text is the same failure."""
    assert Failure.from_dict(json.loads(json.dumps(failure.to_dict()))) == failure


def test_a_request_is_a_task_and_a_response_is_a_result_with_its_id() -> None:
    """The two halves of an exchange find each other by the task's UUID."""  # covers CORE-31
    task = Task.from_json(f'{{"id": "{TASK_ID}", "prompt": "Hello", "sender": "alice", "timestamp": 0}}')
    assert TaskResult(task.id, "done", 5).task_id == task.id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_id", "x"),
        ("result", 5),
        ("result", None),
        ("duration_ms", -1),
        ("duration_ms", "5"),
        ("duration_ms", 1.0),
        ("duration_ms", True),
        ("artifacts", None),
        ("artifacts", [{"name": "", "content": ""}]),
        ("artifacts", [{"name": "a"}]),
        ("artifacts", [{"name": "a", "content": b"x"}]),
        ("artifacts", [{"name": "a", "content": "x", "encoding": "rot13"}]),
        ("artifacts", [{"name": "a", "content": ""}] * 1025),
    ],
)
def test_a_wrong_result_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    """Nothing is coerced here either."""
    with pytest.raises(InvalidTask, match=f"^field {field}[.:]"):
        TaskResult.from_dict({**RESULT.to_dict(), field: value})


def test_a_result_that_is_no_json_is_refused() -> None:
    """Text that cannot be read is an error in words."""
    with pytest.raises(InvalidTask, match="invalid JSON"):
        TaskResult.from_json("{")


def test_an_artifact_is_text_unless_it_says_otherwise() -> None:
    """The plainest artifact is a named text."""
    artifact = Artifact(name="notes", content="text")
    assert (artifact.media_type, artifact.encoding) == ("text/plain", "utf-8")


@pytest.mark.parametrize("code", ErrorCode)
def test_a_failure_has_the_traits_of_its_code(code: ErrorCode) -> None:
    """What a retry would mean is written once, in the table of codes."""
    failure = Failure.of(code, "why")
    assert (failure.retryable, failure.maybe_ran) == (TRAITS[code].retryable, TRAITS[code].maybe_ran)


def test_a_code_of_a_newer_peer_is_read_as_internal() -> None:
    """Codes are append-only, so an unknown one is news and not nonsense."""
    assert Failure.from_dict({**FAILURE.to_dict(), "code": "OUT_OF_TEA"}).code is ErrorCode.INTERNAL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", 5),
        ("code", None),
        ("message", 5),
        ("message", "x" * (MAX_MESSAGE_CHARS + 1)),
        ("retryable", 1),
        ("retryable", "yes"),
        ("maybe_ran", None),
    ],
)
def test_a_wrong_failure_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    """A failure from the wire is as strict as a result."""
    with pytest.raises(InvalidTask, match=f"^field {field}:"):
        Failure.from_dict({**FAILURE.to_dict(), field: value})


def test_a_long_message_of_a_failure_is_cut() -> None:
    """A failure can always be made: a message that is too long ends with an ellipsis."""
    failure = Failure.of(ErrorCode.EXECUTION_FAILED, "x" * 10_000)
    assert (len(failure.message), failure.message[-1]) == (MAX_MESSAGE_CHARS, "…")


def test_a_message_that_utf8_cannot_carry_is_made_printable() -> None:
    """An exception's text may hold anything; its failure can be sent all the same."""
    assert Failure.of(ErrorCode.EXECUTION_FAILED, "bad \ud800 text").message == "bad ? text"


def test_an_error_becomes_a_failure_and_a_failure_becomes_an_error() -> None:
    """The worker's error reaches whoever awaits the result, with its code and its words."""
    failure = Failure.from_error(PeertaskError("no room", code=ErrorCode.STORE_FAILED, remedy="Free some disk"))
    assert failure.message == "no room. Free some disk"
    with pytest.raises(TaskFailed, match="no room") as caught:
        raise failure.to_error()
    assert (caught.value.code, caught.value.failure) == (ErrorCode.STORE_FAILED, failure)
