"""What can be read of a damaged file is brought over whole, and nothing that is not true."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.interfaces import Change
from node.stores.sqlite import SqliteStore
from node.stores.sqlite import salvage as salvaging
from node.stores.sqlite.database import BEGINNING, Database
from node.stores.sqlite.opening import open_connection
from node.stores.sqlite.salvage import salvage
from node.testing import make_task
from protocol import Fact, Progressed, TaskId, TaskRecord
from tests.node.stores.lives import birth, claim, continued, life

PAGE = 4096
SEED = 7
ROUNDS = 15
# The first pages are the schema and where the tables begin; whoever loses one loses more.
ROOTS = 30


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


async def fill(path: Path) -> dict[TaskId, list[Change]]:
    """Make a store with tasks of all sorts, and return their lives."""
    histories = [life(make_task("x" * 300, persona=f"persona-{number % 5}")) for number in range(150)]
    for _ in range(20):
        begun = birth(make_task(depends_on=(histories[0][0].record.id,)))
        history = [begun, *claim(begun)]
        reports = [Progressed(begun.record.id, begun.record.created_at, 1, n / 50, f"{n}", 1) for n in range(50)]
        histories.append([*history, *continued(history[-1], *reports)])
    store = SqliteStore(path)
    async with store.running(ignore):
        for history in histories:
            store.append(history)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO agents (id, persona_id) VALUES ('agent', 'persona-1')")
    return {history[0].record.id: history for history in histories}


def read(path: Path) -> dict[TaskId, tuple[TaskRecord, list[Fact]]]:
    """The records and facts of a store."""
    with closing(Database(open_connection(path))) as database:
        records, _ = database.load_page(BEGINNING)
        return {record.id: (record, [fact for _, fact in database.facts_page(record.id, 0)]) for record in records}


def faults(path: Path) -> list[object]:
    """What SQLite finds wrong with a file."""
    with closing(sqlite3.connect(path)) as connection:
        answers = [answer for answer in connection.execute("PRAGMA integrity_check") if answer != ("ok",)]
        return [*answers, *connection.execute("PRAGMA foreign_key_check")]


def spoil(path: Path, page: int) -> None:
    """Write nonsense over a page."""
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(random.Random(page).randbytes(PAGE)))


async def test_a_whole_file_is_brought_over_whole(tmp_path: Path) -> None:
    """Nothing is left out without need; the source is not written to."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    lives = await fill(source)
    before = source.read_bytes()
    assert salvage(source, target) == len(lives)
    assert source.read_bytes() == before
    assert read(target) == {
        task_id: (history[-1].record, [change.fact for change in history]) for task_id, history in lives.items()
    }
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT id, persona_id FROM agents").fetchall() == [("agent", "persona-1")]
        assert connection.execute("SELECT count(*) FROM task_dependencies").fetchone() == (20,)


async def test_whichever_page_is_lost_the_rest_is_true(tmp_path: Path) -> None:
    """Each record is the last one of its task, its facts have no gap, and most tasks are there."""
    source = tmp_path / "source.db"
    lives = await fill(source)
    whole = source.read_bytes()
    pages = range(2, len(whole) // PAGE)
    for number, page in enumerate(random.Random(SEED).sample(pages, ROUNDS)):
        source.write_bytes(whole)
        spoil(source, page)
        target = tmp_path / f"{number}.db"
        try:
            count = salvage(source, target)
        except sqlite3.DatabaseError:
            assert page < ROOTS
            continue
        kept = read(target)
        assert faults(target) == [], f"page {page}"
        assert len(kept) == count
        for task_id, (record, facts) in kept.items():
            history = lives[task_id]
            assert record == history[-1].record
            assert facts == [change.fact for change in history][len(history) - len(facts) :]
        assert count > len(lives) // 2 or page < ROOTS, f"page {page}"


async def test_a_search_that_leads_nowhere_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of attempts is bounded, so a node starts however broken its file is."""
    source = tmp_path / "source.db"
    await fill(source)
    spoil(source, 2)
    monkeypatch.setattr(salvaging, "MAX_ATTEMPTS", 3)
    assert salvage(source, tmp_path / "target.db") < 170


async def test_a_record_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    """What this program cannot read would keep it from starting."""
    source = tmp_path / "source.db"
    lives = await fill(source)
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE tasks SET kind = '?' WHERE id = 1")
        connection.execute("UPDATE task_status SET rest = '{' WHERE task_id = 2")
    assert salvage(source, tmp_path / "target.db") == len(lives) - 2
