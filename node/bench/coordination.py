"""What it costs to decide who does what next, and to have tasks done that depend on each other."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from node.app import open_node
from node.bench.figures import Figure, at_least, at_most, percentile
from node.bench.pair import BODY, open_pair
from node.config import NodeConfig
from node.coordination.plan import Backlog, plan
from node.coordination.roster import Roster, Worker
from node.gateways.http.client import ControlClient
from protocol import JsonObject, PeerId, Submitted, Task, TaskRecord, begin

PENDING_TASKS = 10_000
WORKERS = 100
GRAPH_TASKS = 10_000
CONCURRENT_TASKS = 100
_ME = PeerId("12D3KooWBenchmark")


async def coordination(seconds: float) -> list[Figure]:
    """The plan with a long backlog; a large graph, from its submission to its end; questions to a busy node."""
    return [*_plan(seconds), *await _graph(), *await _status()]


def _plan(seconds: float) -> list[Figure]:
    """Measure wake-ups of a busy node: a worker has just become free, and a new task has come."""
    backlog = Backlog(_ME)
    for number in range(PENDING_TASKS):
        backlog.update(_pending(number))
    workers = [Worker(PeerId(f"worker-{number}"), frozenset({"echo"}), slots=1) for number in range(WORKERS)]
    roster = Roster(workers, _ME)
    plan(backlog, roster, now=0)  # all of them begin
    samples: list[float] = []
    end_s, number = time.perf_counter() + seconds / 5, PENDING_TASKS
    while time.perf_counter() < end_s:
        number += 1
        ended, arrived = workers[number % WORKERS], _pending(number)
        begin_s = time.perf_counter()
        ended.busy -= 1
        backlog.update(arrived)
        plan(backlog, roster, now=0)
        samples.append((time.perf_counter() - begin_s) * 1000)
    name = f"a wake-up, {PENDING_TASKS:,} pending, {WORKERS} workers, p99"
    return [Figure("coordination", name, percentile(samples, 0.99), "ms", None, (at_most(1),))]


def _pending(number: int) -> TaskRecord:
    task = Task.new(BODY, _ME, timestamp=number, kind="echo")
    return begin(Submitted(task, number, _ME))


async def _graph() -> list[Figure]:
    async with open_pair(store="sqlite") as pair:
        begin_s = time.perf_counter()
        ids = await pair.node.submit_graph(_tasks())
        saved_s = time.perf_counter()
        submission = f"submit a graph of {GRAPH_TASKS:,}, SQLite"
        for task_id in ids.values():
            await pair.node.manager.wait(task_id)
        rate = GRAPH_TASKS / (time.perf_counter() - saved_s)
    return [
        Figure("coordination", submission, saved_s - begin_s, "s", None, (at_most(3),)),
        Figure("coordination", "run it on 2 nodes", rate, "tasks/s", None, (at_least(2_000),)),
    ]


def _tasks() -> dict[str, JsonObject]:
    """Return a graph of some 13 layers, each twice as wide as the one before; each task needs two others."""
    return {
        str(number): {
            "prompt": BODY,
            "kind": "echo",
            "depends_on": sorted({str(number // 2), str(number // 3)}) if number else [],
        }
        for number in range(GRAPH_TASKS)
    }


async def _status() -> list[Figure]:
    """Ask a node how a hundred tasks stand while it executes them, as the command line does (COORD-60)."""
    samples: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_node(NodeConfig(data=Path(folder))) as node:
            client = ControlClient(Path(folder))
            ids = [await node.enqueue(BODY) for _ in range(CONCURRENT_TASKS)]
            for task_id in ids:
                begin_s = time.perf_counter()
                await client.get(task_id)
                samples.append((time.perf_counter() - begin_s) * 1000)
    name = f"how a task stands, over HTTP, {CONCURRENT_TASKS} at once, p99"
    return [Figure("coordination", name, percentile(samples, 0.99), "ms", None, (at_most(100),))]
