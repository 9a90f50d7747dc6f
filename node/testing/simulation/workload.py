"""What is asked of the nodes of a simulation, and executors that take their time and fail, all drawn from its seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from node.interfaces import Execution, Executor, Output
from node.testing.clocks import START_MS
from protocol import PeertaskError, RetryPolicy, Task, TaskNotFound

if TYPE_CHECKING:
    from node.testing.simulation.node import SimulatedNode
    from node.testing.simulation.world import Simulation

KIND = "work"
# Whoever is told BUSY or finds a node down comes again after this, at the most.
COME_AGAIN_S = 5.0


class Worker(Executor):
    """Takes a while, tells how far it is, and fails now and then.

    Args:
        rng: draws how long it takes and whether it fails.
        slots: how many tasks it carries out at once.
        fails: how many of its executions fail; 0 to 1.
        longest_s: what the longest execution takes, in seconds; most are much shorter.
    """

    kind = KIND
    safe = True

    def __init__(self, rng: random.Random, *, slots: int = 4, fails: float = 0.1, longest_s: float = 10.0) -> None:
        self.slots = slots
        self._rng = rng
        self._fails = fails
        self._longest_s = longest_s
        self._number = 0

    async def execute(self, execution: Execution) -> Output:
        """Sleep and return a text that no other execution returns."""
        self._number += 1
        text = f"{execution.task.prompt}: {execution.holder}, {self._number}, {self._rng.getrandbits(32):08x}"
        seconds = self._longest_s * self._rng.random() ** 4
        fails = self._rng.random() < self._fails
        steps = self._rng.choice((0, 0, 0, 1, 3))
        for step in range(steps):
            await trio.sleep(seconds / (steps + 1))
            execution.progress((step + 1) / (steps + 1))
        await trio.sleep(seconds / (steps + 1))
        if fails:
            raise RuntimeError(f"drawn to fail: {text}")
        return Output(text)


def draw_task(rng: random.Random) -> dict[str, Any]:
    """Return fields of a task, without what it is and who is to do it."""
    policy = RetryPolicy(
        attempts=rng.choice((1, 3, 3, 5)),
        backoff_ms=rng.choice((0, 100, 500)),
        max_backoff_ms=5_000,
        elsewhere=rng.random() < 0.3,  # noqa: PLR2004 - three of ten
    )
    fields: dict[str, Any] = {"kind": KIND, "priority": rng.randrange(10), "retry": policy}
    if rng.random() < 0.1:  # noqa: PLR2004 - one of ten
        fields["timeout_ms"] = rng.randint(100, 8_000)
    return fields


async def storm(sim: Simulation) -> None:
    """Ask for tasks at random moments of random nodes, while the faults of the scenario happen at others."""
    rng, seconds = sim.rng, sim.scenario.seconds
    sim.visitors += sim.scenario.tasks
    for number in range(sim.scenario.tasks):
        sim.timeline.after(rng.uniform(0, seconds), _Visitor(sim, number).come)
    sim.scenario.faults.plan(sim)
    await trio.sleep(seconds)


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
        self._task = Task.new(f"task {number}", self._node.name, timestamp=START_MS + number, **scenario.task(rng))

    def come(self) -> None:
        """Ask, now or when it is possible."""
        if not self._ask():
            self._sim.timeline.after(self._sim.rng.uniform(0, COME_AGAIN_S), self.come)
            return
        self._sim.visitors -= 1
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
