"""What the tests of the files store share: a store that is open, and what is in its files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.interfaces import Change, Store
from node.stores.files import FilesStore
from protocol import Fact, PeertaskError, Task, TaskId, TaskRecord
from tests.node.stores.task_lives import finished

LIMIT_S = 30


class Commits:
    """What a store has committed, and a way to wait for more."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.calls = 0
        self._changed = trio.Event()

    def __call__(self, changes: Iterable[Change]) -> None:
        """Take note of changes."""
        self.changes.extend(changes)
        self.calls += 1
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, number: int) -> None:
        """Return when so many changes are committed."""
        while len(self.changes) < number:
            await self._changed.wait()


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Commits]:
    """A store that is open."""
    commits = Commits()
    with trio.fail_after(LIMIT_S):
        async with store.running(commits):
            yield commits


async def until_failing(store: Store) -> PeertaskError:
    """Wait until a store cannot save, and return why."""
    while store.failure is None:
        await trio.sleep(0.001)
    return store.failure


def path_of(folder: Path, task: Task) -> Path:
    """Where the file of a task is."""
    return folder / "tasks" / task.project / f"task-{task.project}-{task.id}.json"


def read(folder: Path, task: Task) -> dict[str, Any]:
    """What is in the file of a task."""
    document: dict[str, Any] = json.loads(path_of(folder, task).read_text("utf-8"))
    return document


async def loaded(store: Store) -> list[TaskRecord]:
    """The records that a store yields."""
    return [record async for record in store.load()]


async def facts_of(store: Store, task_id: TaskId, after_seq: int = 0) -> list[Fact]:
    """What is kept of a task."""
    return [fact async for fact in store.facts(task_id, after_seq)]


async def keep(folder: Path, *tasks: Task) -> None:
    """Let a store keep tasks that are complete."""
    store = FilesStore(folder)
    async with running(store):
        for task in tasks:
            store.append(finished(task))
