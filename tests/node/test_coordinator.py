"""Tasks of planners, by their numbers in the tables."""

from __future__ import annotations

import pytest

from node.coordinator import TaskCoordinator
from node.feed import Feed
from node.interfaces import EnqueueRequest
from node.manager import TaskManager
from node.testing import TEST_PEER, TrioClock
from node.testing.sqlite import FakeSqliteDatabase
from protocol import InvalidTask

# covers COORD-15, COORD-16, COORD-47


@pytest.fixture
def database() -> FakeSqliteDatabase:
    """A database in memory."""
    return FakeSqliteDatabase()


async def test_a_task_of_a_planner_gets_a_number_and_its_row(database: FakeSqliteDatabase) -> None:
    """The title, the description and the persona stand in the tables when the number is told; numbers grow."""
    manager = TaskManager(database, TrioClock(), Feed(), own_id=TEST_PEER)
    async with manager.running():
        coordinator = TaskCoordinator(manager, database)
        request = EnqueueRequest(title="Test Task", description="Test Description", persona_id="implementer")
        number = await coordinator.enqueue_task(request)
        assert number > 0
        rows = database.connection.execute(
            "SELECT title, description, persona_id, status FROM tasks JOIN task_status ON task_id = id WHERE id = ?",
            (number,),
        ).fetchall()
        assert rows == [("Test Task", "Test Description", "implementer", "pending")]
        assert await coordinator.enqueue_task(request) > number
        assert len(manager.list_tasks()) == 2


async def test_a_persona_that_cannot_be_one_is_refused(database: FakeSqliteDatabase) -> None:
    """By name, and nothing is taken in."""
    manager = TaskManager(database, TrioClock(), Feed(), own_id=TEST_PEER)
    async with manager.running():
        coordinator = TaskCoordinator(manager, database)
        with pytest.raises(InvalidTask, match="field persona"):
            await coordinator.enqueue_task(EnqueueRequest(title="t", description="d", persona_id="not a name"))
        assert manager.list_tasks() == []
