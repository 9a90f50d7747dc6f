"""How receipts are read and told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from node.cli.terminal import short_time
from node.gateways.http.response_models import iso_time
from protocol import ErrorCode, InvalidTask, PeertaskError, Receipt

if TYPE_CHECKING:
    from node.gateways.http.response_models import ReceiptView

_Parsed = TypeVar("_Parsed")


def receipt_lines(receipt: Receipt | ReceiptView) -> Iterator[str]:
    """Yield a receipt in words."""
    took = short_time(receipt.completed_at - receipt.started_at)
    yield f"task       {receipt.task_id}"
    yield f"signed by  {receipt.executor}"
    yield f"attempt    {receipt.attempt}"
    yield f"completed  {iso_time(receipt.completed_at)} (took {took})"
    yield f"task       sha256 {receipt.task_hash}"
    yield f"result     sha256 {receipt.result_hash}"


def read_json(path: Path, what: str, parse: Callable[[Mapping[str, Any]], _Parsed]) -> _Parsed:
    """Read what a file holds; ``-`` is standard input.

    Args:
        path: of the file.
        what: it should hold, for the error: a receipt, a task or a result.
        parse: makes it of a JSON object, or raises `PeertaskError`.

    Raises:
        PeertaskError: code INVALID_TASK; says which file, and what is wrong with it.
    """
    place = "standard input" if str(path) == "-" else str(path)
    try:
        return parse(_json_object(sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()))
    except OSError as error:
        raise PeertaskError(
            f"{place} cannot be read: {error.strerror or error}",
            code=ErrorCode.INVALID_TASK,
            remedy=f"Name a file that is there, and that this user may read: {_printed(what)}",
        ) from error
    except PeertaskError as error:
        raise PeertaskError(
            f"{place} is not {what}: {error.message}", code=error.code, remedy=f"Give {_printed(what)}"
        ) from error


def _json_object(text: bytes) -> Mapping[str, Any]:
    try:
        shape = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidTask(f"it is not JSON, from line {error.lineno}, column {error.colno} on") from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidTask("it is not JSON") from None
    if not isinstance(shape, dict):
        raise InvalidTask("it is not a JSON object")
    return shape


def _printed(what: str) -> str:
    return f"what `peertask show TASK {'--receipt ' if what == 'a receipt' else ''}--json` has printed"
