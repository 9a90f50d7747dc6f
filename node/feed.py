"""Who hears what happened to tasks: the one place where facts fan out.

Parts of the node *listen*: a synchronous call for each change, in order. Everyone else *subscribes*: a bounded
buffer, and a note of how many changes were missed when the reader was too slow. A slow reader never holds the writer
up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager

import trio

from node.interfaces import Change, Lagged
from protocol import TaskId

Listener = Callable[[Change], None]

# Some seconds of a busy node's facts for one watcher; more would only be older news.
WATCH_BUFFER_CHANGES = 4096


class Feed:
    """Fans changes out in the order of `publish`, even when a listener causes the next change.

    Listeners of one task are dropped after its last change, so that whoever waits for a result need not clean up.
    """

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._by_task: dict[TaskId, tuple[Listener, ...]] = {}
        self._queue: deque[Change] = deque()
        self._publishing = False

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell every listener; called by the manager only, once the changes are saved."""
        self._queue.extend(changes)
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._queue:
                self._tell(self._queue.popleft())
        finally:
            self._publishing = False

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)
        record = change.record
        by_task = self._by_task
        for listener in by_task.pop(record.id, ()) if record.terminal else by_task.get(record.id, ()):
            listener(change)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every change from now on; it must be quick and must not raise."""
        self._listeners += (listener,)

    def unlisten(self, listener: Listener) -> None:
        """Stop calling `listener` with every change."""
        self._listeners = tuple(other for other in self._listeners if other != listener)

    def listen_to(self, task_id: TaskId, listener: Listener) -> None:
        """Call `listener` with every change of one task until its last; it must be quick and must not raise."""
        self._by_task[task_id] = (*self._by_task.get(task_id, ()), listener)

    def unlisten_to(self, task_id: TaskId, listener: Listener) -> None:
        """Stop calling `listener` with the changes of one task; no effect after its last change."""
        left = tuple(other for other in self._by_task.pop(task_id, ()) if other != listener)
        if left:
            self._by_task[task_id] = left

    @contextmanager
    def subscribe(self, task_id: TaskId | None = None, buffer: int = WATCH_BUFFER_CHANGES) -> Iterator[Subscription]:
        """Collect the changes of one task, or of all, for the length of the context.

        Args:
            task_id: which task; None for all.
            buffer: how many unread changes are kept; older ones are counted and dropped.
        """
        subscription = Subscription(buffer)
        if task_id is None:
            self.listen(subscription.take)
        else:
            self.listen_to(task_id, subscription.take)
        try:
            yield subscription
        finally:
            if task_id is None:
                self.unlisten(subscription.take)
            else:
                self.unlisten_to(task_id, subscription.take)


class Subscription:
    """The changes that one watcher has not read yet; an endless async iterator for one reader."""

    def __init__(self, buffer: int) -> None:
        self._changes: deque[Change] = deque(maxlen=buffer)
        self._missed = 0
        self._news = trio.Event()

    def take(self, change: Change) -> None:
        """Keep a change for the reader; drops the oldest unread one when there is no room."""
        self._missed += len(self._changes) == self._changes.maxlen
        self._changes.append(change)
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Change | Lagged]:
        return self

    async def __anext__(self) -> Change | Lagged:
        while not self._changes:
            self._news = trio.Event()
            await self._news.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return Lagged(missed)
        return self._changes.popleft()
