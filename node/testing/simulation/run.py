"""Runs a simulation from its seed, and reports."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from node.background import open_background
from node.telemetry import default_to_stdlib_logging
from node.testing.simulation.determinism import seeded
from node.testing.simulation.judge import Judge, Violation
from node.testing.simulation.process import Processes
from node.testing.simulation.scenario import Scenario
from node.testing.simulation.storm import storm
from node.testing.simulation.trace import Trace
from node.testing.simulation.virtual_time import Timeline, VirtualClock
from node.testing.simulation.world import Simulation

# What a failing test prints: the last things that happened to the first task with which something is wrong.
SHOWN_LINES = 40
_UNNAMED = "simulate(scenario, {}), or give the scenario a name for a command that does it"


class SimulationFailed(AssertionError):
    """A promise was broken in a simulation; the message says which, and how to see it again."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What has come of a simulation.

    Attributes:
        scenario: what was simulated.
        seed: from which seed.
        violations: which promises were broken.
        trace: what happened.
        seconds: how long it took, in seconds of the simulation.
        executions: how many executions there were.
        counts: how often something else was done, by what it is, such as ``graphs``.
    """

    scenario: Scenario
    seed: int
    violations: tuple[Violation, ...]
    trace: Trace
    seconds: float
    executions: int
    counts: Mapping[str, int]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that two runs share when everything happened in the same way."""
        return self.trace.digest()

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        return self.scenario.command(self.seed)

    @property
    def done(self) -> str:
        """What was done, in words and numbers."""
        counted = [f"{self.executions} executions", *(f"{count} {what}" for what, count in sorted(self.counts.items()))]
        return f"{', '.join(counted)} in {self.seconds:.0f} s"

    def check(self) -> SimulationReport:
        """Return the report when no promise was broken.

        Raises:
            SimulationFailed: one was; the message has the command that repeats the run.
        """
        if self.violations:
            raise SimulationFailed(self.describe())
        return self

    def describe(self) -> str:
        """Say which promises were broken, how to see it again, and what happened last to the first task concerned."""
        broken = [f"  - {violation}" for violation in self.violations]
        lines = list(self.trace.lines(self.violations[0].task_id if self.violations else None))[-SHOWN_LINES:]
        again = self.command if self.scenario.is_repeatable else _UNNAMED.format(self.seed)
        return "\n".join(
            [f"seed {self.seed} breaks promises ({self.done}):", *broken, "See it again:", f"  {again}", *lines]
        )


@contextmanager
def silence() -> Iterator[None]:
    """Drop all log records for the length of the context: hundreds of failures are meant to happen."""
    default_to_stdlib_logging()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def simulate(scenario: Scenario | None = None, seed: int = 0) -> SimulationReport:
    """Simulate a scenario; the same seed brings about the same run, on every machine.

    Runs in a trio of its own, so it cannot be called from within one. Nothing in it may wait for anything but trio's
    clock and events: threads, sockets and processes do not stop its time.

    Args:
        scenario: what to simulate; five nodes, fifty tasks and all faults by default.
        seed: decides everything that is left to chance.
    """
    scenario = scenario or Scenario()
    timeline, processes = Timeline(), Processes()
    clock = VirtualClock(timeline)
    trace = Trace(clock.current_time)
    judge = Judge(trace, scenario.limits.in_flight)
    with silence(), seeded(seed) as rng:

        async def main() -> None:
            async with open_background() as nursery:
                await Simulation(scenario, rng, nursery, processes, timeline, judge).run(scenario.script or storm)

        try:
            trio.run(main, clock=clock, instruments=[processes])
        except Exception as error:  # noqa: BLE001 - whatever a part raises is what the simulation has found
            judge.find("nothing raises", f"{error!r}\n{traceback.format_exc()}")
    return SimulationReport(
        scenario, seed, tuple(judge.violations), trace, clock.current_time(), judge.executions, dict(judge.counts)
    )
