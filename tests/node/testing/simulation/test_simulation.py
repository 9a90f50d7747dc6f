"""The simulator itself: the same run from the same seed, and faults that do what they say."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
import trio

from node.cli.entry import Manner, run_command
from node.cli.exit_codes import ExitCode
from node.interfaces import Execution, Executor, Output
from node.testing import (
    NO_FAULTS,
    Delay,
    Disk,
    Latency,
    NodeIsDown,
    Parts,
    Return,
    Scenario,
    ScriptedExecutor,
    SimulatedNode,
    Simulation,
    SimulationFailed,
    SimulationReport,
    simulate,
)
from node.testing.simulation import load_scenario
from protocol import ErrorCode, Limits, PeertaskError, TaskStatus, new_task_id
from tests.node.testing.simulation.test_defects import _ForgetsWithTheSession

Script = Callable[[Simulation], Awaitable[None]]

CALM = Scenario(
    nodes=3,
    tasks=0,
    faults=NO_FAULTS,
    disk=Disk(stall_share=0),
    latency=Latency(shortest_s=0.01, longest_s=0.01, large_share=0),
    task=lambda _rng: {"kind": "scripted"},
    executors=lambda _rng: (ScriptedExecutor(),),
)
DEFECT = Scenario(parts=Parts(delegate=_ForgetsWithTheSession), name=f"{__name__}:DEFECT")
NOT_A_SCENARIO = "text"


def play(script: Script, seed: int = 1, **fields: Any) -> SimulationReport:
    """Run a script with nothing left to chance but what it brings about itself."""
    return simulate(replace(CALM, script=script, **fields), seed).check()


async def connected(sim: Simulation) -> tuple[SimulatedNode, ...]:
    """Return the nodes when every two of them have a session."""
    while any(len(node.running.network.channels()) < len(sim.nodes) - 1 for node in sim.nodes):
        await trio.sleep(0.01)
    await trio.sleep(1)  # of two sessions of a pair one has ended
    return tuple(sim.nodes)


# --- the same seed ---------------------------------------------------------------------------------------------------


def test_the_same_seed_brings_about_the_same_run() -> None:
    """Event for event; another seed brings about another."""
    first, again, other = simulate(seed=5), simulate(seed=5), simulate(seed=6)
    assert list(first.trace.lines()) == list(again.trace.lines())
    assert first.digest == again.digest != other.digest


def test_the_same_seed_brings_about_the_same_run_in_another_process() -> None:
    """The order of sets differs between processes, and must not show."""
    ran = subprocess.run(
        [sys.executable, "-m", "node.cli", "simulate", "--seed", "5", "--json"],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ran.stdout)["digest"] == simulate(seed=5).digest


def test_a_run_leaves_chance_as_it_was() -> None:
    """What a program draws after a simulation is not drawn from its seed."""
    random.seed(3)
    expected = random.random()
    random.seed(3)
    simulate(replace(CALM, tasks=1))
    assert random.random() == expected
    assert new_task_id() != new_task_id()


class _Draws(Executor):
    kind = "draws"
    slots = 4
    safe = True

    async def execute(self, execution: Execution) -> Output:  # noqa: ARG002 - as the contract has it
        await trio.sleep(random.random())
        return Output(new_task_id())


def test_what_an_executor_draws_by_itself_comes_from_the_seed() -> None:
    """Programs that call `random` or draw ids can be repeated as they are."""
    scenario = Scenario(executors=lambda _rng: (_Draws(),), task=lambda _rng: {"kind": "draws"})
    assert simulate(scenario, 2).check().digest == simulate(scenario, 2).digest


# --- what a report says ----------------------------------------------------------------------------------------------


def test_a_broken_promise_is_told_with_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The command works as it stands."""
    structlog.reset_defaults()  # a program has not configured it; tests of this process may have
    with pytest.raises(SimulationFailed, match="every task ends") as failed:
        simulate(DEFECT).check()
    command = f"peertask simulate --seed 0 --scenario {__name__}:DEFECT --nodes 5 --tasks 50 --trace"
    assert command in str(failed.value)
    arguments = [*command.split()[1:], "--json"]
    assert run_command(arguments, Manner.of(arguments)) == ExitCode.FAILED
    told = json.loads(capsys.readouterr().out)
    assert told["violations"][0]["promise"] in str(failed.value)
    assert told["events"][0] == {"at": 0.0, "detail": "", "task_id": None, "what": "starts", "who": "n1"}


def test_a_scenario_without_a_name_says_how_it_is_repeated() -> None:
    """A command would run another one."""
    with pytest.raises(SimulationFailed, match=r"simulate\(scenario, 0\), or give the scenario a name"):
        simulate(replace(DEFECT, name="")).check()
    assert Scenario(nodes=7).command(3) == "peertask simulate --seed 3 --nodes 7 --tasks 50 --trace"
    assert Scenario(nodes=7).is_repeatable


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        f"{__name__}:NOT_A_SCENARIO": "it is a str",
        f"{__name__}:MISSING": "has no attribute",
        "no_such_module:X": "No module named",
        ":": "Empty module name",
    }.items(),
)
def test_a_name_without_a_scenario_is_explained(name: str, reason: str) -> None:
    """What is missing, and what a name looks like."""
    with pytest.raises(PeertaskError, match=reason) as refused:
        load_scenario(name)
    assert refused.value.code is ErrorCode.INVALID_CONFIG


