"""Those who watch single tasks in a simulation: they come and go, and must hear every fact once, in order."""

from __future__ import annotations

import random

import trio

from node.interfaces import Change, Lagged
from node.testing.simulation.node import NodeIsDown, SimulatedNode
from node.testing.simulation.world import Simulation
from protocol import TaskId, TaskNotFound

# A watcher hangs up after this at the most, and comes back after that at the most.
LONGEST_WATCH_S = 6.0
LONGEST_AWAY_S = 3.0
PROMISE = "watchers miss nothing"


class SimulatedWatcher:
    """Somebody who watches a task until its end, over several connections.

    Args:
        sim: where.
        node: whose task it is.
        task_id: which.
    """

    def __init__(self, sim: Simulation, node: SimulatedNode, task_id: TaskId) -> None:
        self._sim = sim
        self._node = node
        self._task_id = task_id
        self._rng = random.Random(sim.rng.getrandbits(64))
        self._seq = 0
        self._gap = False
        self._is_over = False

    async def live(self) -> None:
        """Watch, hang up and come back, until the task has ended or is lost."""
        self._sim.watching += 1
        self._sim.judge.counts["watchers"] += 1
        while not self._is_over:
            await self._watch()
        self._sim.watching -= 1

    async def _watch(self) -> None:
        """Watch until there is nothing more to hear, or for a while, and be away then."""
        with trio.move_on_after(self._rng.uniform(0, LONGEST_WATCH_S)):
            try:
                await self._node.watch(self._task_id, self._seq, self._take)
                self._check_end()
                self._is_over = True
            except NodeIsDown:
                pass
            except TaskNotFound:
                self._check_lost()
                self._is_over = True
        await trio.sleep(self._rng.uniform(0, LONGEST_AWAY_S))

    def _take(self, change: Change | Lagged) -> None:
        """Look at what comes, in the order of coming."""
        if isinstance(change, Lagged):
            self._gap = True
            return
        seq = change.record.seq
        if seq <= self._seq or (seq > self._seq + 1 and not self._gap):
            self._find(f"heard of fact {seq} after fact {self._seq}, and of no gap")
        saved = self._sim.judge.saved(self._node.peer_id, self._task_id)
        if saved is None or saved.seq < seq:
            self._find(f"heard of fact {seq} before it was saved")
        self._seq, self._gap = seq, False

    def _check_end(self) -> None:
        saved = self._sim.judge.saved(self._node.peer_id, self._task_id)
        if saved is None or not saved.terminal or saved.seq != self._seq:
            self._find(f"was sent away after fact {self._seq}, which is not the last")

    def _check_lost(self) -> None:
        if self._sim.judge.saved(self._node.peer_id, self._task_id) is not None:
            self._find("was told that there is no such task, and it is saved")

    def _find(self, what: str) -> None:
        self._sim.judge.find(PROMISE, f"has a watcher at {self._node.name} that {what}", self._task_id)
