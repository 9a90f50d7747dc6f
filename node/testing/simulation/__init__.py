"""A simulator: many real nodes in one process, on a virtual clock, with everything going wrong that a seed decides."""

from node.testing.simulation.faults import NO_FAULTS, Faults
from node.testing.simulation.judge import Violation
from node.testing.simulation.links import Latency
from node.testing.simulation.node import NodeIsDown, Parts, SimulatedNode
from node.testing.simulation.run import SimulationFailed, SimulationReport, simulate
from node.testing.simulation.scenario import Scenario, load_scenario
from node.testing.simulation.store import Disk, SimulatedStore
from node.testing.simulation.storm import storm
from node.testing.simulation.trace import Trace
from node.testing.simulation.workload import Worker
from node.testing.simulation.world import Simulation

__all__ = [
    "NO_FAULTS",
    "Disk",
    "Faults",
    "Latency",
    "NodeIsDown",
    "Parts",
    "Scenario",
    "SimulatedNode",
    "SimulatedStore",
    "Simulation",
    "SimulationFailed",
    "SimulationReport",
    "Trace",
    "Violation",
    "Worker",
    "load_scenario",
    "simulate",
    "storm",
]
