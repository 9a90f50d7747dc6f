"""How evenly tasks spread over workers, and how soon another worker has the task of one that is gone."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack

from node.app import Node, open_node
from node.bench.figures import Figure, at_most
from node.bench.pair import open_pair
from node.bench.worker import SleepExecutor
from node.config import NodeConfig
from node.interfaces import Change, Execution, Output
from protocol import Started, TaskId

WORKERS = 8
TASKS = 1_000
# Longer than anybody waits for a worker that is gone.
LONG_MS = 120_000


async def placement(_seconds: float) -> list[Figure]:
    """Tasks that name no peer: how even they lie, and how soon they move on."""
    rows = (
        (f"{TASKS:,} tasks on {WORKERS} peers, busiest over mean", await _imbalance(), "%", 15),
        ("worker killed, task begun elsewhere", await _moved_s(signal.SIGKILL), "s", 1),
        ("worker frozen, task begun elsewhere", await _moved_s(signal.SIGSTOP), "s", 20),
    )
    return [Figure("placement", name, value, unit, None, (at_most(limit),)) for name, value, unit, limit in rows]


async def _imbalance() -> float:
    """Return how much more than the mean the busiest of equal workers has done, in percent."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(open_node(NodeConfig(listen=())))
        for _ in range(WORKERS):
            worker = await stack.enter_async_context(open_node(executors=[SleepExecutor()]))
            await owner.connect(worker.addresses[0])
        async for _ in owner.map(["5"] * TASKS, kind="sleep", concurrency=8 * WORKERS):
            pass
        done = Counter(record.holder for record in owner.list_tasks())
    return (max(done.values()) / (TASKS / WORKERS) - 1) * 100


class _Spare(SleepExecutor):
    """Does a task at once, and notes when it was asked to."""

    def __init__(self) -> None:
        self.asked_at = 0.0

    async def execute(self, _execution: Execution) -> Output:
        self.asked_at = time.perf_counter()
        return Output("")


async def _moved_s(number: signal.Signals) -> float:
    """Return how long after a signal to its worker another one begins with a task, in seconds."""
    spare = _Spare()
    async with open_pair() as pair, open_node(executors=[spare]) as other:
        task_id = await pair.node.enqueue(str(LONG_MS), kind=spare.kind)
        await _has_started(pair.node, task_id)
        await pair.node.connect(other.addresses[0])
        begin = time.perf_counter()
        os.kill(pair.pid, number)
        await pair.node.result(task_id)
        os.kill(pair.pid, signal.SIGKILL)
    return spare.asked_at - begin


async def _has_started(node: Node, task_id: TaskId) -> None:
    async with node.watch(task_id) as changes:
        async for change in changes:
            if isinstance(change, Change) and isinstance(change.fact, Started):
                return
