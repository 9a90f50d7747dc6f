"""What runs in a worker process: find the function, call it, and send back plain data.

Importing this must stay cheap, and must not bring trio or libp2p along: every new worker process does it.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from structlog.contextvars import bound_contextvars

from node.executors.outcome import error_of, output_of
from node.interfaces import Output
from protocol import Failure, TaskFailed


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """How a function failed in its process; exceptions of other people's classes need not survive the way back.

    Attributes:
        failure: what the requester is told.
        retry_after_ms: how long the function asked to wait, in milliseconds.
        traceback: where it happened, as text for the log; empty when the function raised an error with a code.
    """

    failure: Failure
    retry_after_ms: int | None
    traceback: str


def call_by_name(
    module: str, qualified_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], log_context: Mapping[str, Any]
) -> Output | WorkerFailure:
    """Call a function of a module and return what came of it."""
    _end_with_parent()
    with bound_contextvars(**log_context):
        try:
            function = attrgetter(qualified_name)(importlib.import_module(module))
            return output_of(function(*args, **kwargs))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the node logs it and tells the requester
            return _failure_of(error)


def _failure_of(error: BaseException) -> WorkerFailure:
    told = error_of(error)
    failure = told.failure if isinstance(told, TaskFailed) else Failure.from_error(told)
    trace = "" if told is error else "".join(traceback.format_exception(error))
    return WorkerFailure(failure, told.retry_after_ms, trace)


@functools.cache
def _end_with_parent() -> None:
    """See to it that this process ends when the node does, also in the middle of a call and when the node was killed.

    An idle worker notices that its pipe is closed; one that computes does not look.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), name="exit after parent", daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
