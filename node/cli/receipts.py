"""How receipts are read and told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from node.cli.terminal import short_time
from node.gateways.http.response_models import iso_time
from protocol import ErrorCode, PeertaskError, Receipt

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


def read_json(path: Path, what: str, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    """Read what a file holds; ``-`` is standard input.

    Args:
        path: of the file.
        what: it should hold, for the error.
        parse: makes it of the text, or raises `PeertaskError`.

    Raises:
        PeertaskError: code INVALID_TASK; says which file, and what is wrong with it.
    """
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return parse(text)
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from error
    except PeertaskError as error:
        raise _unreadable(path, what, error.message) from error


def _unreadable(path: Path, what: str, reason: str) -> PeertaskError:
    return PeertaskError(f"{path} is not {what}: {reason}", code=ErrorCode.INVALID_TASK, remedy=_REMEDY)


_REMEDY = "Give what `peertask show TASK --receipt --json`, or `peertask show TASK --json`, has printed"
