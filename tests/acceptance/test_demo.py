"""`peertask demo`: real nodes, every task with one result, and nothing left behind."""

# covers CORE-39

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Process, Stage, wait_until
from tests.acceptance.terminal import run_on_terminal

FIELDS = [
    "nodes",
    "tasks",
    "complete",
    "failed",
    "lost",
    "duplicates",
    "tasks_per_s",
    "p50_ms",
    "p99_ms",
    "wall_s",
]


@pytest.fixture
def temporary(stage: Stage) -> Iterator[Path]:
    """A folder for the temporary files of a demo, which must be empty afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
    yield folder
    left = list(folder.iterdir())
    folder.rmdir()
    assert left == []


@pytest.mark.wheel
def test_every_task_of_a_demo_completes_and_the_last_line_says_so(stage: Stage, temporary: Path) -> None:
    """Three nodes, 30 tasks; --json leaves standard output to one object."""
    done = stage.run("demo", "--nodes", "3", "--tasks", "30", "--json", settings={"TMPDIR": str(temporary)})
    assert done.code == 0, done.err
    (summary,) = done.json()
    assert list(summary) == FIELDS
    assert (summary["nodes"], summary["tasks"], summary["complete"]) == (3, 30, 30)
    assert (summary["failed"], summary["lost"], summary["duplicates"]) == (0, 0, 0)
    assert 100 <= summary["p50_ms"] <= summary["p99_ms"]
    assert summary["tasks_per_s"] > 0
    assert "30 of 30 tasks complete" in done.err


def test_a_demo_survives_the_death_of_a_node(stage: Stage, temporary: Path) -> None:
    """--kill ends a node with SIGKILL mid-way: what it did and what it had asked for is done by the others."""
    options = ("--nodes", "3", "--tasks", "60", "--in-flight", "8", "--kill")
    done = stage.run("demo", *options, "--json", settings={"TMPDIR": str(temporary)})
    assert done.code == 0, done.err
    assert (done.json()[0]["complete"], done.json()[0]["lost"]) == (60, 0)
    assert "node 3 was killed mid-way" in done.err


def test_a_demo_survives_nodes_that_are_killed_frozen_and_cut_off(stage: Stage, temporary: Path) -> None:
    """--chaos does all of it at random: every task has one result in the end, and no node is left behind frozen."""
    # covers COORD-6, COORD-58
    options = ("--chaos", "--nodes", "3", "--tasks", "90", "--json")
    demo = stage.start("demo", *options, settings={"TMPDIR": str(temporary)})
    wait_until(lambda: "tasks between" in demo.err.read_text(), "nodes")
    nodes = children_of(demo)
    done = demo.wait()
    assert done.code == 0, done.err
    summary = done.json()[0]
    assert (summary["complete"], summary["failed"], summary["lost"], summary["duplicates"]) == (90, 0, 0, 0)
    assert "nodes were disturbed meanwhile: paused" in done.err
    assert "paused 0" not in done.err
    assert not any(map(is_running, nodes))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_demo_that_is_ended_leaves_no_process_and_no_file(
    stage: Stage, temporary: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C, and even kill -9 of the demo itself, take its nodes and their folders with it."""
    demo = stage.start("demo", "--nodes", "2", "--tasks", "1000", settings={"TMPDIR": str(temporary)})
    wait_until(lambda: any("encrypted" in line for line in demo.lines()[1:]), "nodes")
    nodes = children_of(demo)
    assert len(nodes) == 2
    demo.signal(number)
    assert demo.wait().code == code
    wait_until(lambda: not any(map(is_running, nodes)), "end of the nodes", 10)
    wait_until(lambda: not list(temporary.iterdir()), "end of their folders", 10)


def test_ctrl_c_while_the_nodes_start_leaves_nothing(stage: Stage, temporary: Path) -> None:
    """The impatient leave as little behind as the patient."""
    demo = stage.start("demo", "--nodes", "2", settings={"TMPDIR": str(temporary)})
    wait_until(lambda: len(children_of(demo)) == 2, "processes")
    nodes = children_of(demo)
    demo.signal(signal.SIGINT)
    assert demo.wait().code == 130
    assert not any(map(is_running, nodes))


def test_a_demo_is_a_live_picture_on_a_terminal(stage: Stage, temporary: Path) -> None:
    """A table of the nodes, how far the tasks are, and a summary."""
    options = ("demo", "--nodes", "2", "--tasks", "12", "--kill")
    code, screen = run_on_terminal(stage, *options, settings={"TMPDIR": str(temporary)})
    assert code == 0
    for word in ("NODE", "ITS OWN TASKS", "● running", "node 2 was killed", "12 of 12 tasks complete"):
        assert word in screen


def test_a_demo_that_kills_needs_a_second_node(stage: Stage) -> None:
    """The mistake is told before anything is started."""
    assert stage.run("demo", "--nodes", "1", "--kill").code == 2
    assert stage.run("demo", "--nodes", "2", "--chaos").code == 2


def children_of(process: Process) -> list[int]:
    """The ids of the processes that a process has started."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process is there, and has not only left its exit code behind."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
