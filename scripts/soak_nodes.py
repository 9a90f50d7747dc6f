"""Two nodes under work for a long time: what they use is measured, and must not go on growing."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import psutil
import trio

from node.config import variable_of
from node.gateways.http.client import ControlClient
from protocol import PeertaskError, new_task_id

# Keeps both nodes busy, and the queue of the requester far from full.
LANES: Final = 4
TASKS_A_BATCH: Final = 100
PROMPT: Final = "x" * 200
SAMPLE_S: Final = 60.0
# Short runs need as many samples to be judged.
FEWEST_SAMPLES: Final = 12
# What a part of a run may use more than the part before: allocators and WALs breathe, growth without bound goes on.
TOLERANCE: Final = 1.10
TOLERANCE_MB: Final = 8.0
START_S: Final = 60.0
END_S: Final = 60.0
STOP_S: Final = 20.0
OPEN: Final = ("pending", "claimed", "executing", "cancelling")
NAMES: Final = ("requester", "worker")
MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Use:
    """What a node uses at a moment, in megabytes."""

    memory: float
    folder: float


class NodeProcess:
    """A node in a process and a folder of its own."""

    def __init__(self, folder: Path, options: Sequence[str], retained: int) -> None:
        self.folder = folder
        self.client = ControlClient(folder)
        self._process = subprocess.Popen(  # noqa: S603 - the program that is looked at
            ["peertask", "node", "--json", "--until-eof", "--data", str(folder), *options],  # noqa: S607 - of the venv
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {variable_of("retention_records"): str(retained), variable_of("log_level"): "warning"},
            text=True,
        )
        self._measured = psutil.Process(self._process.pid)

    def wait_ready(self) -> str:
        """Return its address, once it answers."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit(f"the node in {self.folder} did not start")
        return str(json.loads(line)["addresses"][0])

    def use(self) -> Use:
        """Measure it."""
        if self._process.poll() is not None:
            sys.exit(f"the node in {self.folder} has ended with {self._process.returncode}")
        return Use(self._measured.memory_info().rss / MB, _size(self.folder) / MB)

    def end(self) -> None:
        """Stop it."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:  # it was forgotten meanwhile
            continue
    return total


@contextmanager
def nodes(options: argparse.Namespace) -> Iterator[list[NodeProcess]]:
    """A requester and a worker that run."""
    with tempfile.TemporaryDirectory(prefix="peertask-soak-") as folder:
        started = [NodeProcess(Path(folder) / name, ["--store", options.store], options.retained) for name in NAMES]
        try:
            yield started
        finally:
            for node in started:
                node.end()


class Work:
    """Tasks that one node asks of another, without a pause."""

    def __init__(self, requester: NodeProcess, worker: NodeProcess) -> None:
        self._client = requester.client
        self._worker = worker
        self.done = 0

    @asynccontextmanager
    async def going_on(self, address: str) -> AsyncIterator[None]:
        """Work for the length of the context, and to the end of what was begun."""
        worker_id = (await self._client.connect(address)).peer_id
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(LANES):
                nursery.start_soon(self._work, worker_id, stop)
            yield
            stop.set()

    async def _work(self, worker_id: str, stop: trio.Event) -> None:
        while not stop.is_set():
            task_ids = [new_task_id() for _ in range(TASKS_A_BATCH)]
            tasks = [{"id": task_id, "prompt": PROMPT, "kind": "echo", "to": worker_id} for task_id in task_ids]
            for became in await self._client.submit_many(tasks):
                if isinstance(became, PeertaskError):
                    sys.exit(f"a task was refused: {became}")
            await self._client.finish(task_ids[-1])
            self.done += TASKS_A_BATCH

    async def check_ended(self) -> None:
        """Wait for the tasks that are still open, and fail when one has ended otherwise than complete."""
        with trio.fail_after(END_S):
            for status in OPEN:
                for task in await self._client.list_tasks(status=status, limit=1000):
                    await self._client.finish(task.id)
        for status in ("failed", "cancelled"):
            if ended := await self._client.list_tasks(status=status, limit=1):
                sys.exit(f"a task is {status}: {ended[0].failure}")


async def soak(options: argparse.Namespace, requester: NodeProcess, worker: NodeProcess) -> list[list[Use]]:
    """Work for so many minutes, and return what the nodes used at each look."""
    addresses = [node.wait_ready() for node in (requester, worker)]
    work = Work(requester, worker)
    seconds = options.minutes * 60
    interval = min(SAMPLE_S, seconds / FEWEST_SAMPLES)
    samples: list[list[Use]] = []
    begun = time.monotonic()
    async with work.going_on(addresses[1]):
        for number in itertools.count(1):
            done = work.done
            await trio.sleep(max(0.0, begun + number * interval - time.monotonic()))
            samples.append([requester.use(), worker.use()])
            _tell(time.monotonic() - begun, samples[-1], work.done, (work.done - done) / interval)
            if number * interval >= seconds:
                break
    await work.check_ended()
    return samples


def _tell(seconds: float, uses: Sequence[Use], done: int, rate: float) -> None:
    parts = [f"{name} {use.memory:6.1f} MB, folder {use.folder:7.1f} MB" for name, use in zip(NAMES, uses, strict=True)]
    print(f"{seconds / 60:6.2f} min  {'   '.join(parts)}   {done:9,} tasks, {rate:6,.0f}/s", flush=True)


def growth(figures: Sequence[float]) -> str:
    """Say how much more the last third of a run has used than the one before it; nothing when that is no growth.

    The first third fills caches, and the store up to what it keeps.
    """
    third = len(figures) // 3
    middle, last = fmean(figures[third : 2 * third]), fmean(figures[-third:])
    if last <= middle * TOLERANCE or last - middle <= TOLERANCE_MB:
        return ""
    return f"{middle:.1f} MB, and then {last:.1f} MB"


def judge(samples: Sequence[Sequence[Use]]) -> int:
    """Print what grows, and return the exit code."""
    grown = [
        f"the {what} of the {name} grows: {said}"
        for name, uses in zip(NAMES, zip(*samples, strict=True), strict=True)
        for what in ("memory", "folder")
        if (said := growth([getattr(use, what) for use in uses]))
    ]
    print("\n".join(grown) or "nothing grows", flush=True)
    return 1 if grown else 0


def main() -> int:
    """Read the options, work, and judge."""
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--retained", type=int, default=10_000)
    options = parser.parse_args()
    with nodes(options) as (requester, worker):
        return judge(trio.run(soak, options, requester, worker))


if __name__ == "__main__":
    sys.exit(main())
