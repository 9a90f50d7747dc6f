"""The graphs of a simulation."""

from __future__ import annotations

import random

from node.testing import NO_FAULTS, Scenario, simulate
from node.testing.simulation.graphs import LARGEST_GRAPH, SMALLEST_GRAPH, draw_edges

# As many as show every shape.
SEEDS = 30


def test_a_graph_begins_with_what_others_depend_on() -> None:
    """Chains, fans and mixtures, none of which has a cycle."""
    shapes = set()
    for seed in range(SEEDS):
        for size in (SMALLEST_GRAPH, LARGEST_GRAPH):
            edges = draw_edges(random.Random(seed), size)
            assert len(edges) == size
            assert all(other < place for place, others in enumerate(edges) for other in others)
            shapes.add((size, max(map(len, edges))))
    assert shapes >= {(LARGEST_GRAPH, 1), (LARGEST_GRAPH, 2), (LARGEST_GRAPH, LARGEST_GRAPH - 2)}


def test_graphs_are_asked_for_and_end() -> None:
    """A scenario says how many of its tasks belong to some; the tasks of all visitors are as many as it says."""
    scenario = Scenario(graphed=1.0, faults=NO_FAULTS, hurried=0, repeated=0)
    reports = [simulate(scenario, seed).check() for seed in range(4)]
    assert any(report.counts.get("graphs", 0) >= scenario.tasks // LARGEST_GRAPH for report in reports)
    for report in reports:
        asked = {event.task_id for event in report.trace.events if event.what == "is asked for"}
        assert len(asked) == scenario.tasks


def test_no_graphs_are_asked_for_where_a_scenario_says_so() -> None:
    """The mixture is a field of the scenario."""
    assert "graphs" not in simulate(Scenario(graphed=0), 1).check().counts
