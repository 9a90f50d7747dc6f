"""One writer with group commit: everything that came while the last commit ran goes into the next one.

The event loop only puts changes in line and is told, once for each commit, what is saved; a thread does the rest, and
takes from the line what is there when it gets its turn. When nothing can be saved the line stands still and the same
batch is tried again, so order is kept and nothing is lost.

A commit is for what somebody waits for: how a task ended, a graph, and what `hurry` is called for. All else is held
back until its task ends, for a tenth of a second at most, so that a short task is written once, and not four times. So
tasks may be saved in another order than they came in; the changes of one task never are.
"""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog
import trio

from node.interfaces import Change
from node.stores.sqlite.batch import Batch, Forgotten, Item, NewTasks, fill_batch
from node.stores.sqlite.database import Refusals
from node.stores.sqlite.errors import explain
from node.stores.sqlite.held import HeldItems, may_wait
from node.stores.sqlite.thread import OwnThread
from protocol import PeertaskError, TaskId

# A lock or a full disk may be gone soon; somebody who looks on must not wait long, and a disk that stays full costs
# nothing.
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 5.0
# How long leaving waits for a disk that does not save: service managers kill after ten seconds.
CLOSING_S: Final = 5.0
# 10 MB of WAL or so; moving it into the file waits for the disk, and should keep no commit waiting. A node that has had
# nothing to save for so long is not in the middle of something.
TIDY_AFTER_CHANGES: Final = 500
REST_S: Final = 0.25

Saved = Callable[[Batch, Refusals], None]

log = structlog.get_logger(__name__)


class Writable(Protocol):
    """What a writer asks of a database, in a thread."""

    def write(self, batch: Batch) -> Refusals:
        """Save a batch in one transaction, and return what never will be saved; raises `sqlite3.Error`."""

    def checkpoint(self) -> None:
        """Do what can wait until nothing is to be saved; never raises."""