def test_the_command_tells_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """For people: a line for each event, and one for each seed."""
    arguments = ["simulate", "--seed", "3", "--count", "2", "--nodes", "3", "--tasks", "5", "--trace"]
    assert run_command(arguments, Manner.of(arguments)) == ExitCode.OK
    told = capsys.readouterr().out
    assert "n1       T" in told
    assert "seed 3: every promise kept" in told
    assert "seed 4: every promise kept" in told


def test_the_command_explains_the_first_seed_that_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are named."""
    arguments = ["simulate", "--scenario", f"{__name__}:DEFECT", "--count", "2"]
    assert run_command(arguments, Manner.of(arguments)) == ExitCode.FAILED
    told = capsys.readouterr().out
    assert "seed 0 breaks promises (" in told
    assert "seed 1 breaks promises too: peertask simulate --seed 1" in told


def test_what_a_part_raises_is_a_broken_promise() -> None:
    """With its traceback, and not the end of the test run."""

    async def script(_sim: Simulation) -> None:
        raise ZeroDivisionError("planted")

    (violation,) = simulate(replace(CALM, script=script)).violations
    assert violation.promise == "nothing raises"
    assert "planted" in violation.what


def test_a_script_that_waits_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as for a task that was lost before it was saved."""
    monkeypatch.setattr("node.testing.simulation.world.SCRIPT_LIMIT_S", 600.0)

    async def script(sim: Simulation) -> None:
        await sim.nodes[0].wait(new_task_id())

    (violation,) = simulate(replace(CALM, script=script)).violations
    assert "TooSlowError" in violation.what


def test_a_result_that_is_too_large_is_no_broken_promise() -> None:
    """The requester is told so instead of the result."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        record = await ann.wait(ann.submit("x", to=ben, kind="scripted"))
        assert record.failure is not None
        assert record.failure.code is ErrorCode.TOO_LARGE

    large = ScriptedExecutor().on("x", Return("x" * 20_000))
    play(script, executors=lambda _rng: (large,), limits=Limits(payload=10_000))


def test_time_that_stands_still_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that runs again and again without a wait would otherwise never come back."""
    monkeypatch.setattr("node.testing.simulation.virtual_time.MAX_LOOKS_AT_A_MOMENT", 10_000)

    async def script(_sim: Simulation) -> None:
        while True:
            for _ in range(100):  # more often than trio itself looks, which cannot tidy up after an error of its clock
                trio.current_time()
            await trio.lowlevel.checkpoint()

    (violation,) = simulate(replace(CALM, script=script)).violations
    assert "time stands still at 0.000 s" in violation.what


# --- what can be done to nodes ---------------------------------------------------------------------------------------


def test_a_task_goes_to_a_peer_and_comes_back() -> None:
    """As with real nodes, in the time of the simulation."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        before = trio.current_time()
        record = await ann.wait(ann.submit("hello", to=ben, kind="scripted"))
        assert (record.status, record.holder) == (TaskStatus.COMPLETE, ben.peer_id)
        assert 0.02 <= trio.current_time() - before < 0.3

    assert play(script).executions == 1


def test_a_crash_loses_what_is_not_saved() -> None:
    """And nothing else: what was accepted goes on after the restart."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        saved = ann.submit("saved", to=ben, kind="scripted")
        await ann.wait_saved(saved)
        ann.submit("not saved", to=ben, kind="scripted")
        ann.crash()
        ann.crash()  # it is down already
        with pytest.raises(NodeIsDown):
            ann.submit("nobody is there")
        await ann.restart(after_s=5)
        ann.start()  # it is up already
        assert (await ann.wait(saved)).status is TaskStatus.COMPLETE

    for seed in range(5):
        play(script, seed)


def test_whoever_waits_for_a_process_that_dies_is_told() -> None:
    """A program that embeds a node dies with it."""

    async def script(sim: Simulation) -> None:
        ann, *_ = await connected(sim)
        task_id = ann.submit("x", kind="scripted")
        sim.timeline.after(0, ann.crash)
        with pytest.raises(NodeIsDown, match="n1 ended"):
            await ann.wait_saved(task_id)

    play(script, disk=Disk(instant_share=0, longest_s=1000))


