"""What the end of a Python function means for its task: a returned value as an output, an exception as an error.

The worker processes import this module too: it needs nothing that is slow to import beyond `protocol`.
"""

from __future__ import annotations

import inspect
import json

import structlog
from pydantic import BaseModel

from node.interfaces import Execution, Output
from protocol import Artifact, ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

_RETURNABLE = "Return text, None, a pydantic model, a dict, list or number, an Output, or a tuple of text and artifacts"


def output_of(value: object) -> Output:
    """Return the output that a returned value stands for.

    Text stays text, None is the empty text, and a pydantic model, dict, list or number becomes compact JSON. An
    `Output`, or a tuple of text and a sequence of artifacts, is the whole output.

    Raises:
        PeertaskError: code EXECUTION_FAILED, naming the type that has no such meaning.
    """
    match value:
        case str():
            return Output(str.__str__(value))
        case None:
            return Output("")
        case Output():
            return value
        case BaseModel() | dict() | list() | int() | float():
            return Output(_json_text(value))
        case tuple((str() as text, [*artifacts])) if all(isinstance(artifact, Artifact) for artifact in artifacts):
            return Output(text, tuple(artifacts))
        case _:
            raise _not_a_result(value)


def error_of(error: BaseException) -> PeertaskError:
    """Return the error that an exception of a function stands for: EXECUTION_FAILED, or itself when it has a code.

    A nursery wraps even a single exception in a group; the requester is told of the exception.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, PeertaskError):
        return error
    text = str(error)
    name = type(error).__name__
    return PeertaskError(f"{name}: {text}" if text else name, code=ErrorCode.EXECUTION_FAILED)


def told_error(error: BaseException, kind: str, execution: Execution) -> PeertaskError:
    """Return the error to raise for what a function raised without a code; the traceback goes to the log only."""
    log.warning("function failed", kind=kind, task_id=execution.task.id, attempt=execution.attempt, exc_info=error)
    return error_of(error)


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, default=_jsonable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise PeertaskError(
            f"the function returned a {type(value).__name__} that JSON cannot carry: {error}",
            code=ErrorCode.EXECUTION_FAILED,
            remedy="Return only text, numbers, booleans, None, lists and dicts with text keys within it",
        ) from error


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def _not_a_result(value: object) -> PeertaskError:
    if inspect.iscoroutine(value):
        value.close()
        return PeertaskError(
            "the function is not async, but returned a coroutine",
            code=ErrorCode.EXECUTION_FAILED,
            remedy="Register the async function itself",
        )
    return PeertaskError(
        f"the function returned a {type(value).__name__}, which is not a result",
        code=ErrorCode.EXECUTION_FAILED,
        remedy=_RETURNABLE,
    )
