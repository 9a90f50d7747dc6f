"""Stores that keep agents: what is saved is there when the node starts again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from node.interfaces import Change
from node.stores.memory import MemoryAgents, MemoryStore
from node.stores.sqlite import SqliteStore
from node.testing import START_MS, FakeSqliteDatabase
from node.work_service import Agent
from protocol import ErrorCode, PeertaskError

# covers COORD-21, COORD-38

ONE = Agent(id="one", kinds=("draw", "paint"), persona="painter", registered_at=START_MS + 7, heard_at=START_MS + 1_234)
TWO = Agent(id="two", kinds=("draw",), persona=None, registered_at=START_MS, heard_at=START_MS)


def ignore(_changes: Sequence[Change]) -> None:
    """Take no note of what is committed."""


@pytest.mark.parametrize("make_store", [MemoryStore, FakeSqliteDatabase], ids=["memory", "sqlite"])
async def test_agents_are_kept_without_loss(make_store: Callable[[], MemoryStore | FakeSqliteDatabase]) -> None:
    """In the order of their registration; one that is saved again replaces itself, one that is removed is gone."""
    store = make_store()
    async with store.running(ignore):
        assert await store.agents() == []
        await store.save_agent(ONE)
        await store.save_agent(TWO)
    async with store.running(ignore):
        assert await store.agents() == [TWO, ONE]
        changed = replace(ONE, kinds=("draw",), persona=None, heard_at=START_MS + 99_000)
        await store.save_agent(changed)
        await store.remove_agent("two")
        await store.remove_agent("nobody")
        assert await store.agents() == [changed]


async def test_agents_of_a_node_without_a_store_for_them_are_kept_in_memory() -> None:
    """As a node has them that keeps its tasks in files or in Redis."""
    agents = MemoryAgents()
    await agents.save_agent(ONE)
    assert await agents.agents() == [ONE]


async def test_the_row_of_an_agent_reads_well_for_other_programs(tmp_path: Path) -> None:
    """Times as SQLite writes them, the kinds as JSON, and a row for its persona."""
    store = SqliteStore(tmp_path / "tasks.db")
    async with store.running(ignore):
        await store.save_agent(ONE)
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection:
        assert connection.execute("SELECT * FROM agents").fetchall() == [
            ("one", "painter", "2027-01-15 08:00:00.007", "2027-01-15 08:00:01.234", "active", '["draw", "paint"]')
        ]
        assert connection.execute("SELECT id FROM personas").fetchall() == [("*",), ("painter",)]


async def test_an_agent_that_cannot_be_read_is_named() -> None:
    """Somebody has edited the row: it says which, and what to do."""
    store = FakeSqliteDatabase()
    async with store.running(ignore):
        await store.save_agent(ONE)
        store.connection.execute("UPDATE agents SET kinds = 'draw'")
        with pytest.raises(PeertaskError, match="agent one cannot be read") as refused:
            await store.agents()
    assert refused.value.code is ErrorCode.STORE_FAILED


async def test_an_agent_is_not_saved_in_a_store_that_is_not_open() -> None:
    """It says that, and not that the disk is full."""
    with pytest.raises(PeertaskError, match="is not open") as refused:
        await FakeSqliteDatabase().save_agent(ONE)
    assert refused.value.code is ErrorCode.STORE_FAILED
