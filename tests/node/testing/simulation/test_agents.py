"""The agents of a simulation, and what the judge finds about them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from node.testing import NO_FAULTS, FakeAgentSession, NodeIsDown, Scenario, Simulation, simulate
from node.testing.simulation.door import DistantDoor
from node.testing.simulation.workload import KIND
from node.work_service import Claim
from protocol import Claimed, Completed, PeerId, Started, TaskResult, TaskStatus
from tests.node.testing.simulation.test_judge import ANN, BORN, ID, changes_of, judge_of

AGENT = PeerId("agent-1")
TAKEN = changes_of(BORN, Claimed(ID, 2, 1, AGENT, 99))
CALM = Scenario(nodes=2, tasks=0, agents=0, faults=NO_FAULTS, executors=lambda _rng: ())


def _claim(attempt: int = 1) -> Claim:
    return Claim(record=TAKEN[-1].record, attempt=attempt, lease_ms=9, remaining_ms=None)


async def test_an_attempt_that_two_agents_have_is_found() -> None:
    """And one that is told before it is saved."""
    judge = judge_of(TAKEN)
    judge.claims(ANN, AGENT, _claim())
    assert judge.violations == []
    judge.claims(ANN, "agent-2", _claim())
    judge.claims(ANN, AGENT, _claim(attempt=2))
    assert [violation.promise for violation in judge.violations] == ["one holder an attempt", "saved before told"]


async def test_a_stale_result_that_is_recorded_is_found() -> None:
    """Also when the agent is the same, and only the attempt is another."""
    for attempt, promises in ((1, []), (0, ["stale results are refused"])):
        judge = judge_of(TAKEN)
        judge.claims(ANN, AGENT, _claim())
        judge.delivers(AGENT, ID, attempt, "done")
        facts = changes_of(
            BORN, Claimed(ID, 2, 1, AGENT, 99), Started(ID, 3, 1), Completed(ID, 4, 1, TaskResult(ID, "done", 1))
        )
        for change in facts[2:]:
            judge.saves(ANN, change)
        judge.confirms(ANN, AGENT, ID, "done")
        assert [violation.promise for violation in judge.violations] == promises
        assert judge.produced(ID, "done")
        judge.confirms(ANN, AGENT, ID, "another")
        assert judge.violations[-1].promise == "saved before told"


def test_agents_work_at_a_node_that_ends_and_comes_back() -> None:
    """Whoever asks when it is down is told; what the agent has is its own after the restart."""

    async def script(sim: Simulation) -> None:
        ann, _ = sim.nodes
        door = DistantDoor(ann)
        await trio.sleep(1)
        agent = FakeAgentSession(door, (KIND,), agent_id=AGENT)
        await agent.register()
        task_id = ann.submit("x", kind=KIND)
        claim = await agent.claim(1)
        assert claim is not None
        assert claim.record.id == task_id
        assert door.waiting(AGENT) == []
        assert [state.agent.id for state in door.active_agents()] == [AGENT]
        await agent.start()
        ann.crash()
        with pytest.raises(NodeIsDown):
            await agent.beat()
        await ann.restart()
        with pytest.raises(NodeIsDown, match="not started"):
            await agent.beat()
        await trio.sleep(1)
        await agent.beat()
        await agent.complete("done")
        assert (await ann.wait(task_id)).status is TaskStatus.COMPLETE
        ann.submit("y", kind=KIND)
        other = await agent.claim(1)
        assert other is not None
        await agent.give_back()
        await trio.sleep(1)  # its back-off is over then
        await agent.claim_task(other.record.id)
        await agent.complete("done too")
        assert list(await door.cleanup_expired()) == []
        await agent.leave()

    simulate(replace(CALM, script=script), 1).check()


def test_whoever_asks_when_the_process_ends_is_told() -> None:
    """As one whose connection is closed."""

    async def script(sim: Simulation) -> None:
        ann, _ = sim.nodes
        await trio.sleep(1)
        agent = FakeAgentSession(DistantDoor(ann), (KIND,), agent_id=AGENT)
        await agent.register()
        sim.timeline.after(1, ann.crash)
        with pytest.raises(NodeIsDown, match="before it answered"):
            await agent.claim(10)

    simulate(replace(CALM, script=script), 1).check()


def test_agents_do_all_kinds_of_things_in_a_run() -> None:
    """And the report counts them."""
    reports = [simulate(Scenario(agents=8), seed).check() for seed in range(8)]
    assert sum(report.counts.get("claims of agents", 0) for report in reports) > len(reports)
    did = {event.what.split()[-1] for report in reports for event in report.trace.events if "is to" in event.what}
    assert did >= {"do", "do_twice", "freeze", "leave"}
    assert "claims of agents" in "".join(report.done for report in reports)
