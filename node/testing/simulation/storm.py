"""What happens unless a scenario says it: tasks at random moments, and faults at others, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import trio

from node.testing.clocks import START_MS
from node.testing.simulation.agents import send_agents
from node.testing.simulation.graphs import LARGEST_GRAPH, SMALLEST_GRAPH, GraphVisitor
from node.testing.simulation.node import SimulatedNode
from node.testing.simulation.watchers import SimulatedWatcher
from node.testing.simulation.workload import AGENT_KIND
from node.testing.simulation.world import Simulation
from protocol import PeertaskError, Task, TaskNotFound

# Whoever is told BUSY or finds a node down comes again after this, at the most.
COME_AGAIN_S = 5.0
# How many of the faults hit a frame that is under way.
AIMED = 0.75
# How much more or less often than on the average a fault happens in a run.
SWARM = (0, 0.5, 1, 2.5)
# How many of the single tasks are for agents, where there are any.
FOR_AGENTS = 0.3
# In which part of the time of a run all tasks come: in a rush, nodes are full.
RUSH = (0.2, 1, 1)

_Fault = Callable[[SimulatedNode, SimulatedNode], None]


async def storm(sim: Simulation) -> None:
    """Ask for tasks at random moments of random nodes, while the faults of the scenario happen at others."""
    rng, seconds = sim.rng, sim.scenario.seconds
    sim.visitors += sim.scenario.tasks
    send_agents(sim)
    rush_s = seconds * rng.choice(RUSH)
    for visitor in _visitors(sim):
        sim.timeline.after(rng.uniform(0, rush_s), visitor.come)
    _Weather(sim).plan()
    await trio.sleep(seconds)


def _visitors(sim: Simulation) -> Iterator[_Visitor | GraphVisitor]:
    """Yield who comes; together they want as many tasks as the scenario says."""
    rng, scenario = sim.rng, sim.scenario
    in_graphs = scenario.tasks * scenario.graphed * rng.choice(SWARM)
    number = 0
    while number < scenario.tasks:
        left = scenario.tasks - number
        size = min(rng.randint(SMALLEST_GRAPH, LARGEST_GRAPH), scenario.capacity.open_tasks, left)
        is_graph = number < in_graphs and size >= SMALLEST_GRAPH
        yield GraphVisitor(sim, number, size) if is_graph else _Visitor(sim, number)
        number += size if is_graph else 1


class _Visitor:
    """Somebody who wants a task done, and may ask twice or change their mind."""

    def __init__(self, sim: Simulation, number: int) -> None:
        rng, scenario = sim.rng, sim.scenario
        self._sim = sim
        self._node: SimulatedNode = rng.choice(sim.nodes)
        self._to = rng.choice((None, *sim.nodes))
        self._timeout = rng.uniform(1, 60) if rng.random() < scenario.hurried else None
        self._cancels = rng.random() < scenario.cancelled
        self._repeats = rng.random() < scenario.repeated
        self._watches = rng.random() < scenario.watched
        fields = dict(scenario.task(rng))
        if sim.agents_at is not None and rng.random() < FOR_AGENTS:
            self._to, fields["kind"] = sim.agents_at, AGENT_KIND
        self._task = Task.new(f"task {number}", self._node.name, timestamp=START_MS + number, **fields)

    def come(self) -> None:
        """Ask, now or when it is possible."""
        if not self._ask():
            self._sim.timeline.after(self._sim.rng.uniform(0, COME_AGAIN_S), self.come)
            return
        self._sim.visitors -= 1
        if self._watches:
            self._sim.nursery.start_soon(SimulatedWatcher(self._sim, self._node, self._task.id).live)
        if self._repeats:
            self._later(self._ask)
        if self._cancels:
            self._later(self._cancel)

    def _later(self, action: Callable[[], object]) -> None:
        """Do something soon, or after up to ten seconds."""
        self._sim.timeline.after(10 * self._sim.rng.random() ** 4, action)

    def _ask(self) -> bool:
        if not self._node.answers:
            return False
        try:
            self._node.ask(self._task, to=self._to, timeout=self._timeout)
        except PeertaskError as error:
            self._sim.trace.note(self._node.name, "refuses", self._task.id, error.code)
            return False
        return True

    def _cancel(self) -> None:
        if self._node.answers:
            try:
                self._node.cancel(self._task.id)
            except TaskNotFound:  # it was lost in a crash before it was saved
                self._sim.trace.note(self._node.name, "does not know", self._task.id)


class _Weather:
    """Brings the faults of a scenario about."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def plan(self) -> None:
        """Draw when each fault of the run happens, and to whom.

        Most of them wait for the next frame about a task, and happen to one of the two nodes while it is under way:
        that is where they hurt.
        """
        sim, faults = self._sim, self._sim.scenario.faults
        kinds: tuple[tuple[float, _Fault], ...] = (
            (faults.crashes, self._crash),
            (faults.stops, self._stop),
            (faults.pauses, self._pause),
            (faults.partitions, self._partition),
            (faults.breaks, self._break),
            (faults.full_disks, self._fill_disk),
            (faults.jumps, self._set_clock),
        )
        for mean, fault in kinds:
            # Runs differ in what goes wrong much, and what not at all: that finds more than a bit of everything.
            for _ in range(_draw_count(sim.rng, mean * sim.rng.choice(SWARM))):
                aims = sim.rng.random() < AIMED
                happen = partial(self._aim if aims else self._strike, fault)
                sim.timeline.after(sim.rng.uniform(0, sim.scenario.seconds), happen)

    def _strike(self, fault: _Fault) -> None:
        fault(*self._sim.rng.sample(self._sim.nodes, 2))

    def _aim(self, fault: _Fault) -> None:
        def strike(one: SimulatedNode, other: SimulatedNode) -> None:
            pair = (one, other) if self._sim.rng.random() < 0.5 else (other, one)  # noqa: PLR2004 - either of two
            self._sim.timeline.after(
                self._sim.rng.uniform(0, self._sim.scenario.latency.longest_s), partial(fault, *pair)
            )

        self._sim.at_next_frame(strike)

    def _lasts(self) -> float:
        return self._sim.scenario.faults.longest_s * self._sim.rng.random() ** 3

    def _crash(self, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.crash()
        self._sim.nursery.start_soon(node.restart, self._lasts())

    def _stop(self, node: SimulatedNode, _other: SimulatedNode) -> None:
        lasts = self._lasts()

        async def stop_and_start() -> None:
            await node.stop()
            await node.restart(lasts)

        self._sim.nursery.start_soon(stop_and_start)

    def _pause(self, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.pause()
        self._sim.timeline.after(self._lasts(), node.resume)

    def _partition(self, one: SimulatedNode, other: SimulatedNode) -> None:
        rest = [node for node in self._sim.nodes if node not in {one, other}]
        some = [one, *self._sim.rng.sample(rest, self._sim.rng.randint(0, len(rest) // 2))]
        others = [node for node in self._sim.nodes if node not in some]
        self._sim.partition(some, others)
        self._sim.timeline.after(self._lasts(), partial(self._sim.heal, some, others))

    def _break(self, one: SimulatedNode, other: SimulatedNode) -> None:
        self._sim.break_link(one, other)

    def _fill_disk(self, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.fill_disk()
        self._sim.timeline.after(self._lasts(), node.free_disk)

    def _set_clock(self, node: SimulatedNode, _other: SimulatedNode) -> None:
        furthest = self._sim.scenario.faults.jump_ms
        ms = self._sim.rng.randint(-furthest, furthest)
        self._sim.trace.note(node.name, "has its clock set", None, f"by {ms} ms")
        self._sim.judge.counts["clock jumps"] += 1
        node.clock.jump(ms)


def _draw_count(rng: random.Random, mean: float) -> int:
    """Return how often something happens that happens so often on the average (a Poisson distribution)."""
    count, waited = 0, rng.expovariate(1.0)
    while waited < mean:
        count += 1
        waited += rng.expovariate(1.0)
    return count
