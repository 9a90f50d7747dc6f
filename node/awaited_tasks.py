"""Tasks for those who wait for them: until they are saved, until they have ended, or for whatever happens to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from node.feed import Feed, Subscription
from node.history import replay
from node.interfaces import Change, Clock, Lagged, Store, TaskService
from protocol import ErrorCode, PeerId, PeertaskError, Task, TaskFailed, TaskId, TaskRecord, TaskResult, parse_task_id


class AwaitedTasks(TaskService):
    """What those ask of the map who wait for a task, or watch it; `TaskManager` is it, and has the parts."""

    _clock: Clock
    _feed: Feed
    _own_id: PeerId
    _records: dict[TaskId, TaskRecord | None]
    _store: Store
    _unsaved: dict[TaskId, TaskRecord]

    def create_task(self, prompt: str, sender: str | None = None, **fields: Any) -> Task:
        """Make a task and take it in; this node carries it out.

        Args:
            prompt: what to do.
            sender: the peer that asks; this node when left out.
            fields: any other field of `Task`, by name.

        Raises:
            InvalidTask: names the field that is wrong, and its limit.
            TaskRejected: code BUSY or DRAINING.
        """
        task = Task.new(prompt, sender or self._own_id, timestamp=self._clock.now(), **fields)
        self.submit(task, requester=PeerId(task.sender), target=self._own_id)
        return task

    async def execute_task(self, task: Task) -> TaskResult:
        """Take a task in unless it is known, and return its result when it has one.

        Raises:
            TaskFailed: the task failed or was cancelled.
            TaskRejected: code BUSY or DRAINING.
        """
        self.submit(task, requester=PeerId(task.sender), target=self._own_id)
        return outcome(await self.wait(task.id))

    def get_result(self, task_id: str) -> TaskResult | None:
        """Return the result of a task that is complete; None when it has none (yet), or is unknown.

        Raises:
            InvalidTask: the text is not a UUID version 4.
        """
        record = self._records.get(TaskId(task_id)) or self._records.get(parse_task_id(task_id))
        return None if record is None else record.result

    async def wait(self, task_id: TaskId) -> TaskRecord:
        """Return the last record of a task, once it has ended.

        Raises:
            TaskNotFound: the node does not know it.
        """
        record = self._records.get(task_id)
        if record is None and task_id not in self._unsaved:
            record = self.get_task(task_id)
        if record is not None and record.terminal:
            return record
        waiter = _Waiter()
        self._feed.listen_to(task_id, waiter.take)
        try:
            await waiter.told.wait()
        except BaseException:
            self._feed.unlisten_to(task_id, waiter.take)
            raise
        return waiter.record or self.get_task(task_id)

    async def wait_saved(self, task_id: TaskId) -> None:
        """Return when a task that was taken in is saved, so that everybody sees it.

        Raises:
            TaskFailed: the store refuses it for good; says why.
        """
        if self._records.get(task_id) is not None:
            return
        saved = _Waiter(for_end=False)
        self._feed.listen_to(task_id, saved.take)
        self._store.hurry()
        try:
            await saved.told.wait()
        finally:
            self._feed.unlisten_to(task_id, saved.take)
        if saved.record is not None and saved.record.failure is not None and self._records.get(task_id) is None:
            raise TaskFailed(saved.record.failure)

    @asynccontextmanager
    async def watch(
        self, task_id: TaskId | None = None, after_seq: int = 0
    ) -> AsyncIterator[AsyncIterator[Change | Lagged]]:
        """Watch the facts of one task or of all; see `TaskService.watch`."""
        with self._feed.subscribe(task_id) as subscription:
            if task_id is None:
                yield subscription
                return
            record = self.find_task(task_id)
            if task_id in self._unsaved:
                self._store.hurry()
            elif record is None:
                self.get_task(task_id)
            async with aclosing(self._watch_one(record, after_seq, subscription)) as changes:
                yield changes

    async def _watch_one(
        self, record: TaskRecord | None, after_seq: int, news: Subscription
    ) -> AsyncGenerator[Change | Lagged]:
        last = after_seq
        for earlier in await self._replay(record, after_seq) if record is not None else ():
            yield earlier
            last = earlier.record.seq if isinstance(earlier, Change) else last
        if record is not None and record.terminal:
            return
        async for change in news:
            if isinstance(change, Lagged):
                yield change
            elif change.record.seq > last:
                yield change
                if change.record.terminal:
                    return

    async def _replay(self, record: TaskRecord, after_seq: int) -> list[Change | Lagged]:
        async with aclosing(self._store.facts(record.id)) as kept:
            return replay(record, [fact async for fact in kept], after_seq)


class _Waiter:
    """Waits for the last change of one task, or for any."""

    __slots__ = ("_for_end", "record", "told")

    def __init__(self, *, for_end: bool = True) -> None:
        self._for_end = for_end
        self.told = trio.Event()
        self.record: TaskRecord | None = None

    def take(self, change: Change) -> None:
        if change.record.terminal or not self._for_end:
            self.record = change.record
            self.told.set()


def outcome(record: TaskRecord) -> TaskResult:
    """Return the result of a task that has ended.

    Raises:
        TaskFailed: it failed or was cancelled.
        PeertaskError: it has not ended.
    """
    if record.result is not None:
        return record.result
    if record.failure is not None:
        raise TaskFailed(record.failure)
    raise PeertaskError(f"task {record.id} has not ended: it is {record.status}", code=ErrorCode.ILLEGAL_TRANSITION)
