"""A graph of tasks while workers are killed and frozen again and again: all of it is done, and each task once."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter

import pytest

from tests.acceptance.processes import QUICK_PULSE, NodeProcess, Stage, wait_until

WORKERS = 4
LAYERS, WIDTH = 10, 20
# So many disturbances, each of about a second: about as long as the graph takes with them.
DISTURBANCES = 8
SEED = 20
# What the owner may not do itself, its workers have to.
NO_KIND = {**QUICK_PULSE, "PEERTASK_KINDS": "echo"}


def graph() -> str:
    """Ten layers of twenty tasks; each needs two of the layer before."""
    tasks = {}
    for layer in range(LAYERS):
        for place in range(WIDTH):
            needs = [f"{layer - 1}-{place}", f"{layer - 1}-{(place + 1) % WIDTH}"] if layer else []
            tasks[f"{layer}-{place}"] = {"prompt": f"{layer}-{place}", "depends_on": needs}
    return json.dumps({"defaults": {"kind": "mock"}, "tasks": tasks})


def disturb(stage: Stage, owner: NodeProcess, worker: NodeProcess, chance: random.Random) -> NodeProcess:
    """Kill a worker and start it again, or freeze it until it is missed."""
    if chance.random() < 0.5:
        worker.process.kill()
        return stage.start_again(worker)
    worker.process.signal(signal.SIGSTOP)
    owner.wait_for_peer(worker, connected=False)
    worker.process.signal(signal.SIGCONT)
    return worker


@pytest.mark.slow
def test_a_graph_is_done_while_its_workers_die_and_freeze(stage: Stage) -> None:
    """Five nodes and 200 tasks: every one completes, is recorded once, and none ends before one that it needs."""
    # covers COORD-3, COORD-6, COORD-24
    chance = random.Random(SEED)
    workers = stage.start_nodes(*(f"worker-{number}" for number in range(WORKERS)), settings=QUICK_PULSE)
    owner = stage.start_node("owner", settings=NO_KIND)
    for worker in workers:
        owner.connect(worker)
    submitted = stage.run("submit", "--data", "owner", "--json", "-", stdin=graph())
    ids = {told["name"]: told["task_id"] for told in submitted.json()}
    assert len(ids) == LAYERS * WIDTH
    for _ in range(DISTURBANCES):
        number = chance.randrange(WORKERS)
        workers[number] = disturb(stage, owner, workers[number], chance)
    wait_until(lambda: not any(owner.tasks(status) for status in ("pending", "claimed", "executing")), "end", 120)
    assert Counter(task.status for task in owner.tasks()) == {"complete": LAYERS * WIDTH}
    assert {task.id for task in owner.tasks()} == set(ids.values())
    ended = [updated_at(stage, ids[f"{layer}-0"]) for layer in range(LAYERS)]
    assert ended == sorted(ended)
    done = Counter(task.id for worker in workers for task in worker.tasks() if task.status == "complete")
    assert set(done) == set(ids.values())


def updated_at(stage: Stage, task_id: str) -> int:
    """When the last thing happened to a task of the owner."""
    (shown,) = stage.run("show", "--data", "owner", "--json", task_id).json()
    return int(shown["updated_at"])
