"""Peers that are killed, frozen and restarted while they have work: nothing is lost, nothing is recorded twice."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

import pytest

from node.config import SILENCE_MS
from tests.acceptance.processes import QUICK_PULSE, NodeProcess, Process, Stage, wait_until

TASKS = 30


def test_tasks_of_a_worker_that_is_killed_complete_when_it_is_back(stage: Stage) -> None:
    """Kill -9 of the worker mid-task, restarted at the same place: every task has exactly one result."""
    local, worker = start_pair(stage)
    mapping = start_tasks(stage, worker)
    wait_until(lambda: worker.tasks("executing"), "task that runs")
    worker.process.signal(signal.SIGKILL)
    worker.process.wait()
    assert len(mapping.lines()) < TASKS
    worker = stage.start_again(worker)
    assert_each_has_one_result(mapping, local)
    assert any(task.attempt > 1 for task in local.tasks())
    assert all(task.holder == worker.peer_id for task in local.tasks())


def test_tasks_of_a_worker_that_is_stopped_and_started_complete(stage: Stage) -> None:
    """A restart in good order: what runs is finished first, what waits is done afterwards."""
    local, worker = start_pair(stage)
    mapping = start_tasks(stage, worker)
    wait_until(lambda: worker.tasks("executing"), "task that runs")
    worker.process.signal(signal.SIGTERM)
    assert worker.process.wait().code == 0
    stage.start_again(worker)
    assert_each_has_one_result(mapping, local)


def test_the_requesters_tasks_are_found_again_after_its_connection_was_cut(stage: Stage) -> None:
    """A frozen worker is noticed and its session ended; when it goes on, the requester attaches to what it has done."""
    local, worker = start_pair(stage)
    mapping = start_tasks(stage, worker)
    wait_until(lambda: worker.tasks("executing"), "task that runs")
    worker.process.signal(signal.SIGSTOP)
    frozen_at = time.monotonic()
    local.wait_for_peer(worker, connected=False, limit_s=5)
    assert time.monotonic() - frozen_at < 5
    (peer,) = [peer for peer in local.ask(lambda client: client.peers()) if peer.peer_id == worker.peer_id]
    assert "nothing was heard" in peer.last_error
    worker.process.signal(signal.SIGCONT)
    assert_each_has_one_result(mapping, local)
    assert Counter(task.id for task in worker.tasks()).most_common(1)[0][1] == 1


@pytest.mark.slow
def test_a_frozen_peer_is_found_within_fifteen_seconds_by_default(stage: Stage) -> None:
    """SIGSTOP leaves the connection open, and only silence tells; the default settings notice it in time."""
    local, worker = stage.start_nodes("local", "worker")
    local.connect(worker)
    worker.process.signal(signal.SIGSTOP)
    frozen_at = time.monotonic()
    local.wait_for_peer(worker, connected=False, limit_s=20)
    # The check itself, and a machine that has other things to do, may take a second.
    assert time.monotonic() - frozen_at < SILENCE_MS / 1000 + 1


def test_a_local_node_that_is_killed_ends_its_commands_with_a_message(stage: Stage) -> None:
    """A command that waits for a task is told that the node is gone, and how to start it."""
    local, worker = start_pair(stage)
    worker.process.signal(signal.SIGSTOP)
    sending = stage.start("send", "--data", "local", "--to", worker.peer_id, "--json", "lost")
    wait_until(local.tasks, "task that waits for the worker")
    local.process.signal(signal.SIGKILL)
    done = sending.wait(60)
    assert done.code == 3
    assert done.error()["code"] == "NODE_UNAVAILABLE"


def start_pair(stage: Stage) -> tuple[NodeProcess, NodeProcess]:
    """Start a node through which commands ask, and one that works, connected and quick to notice each other's end."""
    local, worker = stage.start_nodes("local", "worker", settings=QUICK_PULSE)
    local.connect(worker)
    return local, worker


def start_tasks(stage: Stage, worker: NodeProcess) -> Process:
    """Let the worker do tasks for the local node, a few at a time."""
    prompts = stage.write_lines("prompts", TASKS)
    return stage.start("map", "--data", "local", "--to", worker.peer_id, "--concurrency", "8", "--json", prompts)


def assert_each_has_one_result(mapping: Process, local: NodeProcess) -> None:
    """Wait for the end of the tasks of `start_tasks`, and check that each line has one result, recorded once."""
    done = mapping.wait(60)
    assert done.code == 0, done.err
    results = [json.loads(line) for line in done.lines]
    assert sorted(one["line"] for one in results) == list(range(1, TASKS + 1))
    assert len({one["task_id"] for one in results}) == TASKS
    assert Counter(task.status.value for task in local.tasks()) == {"complete": TASKS}
