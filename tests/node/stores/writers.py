"""A writer that runs over a disk that a test may slow down, or let fail."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from node.interfaces import Change
from node.stores.sqlite.batch import Batch
from node.stores.sqlite.database import Refusals
from node.stores.sqlite.thread import open_thread
from node.stores.sqlite.writer import GroupWriter


class Disk:
    """Stands for a database that is slow, or that fails; remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.errors: deque[sqlite3.Error] = deque()
        self.checkpoints = 0
        self.tidied = threading.Event()

    def write(self, batch: Batch) -> Refusals:
        """Take a batch, when it may."""
        self.begun.set()
        assert self.may_go_on.wait(10)
        if self.errors:
            raise self.errors.popleft()
        self.batches.append(batch)
        return {}

    def checkpoint(self) -> None:
        """Count."""
        self.checkpoints += 1
        self.tidied.set()

    @property
    def changes(self) -> list[Change]:
        """All that is saved."""
        return [change for batch in self.batches for change in batch.changes]


def full_disk() -> sqlite3.OperationalError:
    """What SQLite raises."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@asynccontextmanager
async def writing(disk: Disk, saved: Callable[[Batch, Refusals], None] | None = None) -> AsyncIterator[GroupWriter]:
    """A writer that runs, and is closed."""
    async with open_thread("writer") as thread, trio.open_nursery() as nursery:
        writer = GroupWriter(disk, saved or (lambda _batch, _refusals: None), thread, "tasks.db")
        nursery.start_soon(writer.run)
        try:
            yield writer
        finally:
            with trio.CancelScope(shield=True):
                await writer.close()