def test_a_stop_lets_what_runs_end() -> None:
    """And says Bye: nothing is lost, and nothing is executed twice."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        await ben.stop()
        await ben.stop()  # it is down already
        assert not ben.is_up
        assert (await ann.wait(task_id)).attempt == 1
        await ben.restart()

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 1


def test_a_node_that_has_stopped_takes_nothing_on_sessions_that_were_about_to_open() -> None:
    """They end with the others; a frame that comes later would find a node without a store."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        sim.break_link(ann, ben)
        await trio.sleep(0.035)  # whoever dials again has said Hello, and was not yet answered
        network = ben.running.network
        await ben.stop()
        assert not network._open  # noqa: SLF001 - nobody else needs to know
        await ben.restart(after_s=1)

    for seed in range(5):
        play(script, seed)


def test_a_node_that_stands_still_does_nothing_and_goes_on_later() -> None:
    """Its executors too: what was due meanwhile happens when it goes on, and its clock has jumped."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        clock = ben.clock.now()
        ben.pause()
        assert (ben.is_up, ben.is_paused, ben.answers) == (True, True, False)
        with pytest.raises(NodeIsDown):
            ben.cancel(task_id)
        await trio.sleep(8)
        assert task_id in ben.records()
        assert not ben.records()[task_id].terminal
        ben.resume()
        await ann.wait(task_id)
        assert ben.clock.now() - clock >= 8_000
        assert ann.records()[task_id].attempt == 1

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 1


def test_a_node_that_stands_still_for_long_is_given_up() -> None:
    """Nothing is heard of it, so its peers end their sessions, and attach again later."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        ben.pause()
        await trio.sleep(25)
        assert ann.running.network.channel(ben.peer_id) is None
        ben.resume()
        assert (await ann.wait(task_id)).lost_leases == 1

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 1


def test_a_node_that_stands_still_can_be_killed() -> None:
    """As a real process can."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        ben.pause()
        await trio.sleep(5)
        ben.crash()
        await ben.restart()
        assert (await ann.wait(task_id)).status is TaskStatus.COMPLETE

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 2


def test_what_a_short_partition_holds_up_arrives_late() -> None:
    """In order, on the same session."""

    async def script(sim: Simulation) -> None:
        ann, ben, cid = await connected(sim)
        session = ann.running.network.channel(ben.peer_id)
        sim.partition([ann], [ben, cid])
        sim.partition([ann], [ben])  # it is cut already
        task_id = ann.submit("x", to=ben, kind="scripted")
        await trio.sleep(5)
        assert task_id not in ben.records()
        sim.heal([ann], [ben, cid])
        assert (await ann.wait(task_id)).attempt == 1
        assert ann.running.network.channel(ben.peer_id) is session

    play(script)


def test_each_end_gives_up_what_a_long_partition_cuts_off() -> None:
    """Then they find each other again, and the task is asked for a second time, and executed once."""

    async def script(sim: Simulation) -> None:
        ann, ben, cid = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        sim.partition([ann], [ben, cid])
        await trio.sleep(25)
        assert ann.running.network.channel(ben.peer_id) is None
        assert ben.running.network.channel(ann.peer_id) is None
        assert ben.running.network.channel(cid.peer_id) is not None
        sim.heal()
        assert (await ann.wait(task_id)).lost_leases == 1

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 1


def test_a_connection_that_breaks_is_opened_again() -> None:
    """What was under way is lost, and asked for again."""

    async def script(sim: Simulation) -> None:
        ann, ben, _ = await connected(sim)
        task_id = ann.submit("slow", to=ben, kind="slow")
        await trio.sleep(1)
        session = ann.running.network.channel(ben.peer_id)
        sim.break_link(ann, ben)
        record = await ann.wait(task_id)
        assert (record.status, record.attempt) == (TaskStatus.COMPLETE, 2)
        assert ann.running.network.channel(ben.peer_id) not in {None, session}

    assert play(script, executors=lambda _rng: (_slow(3_000),)).executions == 1


def test_large_frames_are_overtaken_by_those_of_other_tasks_only() -> None:
    """As in a session of node.net; the frames about one task stay in order, else the conversation would break."""
    scenario = Scenario(latency=Latency(large_share=0.5, large_s=3.0), faults=NO_FAULTS)
    sent = [line for line in simulate(scenario, 4).check().trace.lines() if "Submit" in line]
    assert sent


def test_clocks_are_off_as_far_as_the_scenario_says() -> None:
    """Each node has its own, and none goes back."""
    clocks: list[int] = []

    async def script(sim: Simulation) -> None:
        clocks.extend(node.clock.now() for node in sim.nodes)

    play(script, faults=replace(NO_FAULTS, skew_ms=1_000_000))
    assert max(clocks) - min(clocks) > 1_000


def test_a_node_has_a_readable_name() -> None:
    """In a failing test."""

    async def script(sim: Simulation) -> None:
        assert repr(sim.nodes[0]) == "<SimulatedNode n1 up>"

    play(script)


def _slow(ms: float) -> ScriptedExecutor:
    executor = ScriptedExecutor("slow")
    for prompt in ("slow", "x"):
        executor.on(prompt, Delay(ms))
    return executor
