"""A process that keeps tasks in files and is killed with kill -9, at random moments, again and again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.stores.files import FilesStore
from tests.node.stores.task_files import loaded, running

ROUNDS = 20
SEED = 20_260_101
MAX_TOLD = 200

_COMMITTED = re.compile(r"([0-9a-f-]{36}) (\d+)")
_FORGOT = re.compile(r"forgot ([0-9a-f-]{36})")


@contextmanager
def workers(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts workers on a folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.stores.files_process", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[3],
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


class Told:
    """What workers have said: the last number of each task that they had not begun to forget."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.commits = 0
        self._forgotten: set[str] = set()

    def hear(self, line: str) -> None:
        """Take note of a line; half a line, and what else is said, is not one of these."""
        if (committed := _COMMITTED.fullmatch(line)) and committed[1] not in self._forgotten:
            self.commits += 1
            self.last[committed[1]] = max(self.last.get(committed[1], 0), int(committed[2]))
        elif forgot := _FORGOT.fullmatch(line):
            self._forgotten.add(forgot[1])
            self.last.pop(forgot[1], None)


def run_until_killed(process: subprocess.Popen[str], seed: int, lines: int, told: Told) -> None:
    """Let a worker work until it has said so many lines, kill it, and note in `told` what it had said by then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seed}\n")
    pid = None
    for number, line in enumerate(iter(process.stdout.readline, "gone\n")):
        if line.startswith("pid "):
            pid = int(line.split()[1])
        told.hear(line.strip())
        if pid is not None and number >= lines:
            os.kill(pid, signal.SIGKILL)
            pid, lines = None, sys.maxsize


@pytest.mark.slow
async def test_nothing_that_was_committed_is_lost_in_a_crash(tmp_path: Path) -> None:
    """After each kill every change that was told is there, every file is whole, and the next worker goes on with it."""
    # covers FILE-1, FILE-2, FILE-16
    rng = random.Random(SEED)
    told = Told()
    with workers(tmp_path) as process:
        for number in range(ROUNDS):
            run_until_killed(process, rng.randrange(2**32), rng.randrange(1, MAX_TOLD), told)
            for path in (tmp_path / "tasks").glob("*/task-*.json"):
                json.loads(path.read_bytes())
            kept = {str(record.id): record.seq for record in await loaded(FilesStore(tmp_path))}
            lost = {task_id: seq for task_id, seq in told.last.items() if kept.get(task_id, 0) < seq}
            assert lost == {}, f"round {number}"
    async with running(store := FilesStore(tmp_path)):
        assert store.left_out == ()
        assert list((tmp_path / "tasks").rglob("*.tmp")) == []
    assert told.commits > ROUNDS


def test_half_a_line_is_told_from_a_whole_one() -> None:
    """What a killed worker was about to say does not count, and what was forgotten is not asked for."""
    task_id = "0b0c9d44-2f1e-4c3a-8d7e-3f2a1b0c9d44"
    told = Told()
    for line in (f"{task_id} ", f"{task_id[:20]} 3", "gone", f"forgot {task_id[:8]}"):
        told.hear(line)
    assert told.last == {}
    told.hear(f"{task_id} 7")
    assert told.last == {task_id: 7}
    told.hear(f"forgot {task_id}")
    told.hear(f"{task_id} 8")
    assert told.last == {}
