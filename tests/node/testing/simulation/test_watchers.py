"""Those who watch tasks in a simulation, and clocks that are set."""

from __future__ import annotations

from dataclasses import replace

import trio

from node.interfaces import Change, Lagged
from node.testing import NO_FAULTS, Faults, Scenario, Simulation, simulate
from node.testing.simulation.watchers import SimulatedWatcher
from node.testing.simulation.workload import KIND
from protocol import new_task_id
from tests.node.testing.simulation.test_judge import CLAIMED_, DONE_, ID, STARTED_

CALM = Scenario(nodes=2, tasks=0, agents=0, faults=NO_FAULTS)


def _promises(heard: list[Change | Lagged], *, ended: bool = False) -> list[str]:
    """Return what a watcher of a task that nobody has saved finds wrong with what it hears, without what is unsaved."""

    async def script(sim: Simulation) -> None:
        watcher = SimulatedWatcher(sim, sim.nodes[0], ID)
        for change in heard:
            watcher._take(change)  # noqa: SLF001 - as the node tells it
        if ended:
            watcher._check_end()  # noqa: SLF001 - as above

    violations = simulate(replace(CALM, script=script), 1).violations
    return [violation.what for violation in violations if "before it was saved" not in violation.what]


def test_what_a_watcher_hears_twice_or_not_at_all_is_found() -> None:
    """Unless it is told of the gap."""
    assert "fact 2 after fact 0, and of no gap" in _promises([CLAIMED_])[0]
    assert _promises([Lagged(1), CLAIMED_, STARTED_, DONE_]) == []
    assert "fact 2 after fact 2" in _promises([Lagged(1), CLAIMED_, CLAIMED_])[0]
    assert "which is not the last" in _promises([], ended=True)[0]


def test_watchers_come_back_until_the_end() -> None:
    """Also of a task that was lost before it was saved; every report counts them."""

    async def script(sim: Simulation) -> None:
        ann = sim.nodes[0]
        await trio.sleep(1)
        task_id = ann.submit("x", kind=KIND)
        for watched in (task_id, new_task_id()):
            sim.nursery.start_soon(SimulatedWatcher(sim, ann, watched).live)
        await trio.sleep(0)
        ann.crash()
        await ann.restart(after_s=1)

    for seed in range(4):
        assert simulate(replace(CALM, script=script), seed).check().counts["watchers"] == 2


def test_who_never_hears_of_the_end_is_found() -> None:
    """A simulation does not come to rest before all have."""

    async def script(sim: Simulation) -> None:
        sim.watching += 1

    (violation,) = simulate(replace(CALM, script=script), 1).violations
    assert violation.promise == "watchers miss nothing"


def test_clocks_are_set_forward_and_back() -> None:
    """And only where a scenario says so."""
    jumpy = Scenario(faults=Faults(jumps=8))
    reports = [simulate(jumpy, seed).check() for seed in range(4)]
    jumps = [str(event.detail) for report in reports for event in report.trace.events if "clock set" in event.what]
    assert len(jumps) == sum(report.counts.get("clock jumps", 0) for report in reports)
    assert {jump.startswith("by -") for jump in jumps} == {True, False}
    assert "clock jumps" not in simulate(Scenario(faults=NO_FAULTS), 1).check().counts
