"""A map of tasks with a clock that stands still, and what tests do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.feed import Feed
from node.interfaces import Change, Lagged, Store
from node.manager import TaskManager
from node.retention import Capacity
from node.stores.memory import MemoryStore
from node.testing import FakeClock, make_task
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    PeerId,
    PeertaskError,
    Progressed,
    Started,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
)

OWN, PEER = PeerId("own"), PeerId("peer")


TAKEN = PeertaskError(
    "the task cannot be saved, because another process has changed it in tasks.db",
    code=ErrorCode.CONFLICT,
    remedy="Give each node a file of its own",
)


class Bench:
    """A manager and what is around it.

    Attributes:
        told: every change that the feed has published, in order.
    """

    def __init__(self, store: Store | None = None, **capacity: int) -> None:
        self.store = store or MemoryStore()
        self.clock = FakeClock()
        self.feed = Feed()
        self.told: list[Change] = []
        self.feed.listen(self.told.append)
        self.manager = TaskManager(self.store, self.clock, self.feed, own_id=OWN, capacity=Capacity(**capacity))

    def submit(self, task: Task | None = None, requester: PeerId = OWN, **fields: Any) -> TaskId:
        """Take a task in."""
        task = task or make_task(**fields)
        return self.manager.submit(task, requester=requester, target=None).id

    def begin(self, task_id: TaskId, attempt: int = 1) -> TaskRecord:
        """Claim and start it."""
        now = self.clock.now()
        return self.manager.apply(Claimed(task_id, now, attempt, OWN, now + 30_000), Started(task_id, now, attempt))

    def report(self, task_id: TaskId, fraction: float = 0.5) -> TaskRecord:
        """Report progress of the first attempt."""
        now = self.clock.now()
        return self.manager.apply(Progressed(task_id, now, 1, fraction, "", now + 30_000))

    def complete(self, task_id: TaskId, text: str = "done", attempt: int = 1) -> TaskRecord:
        """End it with a result."""
        return self.manager.apply(Completed(task_id, self.clock.now(), attempt, TaskResult(task_id, text, 5)))

    def finish(self, text: str = "done", **fields: Any) -> TaskId:
        """Bring a task through its whole life."""
        task_id = self.submit(**fields)
        self.begin(task_id)
        self.complete(task_id, text)
        return task_id

    def knows(self, task_id: TaskId) -> bool:
        """Whether it is still kept."""
        return self.manager.find_task(task_id) is not None


@asynccontextmanager
async def running(store: Store | None = None, **capacity: int) -> AsyncIterator[Bench]:
    """A manager that runs."""
    bench = Bench(store, **capacity)
    with trio.fail_after(20):
        async with bench.manager.running():
            yield bench


def code_of(call: Callable[[], object]) -> ErrorCode:
    """How a call is refused."""
    with pytest.raises(PeertaskError) as refused:
        call()
    assert refused.value.message
    return refused.value.code


async def end_of(call: Callable[[], Any]) -> ErrorCode | None:
    """How an awaited call ends: with an error's code, or well."""
    try:
        await call()
    except PeertaskError as error:
        return error.code
    return None


@asynccontextmanager
async def watcher(bench: Bench, *what: Any) -> AsyncIterator[list[Change | Lagged]]:
    """Watch for the length of the context."""
    seen: list[Change | Lagged] = []

    async def look() -> None:
        async with bench.manager.watch(*what) as changes:
            async for change in changes:
                seen.append(change)  # noqa: PERF401 - each is to be seen as it comes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        yield seen
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
