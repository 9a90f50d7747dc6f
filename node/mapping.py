"""Many prompts, a bounded number of tasks at a time, and results as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import trio

from node.feed import Feed
from node.interfaces import Change, TaskService
from protocol import Failure, TaskId, TaskNotFound, TaskRecord, TaskResult


@dataclass(frozen=True, slots=True)
class MappedTask:
    """How one prompt of a map ended: with a result or with a failure.

    Attributes:
        index: the place of the prompt in the input, from 0.
        prompt: what was asked.
        record: the task as it ended.
    """

    index: int
    prompt: str
    record: TaskRecord

    @property
    def result(self) -> TaskResult | None:
        """What came of it; None when it failed."""
        return self.record.result

    @property
    def failure(self) -> Failure | None:
        """Why nothing came of it; None when it is complete."""
        return self.record.failure


class _Ended:
    """Collects the last changes of the tasks that it is listening to."""

    def __init__(self) -> None:
        self._records: deque[TaskRecord] = deque()
        self._news = trio.Event()

    def take(self, change: Change) -> None:
        if change.record.terminal:
            self.add(change.record)

    def add(self, record: TaskRecord) -> None:
        self._records.append(record)
        self._news.set()

    def __bool__(self) -> bool:
        return bool(self._records)

    async def next(self) -> TaskRecord:
        while not self._records:
            self._news = trio.Event()
            await self._news.wait()
        return self._records.popleft()


async def map_prompts(
    prompts: Iterable[str],
    enqueue: Callable[[str], Awaitable[TaskId]],
    service: TaskService,
    feed: Feed,
    *,
    concurrency: int,
) -> AsyncGenerator[MappedTask]:
    """Yield a `MappedTask` for each prompt as its task ends, in the order of ending.

    Prompts are taken from the iterable only as there is room. Closing the iterator cancels the tasks that are open.

    Args:
        prompts: what to ask.
        enqueue: takes a prompt in and returns the id of its task.
        service: whose tasks they are.
        feed: tells when they end.
        concurrency: how many tasks are open at once, 1 at the least.
    """
    source: Iterator[tuple[int, str]] = iter(enumerate(prompts))
    under_way: dict[TaskId, tuple[int, str]] = {}
    ended = _Ended()
    try:
        while True:
            if len(under_way) < concurrency and (following := next(source, None)) is not None:
                task_id = await enqueue(following[1])
                under_way[task_id] = following
                _listen(task_id, service, feed, ended)
                if not ended:
                    continue
            if not under_way:
                return
            record = await ended.next()
            yield MappedTask(*under_way.pop(record.id), record)
    finally:
        for task_id in under_way:
            with suppress(TaskNotFound):  # it has ended, and is forgotten already
                service.cancel_task(task_id)


def _listen(task_id: TaskId, service: TaskService, feed: Feed, ended: _Ended) -> None:
    record = service.find_task(task_id)
    if record is not None and record.terminal:
        ended.add(record)
    else:
        feed.listen_to(task_id, ended.take)
