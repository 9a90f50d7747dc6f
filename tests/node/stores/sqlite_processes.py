"""What the processes do that share a SQLite file, or die over one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from node.interfaces import Change
from node.stores.sqlite import SqliteStore
from node.testing import make_task
from protocol import Claimed, PeerId, PeertaskError, Started, Task, TaskId, TaskRecord
from tests.node.stores.lives import birth, claim, completion, continued

# Enough that several changes go into one commit, and few enough that commits follow each other quickly.
TASKS_AT_ONCE = 16
# All begin with a part at the same time, each in its own order, so that they meet at every task.
CLAIMED_AT_ONCE = 25


def append_until_killed(path: Path, told: Connection, seed: int) -> None:
    """Carry tasks out without end, and tell the task and the number of every change that is committed."""
    trio.run(_append, path, told, random.Random(seed))


async def _append(path: Path, told: Connection, chance: random.Random) -> None:
    store = SqliteStore(path)
    goes_on: list[Change] = []
    came = trio.Event()

    def committed(changes: Sequence[Change]) -> None:
        told.send([(change.record.id, change.record.seq) for change in changes])
        goes_on.extend(changes)
        came.set()

    async with store.running(committed):
        for _ in range(TASKS_AT_ONCE):
            store.append((birth(_any_task(chance)),))
        while True:
            await came.wait()
            came = trio.Event()
            for change in _taken(goes_on):
                store.append(_next(change, chance))


def _taken(changes: list[Change]) -> list[Change]:
    taken = changes[:]
    changes.clear()
    return taken


def _any_task(chance: random.Random) -> Task:
    return make_task("x" * chance.choice((10, 200, 5_000)))


def _next(change: Change, chance: random.Random) -> Sequence[Change]:
    steps = {1: lambda: claim(change)[:1], 2: lambda: _start(change), 3: lambda: completion(change)}
    follow = steps.get(change.record.seq)
    return follow() if follow else (birth(_any_task(chance)),)


def _start(change: Change) -> list[Change]:
    return continued(change, Started(change.record.id, change.record.updated_at + 1, 1))


def claim_and_complete(path: Path, told: Connection, seed: int) -> None:
    """Try to claim every open task of a file, complete those that were won, and tell which these are."""
    trio.run(_claim_all, path, told, seed)


async def _claim_all(path: Path, told: Connection, seed: int) -> None:
    claims = _Claims(PeerId(f"worker-{seed}"))
    store = SqliteStore(path)
    store.on_refused(claims.refused)
    chance = random.Random(seed)
    records = [record async for record in store.load()]
    async with store.running(claims.committed):
        for start in range(0, len(records), CLAIMED_AT_ONCE):
            part = records[start : start + CLAIMED_AT_ONCE]
            chance.shuffle(part)
            told.send("ready")
            told.recv()
            for record in part:
                claims.append(store, record)
            for change in await claims.settled():
                claims.complete(store, change)
            await claims.settled()  # else the next claims of a winner go along with what it completes, and win too
    told.send((claims.holder, claims.completed))


class _Claims:
    """What one process has claimed, and what became of it."""

    def __init__(self, holder: PeerId) -> None:
        self.holder = holder
        self.completed: list[TaskId] = []
        self._open = 0
        self._won: list[Change] = []
        self._changed = trio.Event()

    def append(self, store: SqliteStore, record: TaskRecord) -> None:
        facts = (Claimed(record.id, 1, 1, self.holder, 30_000), Started(record.id, 2, 1))
        try:
            store.append(continued(Change(record, facts[0]), *facts))
        except PeertaskError:  # it was claimed before this process had opened the file
            return
        self._open += 1

    def complete(self, store: SqliteStore, won: Change) -> None:
        store.append(completion(won))
        self._open += 1

    def committed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.record.terminal:
                self.completed.append(change.record.id)
                self._open -= 1
            elif isinstance(change.fact, Started):
                self._won.append(change)
                self._open -= 1
        self._changed.set()

    def refused(self, _changes: Sequence[Change], _error: PeertaskError) -> None:
        self._open -= 1
        self._changed.set()

    async def settled(self) -> list[Change]:
        """Return what was won, when nothing is undecided any more."""
        while self._open:
            await self._changed.wait()
            self._changed = trio.Event()
        return _taken(self._won)
