"""Real processes over one SQLite file: killed at any moment, and in each other's way."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import trio

from node.stores.sqlite import SqliteStore
from protocol import TaskId, TaskRecord, TaskStatus
from tests.node.stores import sqlite_processes
from tests.node.stores.lives import birth

# A process comes from one that has everything imported, so it is there in some milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([sqlite_processes.__name__])

ROUNDS = 20
SEED = 20_250_101
# The longest life of a process after its first commit, in milliseconds: some thirty commits.
LONGEST_MS = 120
FIRST_WORD_S = 30.0

WORKERS = 8
TASKS = 2_000
TORTURE_S = 120.0


@pytest.fixture(autouse=True, scope="module")
def _uncounted() -> None:
    """Keep the measuring of coverage out of these processes: a killed one leaves half a file of it behind."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        ensure_running()


def start(target: Callable[[Path, Connection, int], None], path: Path, seed: int) -> tuple[BaseProcess, Connection]:
    """Start a process, and return what it tells."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(path, theirs, seed), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def read_all(path: Path) -> dict[TaskId, TaskRecord]:
    """Every record of a file."""

    async def read() -> dict[TaskId, TaskRecord]:
        return {record.id: record async for record in SqliteStore(path).load()}

    return trio.run(read)


def faults(path: Path) -> list[object]:
    """What is wrong with a file: its pages, its references, and tasks that have not all their facts."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            *(answer for answer in connection.execute("PRAGMA integrity_check") if answer != ("ok",)),
            *connection.execute("PRAGMA foreign_key_check"),
            *connection.execute(
                "SELECT task_id, seq FROM task_status WHERE seq <> (SELECT count(*) FROM events"
                " WHERE events.task_id = task_status.task_id AND events.seq BETWEEN 1 AND task_status.seq)"
            ),
        ]


@pytest.mark.slow
def test_what_was_committed_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    """No change that the store has told as committed is ever missing, and the file is whole, round after round."""
    # covers COORD-10, COORD-57
    path = tmp_path / "tasks.db"
    chance = random.Random(SEED)
    told: dict[TaskId, int] = {}
    for number in range(ROUNDS):
        process, voice = start(sqlite_processes.append_until_killed, path, SEED + number)
        assert voice.poll(FIRST_WORD_S)
        process.join(chance.uniform(0, LONGEST_MS) / 1000)
        process.kill()
        process.join()
        assert process.exitcode == -9
        told.update(everything_told(voice))
        kept = read_all(path)
        lost = [task_id for task_id, seq in told.items() if kept[task_id].seq < seq]
        assert (lost, faults(path)) == ([], []), f"round {number}, seed {SEED}"
    assert len(told) > ROUNDS


def everything_told(voice: Connection) -> dict[TaskId, int]:
    """What a process has told before it died: the last number of each task."""
    told: dict[TaskId, int] = {}
    try:
        while voice.poll():
            told.update(voice.recv())
    except (EOFError, ConnectionResetError):
        pass  # also in the middle of a message
    voice.close()
    return told


@pytest.mark.slow
def test_of_eight_processes_that_claim_each_task_one_wins(tmp_path: Path) -> None:
    """2,000 tasks, each claimed by all eight at once: every task is completed once, by the one that has its claim."""
    # covers COORD-42, COORD-57
    path = tmp_path / "tasks.db"
    trio.run(bring, path)
    workers = [start(sqlite_processes.claim_and_complete, path, number) for number in range(WORKERS)]
    for turn in range(TASKS // sqlite_processes.CLAIMED_AT_ONCE):
        for _, voice in workers:
            assert voice.poll(TORTURE_S)
            assert voice.recv() == "ready"
        first = turn % WORKERS  # whoever is told first has a start, and on a busy machine it wins all
        for _, voice in workers[first:] + workers[:first]:
            voice.send("go")
    winners: dict[TaskId, str] = {}
    for process, voice in workers:
        assert voice.poll(TORTURE_S)
        holder, completed = voice.recv()
        assert not winners.keys() & set(completed)
        winners.update(dict.fromkeys(completed, holder))
        process.join(FIRST_WORD_S)
        assert process.exitcode == 0
    kept = read_all(path)
    assert {task_id: record.holder for task_id, record in kept.items()} == winners
    assert {record.status for record in kept.values()} == {TaskStatus.COMPLETE}
    assert {record.seq for record in kept.values()} == {4}
    assert (len(winners), faults(path)) == (TASKS, [])
    assert len(set(winners.values())) > 1


async def bring(path: Path) -> None:
    """Fill a file with tasks."""
    store = SqliteStore(path)
    async with store.running(lambda _changes: None):
        for _ in range(TASKS):
            store.append((birth(),))
