"""What is simulated: how many nodes, which tasks, what goes wrong."""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from node.interfaces import Executor
from node.retention import Capacity
from node.testing.simulation.faults import Faults
from node.testing.simulation.links import Latency
from node.testing.simulation.node import Parts
from node.testing.simulation.store import Disk
from node.testing.simulation.workload import Worker, draw_task
from protocol import ErrorCode, Limits, PeertaskError

NODES = 5
TASKS = 50
# So few that some tasks find a full node.
IN_FLIGHT = 4
OPEN_TASKS = 12
# So short that agents lose some of their leases within a run.
LEASE_MS = 3_000


def _workers(rng: random.Random) -> Iterable[Executor]:
    return (Worker(rng, slots=rng.choice((1, 2, 4))),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated, but for what the seed decides.

    Attributes:
        nodes: how many there are.
        tasks: how many are asked for.
        seconds: for how long tasks come and faults happen, in seconds of the simulation.
        executors: returns the executors of one process of a node; what is left to chance is drawn from the generator.
        task: returns fields of a task by name, such as ``kind`` and ``retry``; drawn likewise.
        graphed: how many tasks belong to graphs, on the average; 0 to 1.
        hurried: how many tasks have a deadline; 0 to 1.
        cancelled: how many tasks are cancelled; 0 to 1.
        repeated: how many tasks are asked for twice; 0 to 1.
        watched: how many of the single tasks are watched; 0 to 1.
        agents: how many outside workers there are at the most.
        lease_ms: the length of a lease, in milliseconds.
        faults: what goes wrong, and how often.
        latency: how long frames take.
        disk: how long stores take.
        limits: what a node takes from one peer.
        capacity: how much a node keeps.
        parts: the classes that a node is made of.
        script: what happens, instead of tasks and faults at random moments; called with the `Simulation`.
        name: where the scenario can be imported from, as ``module:NAME``, for the command that repeats a run.
    """

    nodes: int = NODES
    tasks: int = TASKS
    seconds: float = 20.0
    executors: Callable[[random.Random], Iterable[Executor]] = _workers
    task: Callable[[random.Random], Mapping[str, Any]] = draw_task
    graphed: float = 0.25
    hurried: float = 0.2
    cancelled: float = 0.1
    repeated: float = 0.1
    watched: float = 0.1
    agents: int = 4
    lease_ms: int = LEASE_MS
    faults: Faults = field(default_factory=Faults)
    latency: Latency = field(default_factory=Latency)
    disk: Disk = field(default_factory=Disk)
    limits: Limits = field(default_factory=lambda: Limits(in_flight=IN_FLIGHT))
    capacity: Capacity = field(default_factory=lambda: Capacity(open_tasks=OPEN_TASKS))
    parts: Parts = field(default_factory=Parts)
    script: Callable[[Any], Awaitable[None]] | None = None
    name: str = ""

    def command(self, seed: int) -> str:
        """Return the command that repeats a run."""
        named = f" --scenario {self.name}" if self.name else ""
        return f"peertask simulate --seed {seed}{named} --nodes {self.nodes} --tasks {self.tasks} --trace"

    @property
    def is_repeatable(self) -> bool:
        """Whether the command brings about the same, or knows too little of the scenario."""
        return bool(self.name) or self == Scenario(nodes=self.nodes, tasks=self.tasks)


def load_scenario(name: str) -> Scenario:
    """Return the scenario that a program has, given as ``module:NAME``; a module of the current folder is found too.

    Raises:
        PeertaskError: code INVALID_CONFIG, when there is no such scenario; says what is missing.
    """
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_scenario(name, str(error)) from error
    if not isinstance(found, Scenario):
        raise _no_scenario(name, f"it is a {type(found).__name__}")
    return replace(found, name=name)


def _no_scenario(name: str, reason: str) -> PeertaskError:
    return PeertaskError(
        f"{name} is not a scenario: {reason}",
        code=ErrorCode.INVALID_CONFIG,
        remedy="Name a module and a Scenario in it, as my_tests:SCENARIO",
    )
