"""Nodes that are killed with SIGKILL at random moments, again and again: what was accepted is done, and recorded once.

Each part plays its rounds between two nodes with the same store, which go on from one round to the next with what the
one before has left. `--rounds N` plays more of them, and `--crash-seed TEXT` other ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from node.config import NodeConfig, variable_of
from protocol import Completed, TaskId, TaskRecord, TaskStatus
from tests.acceptance.crash_rounds import VICTIMS, VICTIMS_WITH_A_SERVER, Pair, Victim, Wanted, plan_rounds
from tests.acceptance.fork_server import ForkServer, ForkStage
from tests.acceptance.node_stores import read_store
from tests.acceptance.ports import port_of_its_own
from tests.acceptance.processes import Stage
from tests.node.stores.redis_server import RedisServer, every_test_needs_redis

# Those that are there after a crash.
STORES = ("sqlite", "files", pytest.param("redis", marks=every_test_needs_redis))
# Rounds that two nodes play; a part takes half a minute.
ROUNDS_A_PART = 25
# Those of the program itself take two seconds for each start, and show what the forked ones do too.
ROUNDS_OF_THE_PROGRAM = 1


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


@dataclass(frozen=True, slots=True)
class Kept:
    """Where two nodes keep their tasks.

    Attributes:
        name: the name of the store.
        server: the process in which it is, if it is one.
    """

    name: str
    server: RedisServer | None

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a node that has it, by name."""
        return {"redis_connection_string": f"127.0.0.1:{self.server.port}"} if self.server else {}

    @property
    def victims(self) -> Sequence[tuple[Victim, ...]]:
        """Who can be killed."""
        return VICTIMS_WITH_A_SERVER if self.server else VICTIMS

    def pair(self, stage: Stage, *options: str) -> Pair:
        """Start two nodes that have it."""
        environment = {variable_of(name): value for name, value in self.settings.items()}
        return Pair(stage, "--store", self.name, *options, settings=environment, server=self.server)

    def read(self, pair: Pair, name: str) -> dict[TaskId, TaskRecord]:
        """Return what one of them has left."""
        values = {"data": pair.folder(name), "store": self.name, **self.settings}
        return read_store(NodeConfig.model_validate(values), pair.peer_ids[name])


@pytest.fixture(params=STORES)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Each of the stores."""
    if request.param != "redis":
        yield Kept(request.param, None)
        return
    (folder := tmp_path / "redis-server").mkdir()
    server = RedisServer(folder)
    server.port = port_of_its_own()
    trio.run(server.start)
    yield Kept(request.param, server)
    server.kill()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    """What the rounds of a run are drawn from; shown when a test fails."""
    seed = str(request.config.getoption("crash_seed"))
    print(f"--crash-seed {seed}")  # noqa: T201 - for whoever wants the same rounds again
    return seed


@pytest.mark.slow
def test_what_was_accepted_survives_kills_at_random_moments(
    kept: Kept, fork_stage: ForkStage, part: int, seed: str
) -> None:
    """Worker, requester, both or a server die and come back, also while they start: every task is done, once."""
    pair = kept.pair(fork_stage, "--until-eof")
    pair.run(plan_rounds(f"{seed} {kept.name} {part}", ROUNDS_A_PART, kept.victims))
    print(pair.tally)  # noqa: T201 - shown when a test fails
    pair.stop()
    check_all_done(pair, kept)


@pytest.mark.slow
def test_what_was_accepted_survives_kills_of_the_program(kept: Kept, program_stage: Stage, seed: str) -> None:
    """The same with processes that a user starts; `show --events` tells facts that are numbered without a gap."""
    pair = kept.pair(program_stage)
    pair.run(plan_rounds(f"{seed} {kept.name} program", ROUNDS_OF_THE_PROGRAM))
    for name in ("requester", "worker"):
        check_events(program_stage, pair, name)
    pair.stop()
    check_all_done(pair, kept)


def check_all_done(pair: Pair, kept: Kept) -> None:
    """Check that each task has ended as it must, and at both nodes alike if the worker has done it."""
    asked, worked = (kept.read(pair, name) for name in ("requester", "worker"))
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
