"""What the crash tests stand on: processes that are really killed, and checks that notice what is wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from node.config import NodeConfig
from node.interfaces import Change
from node.storage import SQLITE_FILE
from node.stores.sqlite import SqliteStore
from node.testing import TEST_PEER
from tests.acceptance.crash_rounds import TASKS_A_ROUND, VICTIMS, plan_rounds
from tests.acceptance.fork_server import ForkServer, ForkStage
from tests.acceptance.node_stores import check_history, read_store
from tests.acceptance.processes import wait_until
from tests.node.stores.lives import life


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    """A fork server of one test."""
    server = ForkServer()
    yield server
    server.close()


@pytest.mark.slow
def test_a_forked_node_is_a_process_like_any_other(tmp_path: Path, fork_server: ForkServer) -> None:
    """It has a process id of its own, dies of SIGKILL and comes back with its identity, and says what is wrong."""
    stage = ForkStage(tmp_path, fork_server)
    node = stage.start_node("node", "--until-eof")
    assert node.ready["pid"] == node.process.pid != os.getpid()
    node.process.kill()
    assert node.process.popen.returncode == -signal.SIGKILL
    again = stage.start_node("node", "--until-eof")
    assert again.peer_id == node.peer_id
    second = stage.start("node", "--data", str(again.folder), "--json").wait()
    assert (second.code, second.error()["code"]) == (2, "INVALID_CONFIG")
    assert again.tasks() == ()


@pytest.mark.slow
def test_forked_nodes_end_with_their_server_even_when_it_is_killed(tmp_path: Path, fork_server: ForkServer) -> None:
    """A run of tests that is ended by force leaves no nodes behind."""
    node = ForkStage(tmp_path, fork_server).start_node("node", "--until-eof")
    os.kill(fork_server.pid, signal.SIGKILL)
    wait_until(lambda: '"stopped"' in node.process.out.read_text(), "end of the node")


def test_a_seed_tells_the_rounds() -> None:
    """The same seed gives the same kills and tasks, with fresh ids, another one others; every victim has its turn."""
    rounds, same, others = (list(plan_rounds(seed, 40)) for seed in ("a", "a", "b"))
    assert [str(this) for this in rounds] == [str(this) for this in same] != [str(this) for this in others]
    assert [[task.kind for task in this.tasks] for this in rounds] == [
        [task.kind for task in this.tasks] for this in same
    ]
    assert len({task.id for this in (*rounds, *same) for task in this.tasks}) == 80 * TASKS_A_ROUND
    assert Counter(this.victims for this in rounds) == dict.fromkeys(VICTIMS, 10)
    assert rounds[-1].rests


def test_a_missing_fact_is_noticed() -> None:
    """A gap, a fact too many and an end that does not fit each fail the check."""
    changes = life()
    facts, last = [change.fact for change in changes], changes[-1].record
    check_history(last, facts)
    for wrong in (facts[:-1], facts[1:], []):
        with pytest.raises(AssertionError):
            check_history(last, wrong)
    with pytest.raises(AssertionError):
        check_history(changes[-2].record, facts)


def test_what_is_wrong_in_a_database_is_noticed(tmp_path: Path) -> None:
    """A fact that is gone, and a file that was set aside, each fail the check of the store."""
    config, changes = NodeConfig(data=tmp_path, store="sqlite"), life()
    trio.run(save, tmp_path / SQLITE_FILE, changes)
    assert read_store(config, TEST_PEER) == {changes[-1].record.id: changes[-1].record}
    (tmp_path / f"{SQLITE_FILE}.damaged").touch()
    with pytest.raises(AssertionError, match="set aside"):
        read_store(config, TEST_PEER)
    (tmp_path / f"{SQLITE_FILE}.damaged").unlink()
    with closing(sqlite3.connect(tmp_path / SQLITE_FILE)) as connection, connection:
        connection.execute("DELETE FROM events WHERE seq = 2")
    with pytest.raises(AssertionError):
        read_store(config, TEST_PEER)


async def save(path: Path, changes: list[Change]) -> None:
    """Save changes of a task."""
    store = SqliteStore(path)
    async with store.running(lambda _: None):
        store.append(changes)
