"""Fifty nodes in one process, each with tasks for every other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations

import pytest
import trio

from node import Node, NodeConfig, open_node
from node.interfaces import Change
from protocol import Completed, TaskId, TaskStatus, Transition

NODES = 50
TASKS_EACH = 2
DIALS_AT_ONCE = 16
OPEN_AT_ONCE = 64  # tasks that one node waits for at a time
LIMIT_S = 280.0
# One core carries both ends of 1,225 sessions here: heartbeats at their usual pace would take half of it, and each node
# would tell each other one of all the rest at the very time when they connect.
CONFIG = NodeConfig(heartbeat_ms=60_000, silence_ms=180_000, lease_ms=180_000, share_peers=False)


class Census:
    """Counts how often each task ended at each node."""

    def __init__(self) -> None:
        self.endings: Counter[tuple[str, TaskId]] = Counter()
        self.odd: list[Transition] = []

    def watch(self, node: Node) -> None:
        """Count what ends at a node from now on."""

        def note(change: Change) -> None:
            if change.record.terminal:
                self.endings[node.peer_id, change.record.id] += 1
                if not isinstance(change.fact, Completed):
                    self.odd.append(change.fact)  # type: ignore[arg-type]

        node.feed.listen(note)


async def connect_all(nodes: list[Node]) -> None:
    """Bring about one session for each pair."""
    limiter = trio.CapacityLimiter(DIALS_AT_ONCE)

    async def connect(one: Node, other: Node) -> None:
        async with limiter:
            await one.connect(other.addresses[0])

    async with trio.open_nursery() as nursery:
        for one, other in combinations(nodes, 2):
            nursery.start_soon(connect, one, other)


async def ask_everybody(node: Node, nodes: list[Node]) -> None:
    """Have every other node do some tasks, and wait for all of them."""
    limiter = trio.CapacityLimiter(OPEN_AT_ONCE)

    async def ask(peer: Node, text: str) -> None:
        async with limiter:
            result = await node.submit(text, to=peer.peer_id, kind="echo")
        assert result.result == text

    async with trio.open_nursery() as nursery:
        for peer in nodes:
            for number in range(TASKS_EACH if peer is not node else 0):
                nursery.start_soon(ask, peer, f"{number} from {node.peer_id} to {peer.peer_id}")


@asynccontextmanager
async def open_fleet(size: int) -> AsyncIterator[list[Node]]:
    """Run so many nodes, and stop all of them at once."""
    stop = trio.Event()

    async def run_node(task_status: trio.TaskStatus[Node]) -> None:
        async with open_node(CONFIG) as node:
            task_status.started(node)
            await stop.wait()

    async with trio.open_nursery() as nursery:
        yield [await nursery.start(run_node) for _ in range(size)]
        stop.set()


@pytest.mark.slow
async def test_fifty_nodes_do_two_tasks_each_for_every_other() -> None:
    """All 4,900 complete; each is recorded once at both its ends, nothing stays open, and each pair has one session."""
    with trio.fail_after(LIMIT_S):
        async with open_fleet(NODES) as nodes:
            census = Census()
            for node in nodes:
                census.watch(node)
            await connect_all(nodes)
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(ask_everybody, node, nodes)
            check_sessions(nodes)
            check_records(nodes, census)


def check_sessions(nodes: list[Node]) -> None:
    """Each node is connected to every other, once."""
    for node in nodes:
        connected = [peer.peer_id for peer in node.peers() if peer.connected]
        assert sorted(connected) == sorted(other.peer_id for other in nodes if other is not node)


def check_records(nodes: list[Node], census: Census) -> None:
    """Every task ended once at its requester and once at its worker, complete."""
    total = NODES * (NODES - 1) * TASKS_EACH
    records = {node.peer_id: node.list_tasks() for node in nodes}
    asked = {task.id: task for peer_id, tasks in records.items() for task in tasks if task.requester == peer_id}
    assert len(asked) == total
    assert Counter(task.status for tasks in records.values() for task in tasks) == {TaskStatus.COMPLETE: 2 * total}
    ends = {(task.requester, task.id) for task in asked.values()} | {
        (task.holder, task.id) for task in asked.values() if task.holder is not None
    }
    assert census.odd == []
    assert census.endings == dict.fromkeys(ends, 1)
    assert len(ends) == 2 * total
    assert sum(node.manager.open_tasks for node in nodes) == 0
