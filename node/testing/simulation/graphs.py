"""Graphs of tasks for a simulation: chains, fans and what is between, asked for as a whole, and looked after."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from node.interfaces import GraphTask
from node.retrying import submit_again
from node.testing.clocks import START_MS
from node.testing.simulation.node import SimulatedNode
from node.testing.simulation.workload import DOOMED
from node.testing.simulation.world import Simulation
from protocol import PeertaskError, Task, TaskId, TaskRecord, new_task_id

SMALLEST_GRAPH = 3
LARGEST_GRAPH = 8
# How many tasks of a graph fail whatever is done.
DOOMED_SHARE = 0.1
# How many tasks wait on when one that they depend on fails, until somebody has that one done again.
PATIENT_SHARE = 0.4
# How many graphs have a parent of all the other tasks, and how many of those are cancelled with it.
FAMILY_SHARE = 0.5
CANCELLED_SHARE = 0.6
# Whoever asked for a graph looks so often at what waits for something that has failed.
LOOKS_EVERY_S = 3.0
# Until then it is saved, or was lost with a process and asked for again.
LOOKS_FOR_S = 60.0
# After so many looks they have nothing done again any more, and cancel what waits.
PATIENCE_LOOKS = 3
COME_AGAIN_S = 5.0

_Edges = list[tuple[int, ...]]


def draw_edges(rng: random.Random, size: int) -> _Edges:
    """Return for each task of a graph the places of those that it depends on: a chain, a fan out and in, or a mixture.

    Args:
        rng: draws which.
        size: how many tasks there are; 3 at least.
    """
    shape = rng.choice(("chain", "fan", "mixture"))
    if shape == "chain":
        return [(place - 1,) if place else () for place in range(size)]
    if shape == "fan":
        return [(), *[(0,)] * (size - 2), tuple(range(1, size - 1))]
    return [tuple(sorted(rng.sample(range(place), rng.randint(0, min(2, place))))) for place in range(size)]


def draw_graph(
    rng: random.Random,
    sender: SimulatedNode,
    name: str,
    size: int,
    fields: Callable[[random.Random], Mapping[str, Any]],
) -> list[Task]:
    """Return the tasks of a graph, those first that others depend on.

    Args:
        rng: draws what is left to chance.
        sender: the node that they are asked of.
        name: what their prompts begin with.
        size: how many there are; 3 at least.
        fields: draws what each is, but for what it has to do with the others.
    """
    ids = [new_task_id() for _ in range(size)]
    parent = ids[0] if rng.random() < FAMILY_SHARE else None
    return [
        Task.new(
            f"{name}.{place}",
            sender.name,
            id=ids[place],
            timestamp=START_MS,
            depends_on=tuple(ids[other] for other in edges),
            on_failed_dependency="wait" if edges and rng.random() < PATIENT_SHARE else "fail",
            parent_id=parent if place else None,
            params={DOOMED: True} if rng.random() < DOOMED_SHARE else {},
            **fields(rng),
        )
        for place, edges in enumerate(draw_edges(rng, size))
    ]


class GraphVisitor:
    """Somebody who wants a graph of tasks done, and looks after those of them that would wait for ever.

    Args:
        sim: where.
        number: which visitor it is.
        size: how many tasks the graph has.
    """

    def __init__(self, sim: Simulation, number: int, size: int) -> None:
        rng, scenario = sim.rng, sim.scenario
        self._sim = sim
        self._size = size
        self._node: SimulatedNode = rng.choice(sim.nodes)
        tasks = draw_graph(rng, self._node, f"graph {number}", size, scenario.task)
        targets = (None, *sim.peer_ids)
        self._graph = [GraphTask(task, rng.choice(targets)) for task in tasks]
        is_family = any(task.parent_id is not None for task in tasks)
        self._cancels = is_family and rng.random() < CANCELLED_SHARE
        self._timeout = rng.uniform(1, 60) if rng.random() < scenario.hurried else None
        self._repeats = rng.random() < scenario.repeated
        self._tasks = tasks
        self._looks = 0
        self._looks_until = 0.0

    def come(self) -> None:
        """Ask, now or when it is possible."""
        if not self._ask():
            self._sim.timeline.after(self._sim.rng.uniform(0, COME_AGAIN_S), self.come)
            return
        self._sim.visitors -= self._size
        self._sim.judge.counts["graphs"] += 1
        self._looks_until = self._sim.trace.now() + LOOKS_FOR_S
        self._sim.timeline.after(LOOKS_EVERY_S, self._look_after)
        if self._repeats:
            self._later(self._ask)
        if self._cancels:
            self._later(self._cancel)

    def _later(self, action: Callable[[], object]) -> None:
        self._sim.timeline.after(10 * self._sim.rng.random() ** 3, action)

    def _ask(self) -> bool:
        if not self._node.answers:
            return False
        try:
            self._node.ask_graph(self._graph, timeout=self._timeout)
        except PeertaskError as error:
            self._sim.trace.note(self._node.name, "refuses a graph", self._graph[0].task.id, error.code)
            return False
        return True

    def _cancel(self) -> None:
        self._try(lambda: self._node.cancel(self._graph[0].task.id))

    def _look_after(self) -> None:
        """Have done again, or cancel, what keeps others waiting; come again while anything waits."""
        saved = self._node.records()
        waiting = [task for task in self._tasks if task.id in saved and not saved[task.id].terminal]
        if self._node.answers and waiting:
            self._looks += 1
            for task in waiting:
                self._help(task, saved)
        if waiting or not self._node.answers or self._sim.trace.now() < self._looks_until:
            self._sim.timeline.after(LOOKS_EVERY_S, self._look_after)

    def _help(self, task: Task, saved: Mapping[TaskId, TaskRecord]) -> None:
        failed = [other for other in task.depends_on if (record := saved.get(other)) is None or record.failure]
        if task.on_failed_dependency == "fail" or not failed:
            return
        if self._looks < PATIENCE_LOOKS:
            self._try(lambda: self._repeat(failed))
        elif self._looks > PATIENCE_LOOKS:  # what was done again last has had a while
            self._try(lambda: self._node.cancel(task.id))

    def _repeat(self, task_ids: list[TaskId]) -> None:
        node = self._node
        ends = submit_again(node.manager, task_ids, own_id=node.peer_id, now=node.clock.now())
        for task_id, end in zip(task_ids, ends, strict=True):
            if isinstance(end, PeertaskError):
                self._sim.trace.note(node.name, "refuses again", task_id, end.code)
            else:
                self._tasks.append(end.task)
                self._sim.trace.note(node.name, "is asked again for", task_id, end.id)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._node.answers:
            return
        try:
            action()
        except PeertaskError as error:  # it was lost in a crash, or has ended
            self._sim.trace.note(self._node.name, "refuses", self._graph[0].task.id, error.code)
