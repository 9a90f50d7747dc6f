"""What is in the stores of nodes that do not run, and whether it can be what it should be."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import trio

from node.config import NodeConfig
from node.history import retell
from node.interfaces import Change, Store
from node.storage import SQLITE_FILE, storage_of
from node.stores.files import FilesStore
from protocol import Completed, Fact, PeerId, TaskId, TaskRecord

# A node opens its store and reads it within a second here; other tests may make that thirty times as slow.
READ_S: Final = 60.0


def read_store(config: NodeConfig, owner: PeerId) -> dict[TaskId, TaskRecord]:
    """Return the records that a node has left, after a look at each: its facts are all there, and lead to it.

    Args:
        config: the settings of the node.
        owner: who it is.

    Raises:
        AssertionError: the store is damaged, holds a task twice, or facts are missing; says which.
    """
    if config.store == "sqlite":
        _check_sqlite(config.data or Path())
    return trio.run(_read, storage_of(config, owner).store)


async def _read(kept: Store) -> dict[TaskId, TaskRecord]:
    with trio.fail_after(READ_S):
        async with kept.running(_refuse):
            if isinstance(kept, FilesStore):
                assert kept.left_out == (), kept.left_out
            records = [record async for record in kept.load()]
            by_id = {record.id: record for record in records}
            assert len(by_id) == len(records), "a task is kept twice"
            for record in records:
                check_history(record, [fact async for fact in kept.facts(record.id)])
                assert [fact async for fact in kept.facts(record.id, record.seq)] == []
    return by_id


def check_history(record: TaskRecord, facts: Sequence[Fact]) -> None:
    """Check that facts are numbered without a gap, follow from each other, and lead to a record, with one end at most.

    Raises:
        AssertionError: they do not.
    """
    told = retell(facts)
    assert [change.record.seq for change in told] == list(range(1, record.seq + 1)), f"{record}: {facts}"
    assert told[-1].record == record
    assert sum(isinstance(fact, Completed) for fact in facts) == (record.result is not None)


def _refuse(changes: Sequence[Change]) -> None:
    raise AssertionError(f"nobody has appended anything, and {changes} were committed")


def _check_sqlite(folder: Path) -> None:
    """Check the file as a crash has left it, before anybody could have mended it, and that it is the first one."""
    names = {path.name for path in folder.glob(f"{SQLITE_FILE}*")}
    assert names <= {SQLITE_FILE + suffix for suffix in ("", "-wal", "-shm")}, "a damaged file was set aside"
    with closing(sqlite3.connect(folder / SQLITE_FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        gaps = "SELECT task_id FROM events GROUP BY task_id HAVING min(seq) != 1 OR max(seq) != count(*)"
        assert connection.execute(gaps).fetchall() == []
