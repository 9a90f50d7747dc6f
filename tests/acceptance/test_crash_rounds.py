"""Nodes that are killed with SIGKILL at random moments, again and again: what was accepted is done, and recorded once.

Each part plays its rounds between two nodes with the same store, which go on from one round to the next with what the
one before has left. `--rounds N` plays more of them, and `--crash-seed TEXT` other ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import Completed, TaskId, TaskRecord, TaskStatus
from tests.acceptance.crash_rounds import Pair, Round, Wanted, plan_rounds
from tests.acceptance.fork_server import ForkServer, ForkStage
from tests.acceptance.node_stores import read_store
from tests.acceptance.processes import Stage

# Those that are there after a crash.
STORES = ("sqlite", "files")
# Rounds that two nodes play; a part takes half a minute.
ROUNDS_A_PART = 25
# Those of the program itself take two seconds for each start: one for each kind of victim.
ROUNDS_OF_THE_PROGRAM = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Divide the rounds that are asked for among the stores, and into parts."""
    if "part" in metafunc.fixturenames:
        parts = -(-metafunc.config.getoption("rounds") // (ROUNDS_A_PART * len(STORES)))
        metafunc.parametrize("part", range(1, parts + 1))


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """Where nodes are forked from; whatever is left of them ends with it."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def fork_stage(tmp_path: Path, fork_server: ForkServer) -> Iterator[ForkStage]:
    """Forked processes of one test."""
    stage = ForkStage(tmp_path, fork_server)
    yield stage
    stage.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    """What the rounds of a run are drawn from; shown when a test fails."""
    seed = str(request.config.getoption("crash_seed"))
    print(f"--crash-seed {seed}")  # noqa: T201 - for whoever wants the same rounds again
    return seed


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_what_was_accepted_survives_kills_at_random_moments(
    fork_stage: ForkStage, store: str, part: int, seed: str
) -> None:
    """Worker, requester or both die and come back, also while they start: every task completes, and does so once."""
    pair = Pair(fork_stage, "--store", store, "--until-eof")
    pair.run(plan_rounds(f"{seed} {store} {part}", ROUNDS_A_PART))
    print(pair.tally)  # noqa: T201 - shown when a test fails
    pair.stop()
    check_all_done(pair, store)


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_what_was_accepted_survives_kills_of_the_program(stage: Stage, store: str, seed: str) -> None:
    """The same with processes that a user starts; `show --events` tells facts that are numbered without a gap."""
    pair = Pair(stage, "--store", store)
    pair.run(one_of_each_kind(f"{seed} {store} program"))
    for name in ("requester", "worker"):
        check_events(stage, pair, name)
    pair.stop()
    check_all_done(pair, store)


def one_of_each_kind(seed: str) -> Iterator[Round]:
    """Rounds in which the worker, the requester and both are killed."""
    yield from plan_rounds(seed, ROUNDS_OF_THE_PROGRAM)


def check_all_done(pair: Pair, store: str) -> None:
    """Check that each task has ended as it must, and at both nodes alike if the worker has done it."""
    asked, worked = (read_store(store, pair.folder(name)) for name in ("requester", "worker"))
    assert asked.keys() == pair.wanted.keys()
    assert worked.keys() <= asked.keys()
    for task_id, wanted in pair.wanted.items():
        check_end(asked[task_id], wanted, may_be_cancelled=wanted.cancelled)
        if asked[task_id].result is not None and asked[task_id].holder == pair.peer_ids["worker"]:
            assert worked[task_id].result == asked[task_id].result
    for task_id, record in worked.items():
        # A requester that may choose gives a task to somebody else when the worker is away, and then cancels it there.
        wanted = pair.wanted[task_id]
        check_end(record, wanted, may_be_cancelled=wanted.cancelled or wanted.to is None)


def check_end(record: TaskRecord, wanted: Wanted, *, may_be_cancelled: bool) -> None:
    """Check that a task has the result that its kind gives, or was cancelled where that may be."""
    if may_be_cancelled and record.status is TaskStatus.CANCELLED:
        return
    assert record.status is TaskStatus.COMPLETE, f"{record}: {record.failure}"
    assert record.result is not None
    assert record.result.result == wanted.result


def check_events(stage: Stage, pair: Pair, name: str) -> None:
    """Check what the program tells about a task of a node that goes on."""
    task_id = some_interrupted_task(pair, name)
    shown = stage.run("show", "--data", name, task_id, "--events", "--json").json()
    assert [event["seq"] for event in shown] == list(range(1, len(shown) + 1))
    assert [event["fact"] for event in shown].count(Completed.__name__) == 1
    listed = stage.run("list", "--data", name, "--limit", "1000", "--json").json()
    assert json.dumps(listed).count(f'"id": "{task_id}"') == 1


def some_interrupted_task(pair: Pair, name: str) -> TaskId:
    """A task of a node that took the most attempts."""
    tasks = [task for task in pair.node(name).tasks() if task.status is TaskStatus.COMPLETE]
    return max(tasks, key=lambda task: task.attempt).id
