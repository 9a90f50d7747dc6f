"""What gateways wait for before they answer: that a fact is saved, and that a task has ended."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import trio

from node.gateways.http.limits import SAVE_PATIENCE_S
from node.interfaces import Change, TaskService
from protocol import ErrorCode, PeertaskError, TaskRecord

_Value = TypeVar("_Value")


async def saved(service: TaskService, record: TaskRecord) -> TaskRecord:
    """Return the record of a task once the fact that made `record` may be told.

    Raises:
        PeertaskError: code STORE_FAILED, when that takes too long; the task is taken in all the same.
    """
    with trio.move_on_after(SAVE_PATIENCE_S) as patience:
        async with service.watch(record.id, record.seq - 1) as changes:
            async for _ in changes:
                break
    if patience.cancelled_caught:
        raise PeertaskError(
            f"task {record.id} is taken in, but not saved yet: the store of the node does not answer",
            code=ErrorCode.STORE_FAILED,
            remedy=f"It goes on when the store does; see the node's log, and later `peertask show {record.id}`",
        )
    return service.get_task(record.id)


async def done_and_saved(work: Awaitable[_Value]) -> _Value:
    """Return what comes of something that is to be saved, unless that takes too long.

    Raises:
        PeertaskError: code STORE_FAILED, when it does.
    """
    with trio.move_on_after(SAVE_PATIENCE_S):
        return await work
    raise not_saved()


def not_saved() -> PeertaskError:
    """Return the error that says so."""
    return PeertaskError(
        "this is taken in, but not saved yet: the store of the node does not answer",
        code=ErrorCode.STORE_FAILED,
        remedy="Repeat it later; see the node's log",
    )


async def ended(service: TaskService, record: TaskRecord) -> TaskRecord:
    """Return the last record of a task, once it has ended."""
    async with service.watch(record.id, record.seq) as changes:
        async for change in changes:
            record = change.record if isinstance(change, Change) else record
    return record
