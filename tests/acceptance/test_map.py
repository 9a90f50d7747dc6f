"""`peertask map`: a task for each line, in order, and what an interruption leaves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.acceptance.processes import NodeProcess, Stage

# The tests of this module share two nodes, so one process of pytest-xdist runs them all.
pytestmark = pytest.mark.xdist_group("acceptance of map")


def results_of(lines: int, name: str = "prompts") -> list[str]:
    """What the mock executor answers to a file of `Stage.write_lines`."""
    return [f"Mock result for: {name} {number}" for number in range(1, lines + 1)]


def test_results_come_in_the_order_of_the_lines(shared_stage: Stage, local: NodeProcess, worker: NodeProcess) -> None:
    """However long each task takes, the output has the order of the input, and blank lines are left out."""
    text = "".join(f"line {number}\n\n" for number in range(20))
    done = shared_stage.run("map", "--data", "local", "--to", worker.peer_id, "-", stdin=text)
    assert (done.code, done.lines) == (0, [f"Mock result for: line {number}" for number in range(20)])
    assert not (local.folder / "maps").exists()


def test_json_names_the_line_of_each_result(shared_stage: Stage, local: NodeProcess) -> None:
    """With --json results come as they are there, each with the number of its line."""
    done = shared_stage.run("map", "--data", "local", "--kind", "echo", "--json", "-", stdin="a\n\nb\n")
    assert {(one["line"], one["result"]) for one in done.json()} == {(1, "a"), (3, "b")}


def test_a_map_that_was_interrupted_asks_only_for_what_is_missing(shared_stage: Stage, worker: NodeProcess) -> None:
    """Ctrl-C in the middle, the same command again: all is printed, and what was there is not asked for twice."""
    prompts = shared_stage.write_lines("prompts", 40)
    command = ("map", "--data", "asker", "--to", worker.address, "--concurrency", "4", prompts)
    known_before = len(worker.tasks())
    first = shared_stage.start(*command)
    first.wait_for_lines(8)
    first.signal(signal.SIGINT)
    interrupted = first.wait()
    assert interrupted.code == 130
    assert "of 40 lines have a result" in interrupted.err
    (journal,) = (shared_stage.folder / "asker" / "maps").iterdir()
    had = sum("result" in line for line in journal.read_text().splitlines())
    assert 8 <= had < 40

    again = shared_stage.run(*command)
    assert (again.code, again.lines) == (0, results_of(40))
    asked = len(worker.tasks()) - known_before
    in_flight_when_interrupted = 4
    assert 40 <= asked <= 40 + in_flight_when_interrupted
    assert not journal.exists()


def test_a_map_that_was_killed_attaches_to_what_its_node_goes_on_with(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """Kill -9 of the command, while the node lives: no line is ever asked for twice."""
    prompts = shared_stage.write_lines("others", 30)
    command = ("map", "--data", "local", "--to", worker.peer_id, "--project", "killed", "--concurrency", "4", prompts)
    first = shared_stage.start(*command)
    first.wait_for_lines(6)
    first.signal(signal.SIGKILL)
    first.wait()
    again = shared_stage.run(*command)
    assert (again.code, again.lines) == (0, results_of(30, "others"))
    assert len([task for task in local.tasks() if task.project == "killed"]) == 30


def test_lines_that_fail_are_told_and_asked_for_again(shared_stage: Stage, local: NodeProcess) -> None:
    """The exit code is 1, each failure names its line, and --fresh forgets what is there."""
    command = ("map", "--data", "local", "--execution-timeout", "0.3", shared_stage.write_lines("slow", 12))
    done = shared_stage.run(*command)
    while done.code:
        assert done.code == 1
        assert "TIMEOUT" in done.err
        assert len(done.lines) == 12
        done = shared_stage.run(*command)
    assert done.lines == results_of(12, "slow")
    assert shared_stage.run(*command[:-1], "--fresh", "--execution-timeout", "9", "slow").lines == done.lines


def test_json_tells_which_line_failed_and_why(shared_stage: Stage, local: NodeProcess, worker: NodeProcess) -> None:
    """A failure has the number of its line, the id of its task, and the code of the error."""
    command = ("map", "--data", "local", "--to", worker.peer_id, "--kind", "summarise", "--json", "-")
    done = shared_stage.run(*command, stdin="a text\n")
    (failure,) = done.json()
    assert done.code == 1
    assert (failure["line"], failure["failure"]["code"]) == (1, "NO_EXECUTOR")


def test_a_line_that_no_node_would_take_is_named_before_anything_is_sent(stage: Stage) -> None:
    """The message says which line of which file, and why."""
    (stage.folder / "prompts").write_bytes(b"fine\n" + b"x" * (16 * 1024 * 1024 + 1) + b"\n")
    refused = stage.run("map", "prompts")
    assert refused.code == 2
    assert "line 2 of prompts" in refused.err
    assert stage.run("map", "nowhere").code == 2


def test_the_same_map_does_not_run_twice_at_once(shared_stage: Stage, local: NodeProcess) -> None:
    """The second is told where the results of the first are."""
    command = ("map", "--data", "local", "--concurrency", "1", shared_stage.write_lines("once", 1000))
    first = shared_stage.start(*command)
    first.wait_for_lines(1)
    second = shared_stage.run(*command)
    assert second.code == 4
    assert "another process runs the same map" in second.err
    assert Path(second.err.split()[-1]).parent == local.folder / "maps"
    first.signal(signal.SIGINT)
    assert first.wait().code == 130


def test_ten_thousand_tasks_at_once_all_complete_at_a_node_with_room_for_256(stage: Stage) -> None:
    """BUSY is an answer: what finds no room is asked for again until it is done, and the worker stays small."""
    worker = stage.start_node("worker", settings={"PEERTASK_MAX_QUEUED": "256", "PEERTASK_MAX_IN_FLIGHT": "1024"})
    before = resident_megabytes(worker.process.pid)
    prompts = stage.write_lines("prompts", 10_000)
    command = ("map", "--to", worker.address, "--kind", "echo", "--concurrency", "10000", "--json", prompts)
    done = stage.run(*command, limit_s=240)
    assert done.code == 0
    assert sorted(one["line"] for one in done.json()) == list(range(1, 10_001))
    assert resident_megabytes(worker.process.pid) < before + 60


def resident_megabytes(pid: int) -> float:
    """How much memory a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_a_map_that_nobody_works_on_says_what_it_waits_for(shared_stage: Stage, local: NodeProcess) -> None:
    """Once for all lines, and each line ends with it."""
    command = ("map", "--data", "local", "--persona", "critic", "--timeout", "2.5", "-")
    late = shared_stage.run(*command, stdin="one\ntwo\n")
    waits, _, *ends = late.err.splitlines()
    assert (late.code, late.lines) == (1, ["", ""])
    assert waits.startswith("waits for a worker that does tasks of kind 'mock' and acts as 'critic'")
    assert [line.partition(": task ")[0] for line in sorted(ends[:2])] == [
        "line 1: DEADLINE_EXCEEDED",
        "line 2: DEADLINE_EXCEEDED",
    ]
