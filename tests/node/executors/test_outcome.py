"""What a returned value and an exception mean."""

import enum
import json
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from node.executors.outcome import error_of, output_of
from node.executors.retry import Retry
from node.interfaces import Output
from protocol import Artifact, ErrorCode, PeertaskError, TaskRejected


class _Point(BaseModel):
    x: int
    label: str = "é"


class _Colour(enum.StrEnum):
    RED = "red"


ARTIFACT = Artifact(name="plot", content="…")


async def _coroutine_function() -> str:
    return "never awaited"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (None, ""),
        (_Colour.RED, "red"),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'),
        ([], "[]"),
        (_Point(x=1), '{"x":1,"label":"é"}'),
        ([_Point(x=1), {"p": _Point(x=2)}], '[{"x":1,"label":"é"},{"p":{"x":2,"label":"é"}}]'),
    ],
)
def test_a_value_becomes_text(value: object, text: str) -> None:
    """Text stays text, None is empty, and everything that JSON has becomes compact JSON."""
    assert output_of(value) == Output(text)
    assert type(output_of(value).text) is str


@pytest.mark.parametrize("artifacts", [(), [], (ARTIFACT,), [ARTIFACT, ARTIFACT]])
def test_text_with_artifacts_is_the_whole_output(artifacts: object) -> None:
    """A tuple of text and artifacts needs no `Output` around it."""
    assert isinstance(artifacts, list | tuple)
    assert output_of(("text", artifacts)) == Output("text", tuple(artifacts))


def test_an_output_stays_as_it_is() -> None:
    """Whoever returns an `Output` has said everything."""
    output = Output("text", (ARTIFACT,))
    assert output_of(output) is output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "returned a object, which is not a result"),
        (b"bytes", "returned a bytes"),
        ({1, 2}, "returned a set"),
        ((1, 2), "returned a tuple"),
        (("text", "artifacts"), "returned a tuple"),
        (("text", ["no artifact"]), "returned a tuple"),
        (float("nan"), "returned a float that JSON cannot carry"),
        ({"when": object()}, "returned a dict that JSON cannot carry: a object is not"),
        ({("a",): 1}, "returned a dict that JSON cannot carry"),
    ],
)
def test_a_value_without_a_meaning_is_an_error_that_names_its_type(value: object, message: str) -> None:
    """Nothing is turned into text by guessing, as ``repr`` would."""
    with pytest.raises(PeertaskError, match=message) as refused:
        output_of(value)
    assert refused.value.code is ErrorCode.EXECUTION_FAILED
    assert refused.value.remedy


def test_nesting_without_end_is_an_error() -> None:
    """A list that holds itself has no JSON."""
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(PeertaskError, match="list that JSON cannot carry"):
        output_of(loop)


def test_a_coroutine_is_an_error_and_leaves_no_warning() -> None:
    """A function that is not async but returns a coroutine was registered wrongly, and the coroutine is closed."""
    with pytest.raises(PeertaskError, match="returned a coroutine"):
        output_of(_coroutine_function())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such page"), "ValueError: no such page"),
        (KeyError("page"), "KeyError: 'page'"),
        (RuntimeError(), "RuntimeError"),
        (SystemExit(3), "SystemExit: 3"),
        (ExceptionGroup("from a nursery", [ExceptionGroup("inner", [OSError("disk full")])]), "OSError: disk full"),
        (
            ExceptionGroup("from a nursery", [OSError("a"), OSError("b")]),
            "ExceptionGroup: from a nursery (2 sub-exceptions)",
        ),
    ],
)
def test_an_exception_becomes_its_type_and_message(error: BaseException, message: str) -> None:
    """The requester is told what failed, without a traceback; a group around one exception says nothing."""
    told = error_of(error)
    assert told.code is ErrorCode.EXECUTION_FAILED
    assert str(told) == message


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("from a nursery", [error])])
def test_an_error_with_a_code_stays_as_it_is(wrap: Callable[[Exception], Exception]) -> None:
    """A function that raises a `PeertaskError` decides itself what follows."""
    error = TaskRejected("not on Sundays", retry_after_ms=1_000)
    assert error_of(wrap(error)) is error


def test_retry_says_that_another_attempt_may_help() -> None:
    """Only the failure differs from that of any other exception: it is retryable."""
    failure = Retry("the model is still loading").failure
    assert json.loads(json.dumps(failure.to_dict())) == {
        "code": "EXECUTION_FAILED",
        "message": "the model is still loading",
        "retryable": True,
        "maybe_ran": True,
    }
