"""What a person sees on a terminal, and what does not depend on one."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.processes import NodeProcess, Stage
from tests.acceptance.terminal import run_on_terminal

# The tests of this module share two nodes, so one process of pytest-xdist runs them all.
pytestmark = pytest.mark.xdist_group("acceptance of terminals")


def test_a_live_line_tells_how_the_task_stands(shared_stage: Stage, local: NodeProcess, worker: NodeProcess) -> None:
    """While the task runs its status and time are drawn again and again; then its result follows."""
    code, screen = run_on_terminal(shared_stage, "send", "--data", "local", "--to", worker.peer_id, "hello")
    assert code == 0
    assert "connecting" in screen
    assert re.search(r"(pending|claimed|executing)", screen)
    assert "✓ complete" in screen
    assert screen.rstrip().endswith("Mock result for: hello")


def test_an_own_node_draws_the_same_line(shared_stage: Stage, worker: NodeProcess) -> None:
    """A failure ends the line with a cross, and the message in words."""
    send = ("send", "--data", "asker", "--to", worker.address, "--execution-timeout", "0.02", "hello")
    code, screen = run_on_terminal(shared_stage, *send)
    assert code == 5
    assert "✗ not complete" in screen
    assert "took longer than its timeout" in screen


def test_a_map_draws_a_bar_and_keeps_its_results_above_it(shared_stage: Stage, local: NodeProcess) -> None:
    """Results and bar share the terminal."""
    command = ("map", "--data", "local", shared_stage.write_lines("prompts", 12))
    code, screen = run_on_terminal(shared_stage, *command)
    assert code == 0
    assert "12/12" in screen
    assert "Mock result for: prompts 12" in screen


def test_lists_are_tables_with_colours(shared_stage: Stage, local: NodeProcess) -> None:
    """On a terminal the columns are aligned, and the status has its colour."""
    shared_stage.run("send", "--data", "local", "--kind", "echo", "--to", local.peer_id, "listed")
    code, screen = run_on_terminal(shared_stage, "list", "--data", "local")
    assert code == 0
    assert "\x1b[32mcomplete" in screen
    assert "listed" in screen


def test_an_error_stands_out(shared_stage: Stage) -> None:
    """One message in words with what to do next, and a traceback only on demand."""
    code, screen = run_on_terminal(shared_stage, "list", "--data", "nowhere")
    assert code == 3
    assert "error:" in screen
    assert "→ Start one with" in screen
    assert "Traceback" not in screen
    assert "Traceback" in shared_stage.run("list", "--data", "nowhere", "--debug").err
