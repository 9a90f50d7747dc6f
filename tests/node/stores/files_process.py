"""Works on a store of files until it is killed, again and again: one line of input starts one worker.

Usage: python -m tests.node.stores.files_process FOLDER

The input is a seed a line. The output is ``pid NUMBER`` of the worker, then ``UUID SEQ`` for each change that the store
says is committed, ``forgot UUID`` before a task is forgotten, and ``gone`` when the worker has ended. Workers are
forked from this process, which has loaded everything, so a round takes milliseconds.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from node.interfaces import Change
from node.stores.files import FilesStore
from node.telemetry import default_to_stdlib_logging
from node.testing import START_MS, TEST_PEER, make_task
from protocol import (
    Claimed,
    Completed,
    Progressed,
    Started,
    Submitted,
    TaskId,
    TaskRecord,
    TaskResult,
    TaskStatus,
    Transition,
    advance,
    begin,
)

# Enough for groups of several tasks, and few enough that a life has an end within a round.
OPEN_TASKS = 24
PROJECTS = ("default", "alpha", "beta-1")


class Worker:
    """Brings tasks through their lives, at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._store = FilesStore(folder)
        self._open: dict[TaskId, TaskRecord] = {}
        self._ended: list[TaskId] = []
        self._waiting = 0
        self._committed = trio.Event()

    async def work(self) -> None:
        """Go on with what is there, until killed."""
        async with self._store.running(self._tell):
            async for record in self._store.load():
                self._sort_in(record)
            while True:
                self._do_something()
                while self._waiting > OPEN_TASKS:
                    self._committed = trio.Event()
                    await self._committed.wait()

    def _tell(self, changes: Sequence[Change]) -> None:
        say("".join(f"{change.record.id} {change.record.seq}\n" for change in changes))
        self._waiting -= len(changes)
        self._committed.set()

    def _sort_in(self, record: TaskRecord) -> None:
        if record.terminal:
            self._open.pop(record.id, None)
            self._ended.append(record.id)
        else:
            self._open[record.id] = record

    def _do_something(self) -> None:
        if len(self._ended) > OPEN_TASKS:
            gone = self._ended.pop(self._random.randrange(len(self._ended)))
            say(f"forgot {gone}\n")
            self._store.forget([gone])
        elif len(self._open) < OPEN_TASKS:
            submitted = Submitted(
                make_task("x" * self._random.randrange(20_000), project=self._random.choice(PROJECTS)),
                START_MS,
                TEST_PEER,
            )
            self._append(Change(begin(submitted), submitted))
        else:
            record = self._random.choice(list(self._open.values()))
            fact = self._next_fact(record)
            self._append(Change(advance(record, fact), fact))

    def _append(self, change: Change) -> None:
        self._waiting += 1
        self._sort_in(change.record)
        self._store.append((change,))

    def _next_fact(self, record: TaskRecord) -> Transition:
        if record.status is TaskStatus.PENDING:
            return Claimed(record.id, START_MS, record.attempt + 1, TEST_PEER, START_MS)
        if record.status is TaskStatus.CLAIMED:
            return Started(record.id, START_MS, record.attempt)
        if self._random.random() < 0.7:
            return Progressed(record.id, START_MS, record.attempt, 0.5, "on it", START_MS)
        return Completed(record.id, START_MS, record.attempt, TaskResult(record.id, "done", 1))


def say(text: str) -> None:
    """Write to the standard output at once."""
    data = text.encode()
    while data:
        data = data[os.write(1, data) :]


def main(folder: Path) -> None:
    """Start a worker for each line of input, and wait for its end."""
    default_to_stdlib_logging()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            trio.run(Worker(folder, int(line)).work)
        say(f"pid {pid}\n")
        os.waitpid(pid, 0)
        say("\ngone\n")  # the last line of the worker may be half


if __name__ == "__main__":
    main(Path(sys.argv[1]))
