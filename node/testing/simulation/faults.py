"""What goes wrong in a simulation, how often and for how long, all drawn from its seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.testing.simulation.node import SimulatedNode
    from node.testing.simulation.world import Simulation

_Fault = Callable[["Simulation", "SimulatedNode", "SimulatedNode"], None]

# How many of the faults hit a frame that is under way.
AIMED = 0.75
# How much more or less often than on the average a fault happens in a run.
SWARM = (0, 0.5, 1, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each fault happens in a run, on the average, and for how long.

    Attributes:
        crashes: a process dies as by ``kill -9``, and comes back.
        stops: a process is stopped as by SIGTERM, and comes back.
        pauses: a process stands still as by SIGSTOP, and goes on.
        partitions: some nodes cannot reach the others, until it heals.
        breaks: all connections of a pair of nodes break.
        full_disks: nothing can be saved at a node for a while; not at those whose store takes no time.
        longest_s: what a fault lasts at the most, in seconds; most are much shorter.
        skew_ms: how far a node's clock is off at the most, in milliseconds.
        drift: how much too fast or slow a node's clock is at the most; 0.01 is one in a hundred.
    """

    crashes: float = 3.0
    stops: float = 1.0
    pauses: float = 2.0
    partitions: float = 2.0
    breaks: float = 5.0
    full_disks: float = 1.0
    longest_s: float = 30.0
    skew_ms: int = 600_000
    drift: float = 0.01

    def plan(self, sim: Simulation) -> None:
        """Draw when each fault of a run happens, and to whom.

        Most of them wait for the next frame about a task, and happen to one of the two nodes while it is under way:
        that is where they hurt.
        """
        kinds: tuple[tuple[float, _Fault], ...] = (
            (self.crashes, self._crash),
            (self.stops, self._stop),
            (self.pauses, self._pause),
            (self.partitions, self._partition),
            (self.breaks, self._break),
            (self.full_disks, self._fill_disk),
        )
        for mean, fault in kinds:
            # Runs differ in what goes wrong much, and what not at all: that finds more than a bit of everything.
            for _ in range(_draw_count(sim.rng, mean * sim.rng.choice(SWARM))):
                aims = sim.rng.random() < AIMED
                happen = partial(self._aim if aims else self._strike, sim, fault)
                sim.timeline.after(sim.rng.uniform(0, sim.scenario.seconds), happen)

    def _strike(self, sim: Simulation, fault: _Fault) -> None:
        fault(sim, *sim.rng.sample(sim.nodes, 2))

    def _aim(self, sim: Simulation, fault: _Fault) -> None:
        def strike(one: SimulatedNode, other: SimulatedNode) -> None:
            pair = (one, other) if sim.rng.random() < 0.5 else (other, one)  # noqa: PLR2004 - either of two
            sim.timeline.after(sim.rng.uniform(0, sim.scenario.latency.longest_s), partial(fault, sim, *pair))

        sim.at_next_frame(strike)

    def _lasts(self, sim: Simulation) -> float:
        return self.longest_s * sim.rng.random() ** 3

    def _crash(self, sim: Simulation, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.crash()
        sim.nursery.start_soon(node.restart, self._lasts(sim))

    def _stop(self, sim: Simulation, node: SimulatedNode, _other: SimulatedNode) -> None:
        lasts = self._lasts(sim)

        async def stop_and_start() -> None:
            await node.stop()
            await node.restart(lasts)

        sim.nursery.start_soon(stop_and_start)

    def _pause(self, sim: Simulation, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.pause()
        sim.timeline.after(self._lasts(sim), node.resume)

    def _partition(self, sim: Simulation, one: SimulatedNode, other: SimulatedNode) -> None:
        rest = [node for node in sim.nodes if node not in {one, other}]
        some = [one, *sim.rng.sample(rest, sim.rng.randint(0, len(rest) // 2))]
        others = [node for node in sim.nodes if node not in some]
        sim.partition(some, others)
        sim.timeline.after(self._lasts(sim), partial(sim.heal, some, others))

    def _break(self, sim: Simulation, one: SimulatedNode, other: SimulatedNode) -> None:
        sim.break_link(one, other)

    def _fill_disk(self, sim: Simulation, node: SimulatedNode, _other: SimulatedNode) -> None:
        node.fill_disk()
        sim.timeline.after(self._lasts(sim), node.free_disk)


NO_FAULTS = Faults(crashes=0, stops=0, pauses=0, partitions=0, breaks=0, full_disks=0, skew_ms=0, drift=0)
"""Everything works."""


def _draw_count(rng: random.Random, mean: float) -> int:
    """Return how often something happens that happens so often on the average (a Poisson distribution)."""
    count, waited = 0, rng.expovariate(1.0)
    while waited < mean:
        count += 1
        waited += rng.expovariate(1.0)
    return count