class GroupWriter:
    """Saves what is put in line in the order of the line, and what is held back when its time has come.

    Args:
        database: saves a batch, in the thread.
        saved: is told of every batch that is saved, on the event loop.
        thread: where that is; the only one that uses the connection.
        place: what the database is called in messages.

    Attributes:
        failure: why nothing can be saved at the moment.
        line: what waits for a commit; a batch that is being saved is not in it any more.
    """

    def __init__(self, database: Writable, saved: Saved, thread: OwnThread, place: str) -> None:
        self.failure: PeertaskError | None = None
        self.line: deque[Item] = deque()
        self._database = database
        self._saved = saved
        self._thread = thread
        self._place = place
        self._held = HeldItems()
        self._queued = 0
        self._done = 0
        self._untidy = 0
        self._idle = trio.lowlevel.ParkingLot()  # where the writer is while nothing has come
        self._holding = trio.lowlevel.ParkingLot()  # … and while something is held back, until that is due
        self._progress = trio.lowlevel.ParkingLot()
        self._closing = trio.Event()
        self._give_up_at = math.inf
        self._ended = trio.Event()

    def put(self, item: Item) -> None:
        """Put something in line, or hold it back. Never blocks."""
        if isinstance(item, NewTasks):
            self.hurry()  # a graph may depend on tasks that are held back, and must not survive them
            self._queue(item)
        elif isinstance(item, Forgotten):
            self._forget(item)
        elif may_wait(item):
            self._held.add(item, trio.current_time())
            self._note_held()
        elif held := self._held.take(item[0].record.id):
            self._queue([*held, *item])
        else:
            self._queue(item)

    def _queue(self, *items: Item) -> None:
        forgotten = self._held.take_forgotten()
        self.line.extend((*forgotten, *items))
        self._queued += len(forgotten) + len(items)
        # To unpark nobody costs as much as the rest of this.
        if self._idle:
            self._idle.unpark()
        if self._holding:
            self._holding.unpark()

    def _forget(self, forgotten: Forgotten) -> None:
        """Hold a forgetting back, and nothing that came before of what is forgotten."""
        if held := [changes for changes in map(self._held.take, forgotten) if changes]:
            self._queue(*held)
        self._held.forget(forgotten, trio.current_time())
        self._note_held()

    def _note_held(self) -> None:
        if self._closing.is_set():
            self.hurry()
        elif self._idle:
            self._idle.unpark()

    def hurry(self) -> None:
        """Hold nothing back that has come by now."""
        if self._held:
            self._queue(*self._held.take_all())

    def drop(self, task_id: TaskId) -> list[Change]:
        """Drop the changes of a task that wait for a commit, and return them."""
        items = [item for item in self.line if _is_about(task_id, item)]
        if items:
            self.line = deque(item for item in self.line if not _is_about(task_id, item))
            self._done += len(items)
        return [change for item in (*items, self._held.take(task_id)) for change in item if isinstance(change, Change)]

    async def wait_saved(self) -> None:
        """Return when all that has come by now is saved, or when nothing can be saved."""
        self.hurry()
        last = self._queued
        while self._done < last and self.failure is None and not self._ended.is_set():
            await self._progress.park()

    async def close(self) -> None:
        """Return when everything in line is saved; when saving fails, after `CLOSING_S` at the latest."""
        self._give_up_at = trio.current_time() + CLOSING_S
        self._closing.set()
        self.hurry()
        self._idle.unpark()
        await self._ended.wait()

    async def run(self) -> None:
        """Save what comes until `close` is called; is not cancelled, because what is in line has to be saved."""
        with trio.CancelScope(shield=True):
            try:
                while await self._wait_for_work():
                    batch = Batch()
                    refusals = await self._save(batch)
                    if refusals is None:
                        self._log_lost(batch)
                        return
                    self._tell(batch, refusals)
            finally:
                self._ended.set()
                self._progress.unpark_all()

    async def _wait_for_work(self) -> bool:
        self._queue_due()
        while not self.line:
            if self._closing.is_set():
                return False
            await self._rest()
            self._queue_due()
        return True

    def _queue_due(self) -> None:
        if self._held and (due := self._held.take_due(trio.current_time())):
            self._queue(*due)

    async def _rest(self) -> None:
        """Return when something is in line, or may be, or the writer closes; tidy up when nothing comes for a while."""
        if self._held:
            with trio.move_on_at(self._held.next_due):
                await self._holding.park()
            return
        if self._untidy < TIDY_AFTER_CHANGES:
            await self._idle.park()
            return
        with trio.move_on_after(REST_S) as rest:
            await self._idle.park()
        if rest.cancelled_caught:
            self._untidy = 0
            await self._thread.run_sync(self._database.checkpoint)

    def _tell(self, batch: Batch, refusals: Refusals) -> None:
        self._saved(batch, refusals)
        self._done += batch.items
        self._untidy += len(batch.changes)
        self._progress.unpark_all()

    async def _save(self, batch: Batch) -> Refusals | None:
        """Save a batch, however often it takes; None when the store closes and it still cannot be."""
        delay = FIRST_RETRY_S
        while True:
            try:
                refusals = await self._thread.run_sync(self._write_next, batch)
            except sqlite3.Error as error:
                self._fail(error)
            else:
                self._recover()
                return refusals
            if not await self._wait_for_retry(delay):
                return None
            delay = min(2 * delay, LAST_RETRY_S)

    def _write_next(self, batch: Batch) -> Refusals:
        """Write what is in line by now, or the same as in the last attempt; in the thread."""
        if not batch.items:
            fill_batch(batch, self.line)
        return self._database.write(batch)

    async def _wait_for_retry(self, delay: float) -> bool:
        """Wait before the next attempt; False when the store has been closing for `CLOSING_S`."""
        if self._closing.is_set():
            await trio.sleep(FIRST_RETRY_S)
        else:
            with trio.move_on_after(delay):
                await self._closing.wait()
        return trio.current_time() < self._give_up_at

    def _fail(self, error: sqlite3.Error) -> None:
        first = self.failure is None
        self.failure = explain(error, self._place, "saved to")
        if first:
            log.error("nothing can be saved", error=self.failure.message, remedy=self.failure.remedy)
            self._progress.unpark_all()

    def _recover(self) -> None:
        if self.failure is not None:
            self.failure = None
            log.info("saving works again", store=self._place)

    def _log_lost(self, batch: Batch) -> None:
        waiting = sum(len(item) for item in self.line)
        log.error(
            "the store closes with changes that it could not save",
            store=self._place,
            changes=len(batch.changes) + waiting,
            error=str(self.failure),
        )


def _is_about(task_id: TaskId, item: Item) -> bool:
    return not isinstance(item, Forgotten) and item[0].record.id == task_id
