"""Tasks of planners, by their numbers in the tables."""

from __future__ import annotations

import pytest

from node.coordinator import TaskCoordinator
from node.feed import Feed
from node.interfaces import EnqueueRequest
from node.manager import TaskManager
from node.testing import TEST_PEER, TrioClock
from node.testing.sqlite import FakeSqliteDatabase
from protocol import Claimed, Completed, InvalidTask, Started, TaskNotFound, TaskResult

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


async def test_dependencies_are_judged_by_number(database: FakeSqliteDatabase) -> None:
    """Known and each once: valid. Satisfied: all complete, and a task that depends on nothing is."""
    # covers COORD-45
    manager = TaskManager(database, TrioClock(), Feed(), own_id=TEST_PEER)
    async with manager.running():
        coordinator = TaskCoordinator(manager, database)
        first = manager.create_task("first")
        last = manager.create_task("last", depends_on=(first.id,))
        await manager.wait_saved(last.id)
        numbers = [await database.number_of(task.id) or 0 for task in (first, last)]
        for ids, valid in (([], True), (numbers, True), ([numbers[0]] * 2, False), ([*numbers, 999], False)):
            assert await coordinator.validate_dependencies(ids) is valid
        assert [await coordinator.are_dependencies_satisfied(number) for number in numbers] == [True, False]
        result = TaskResult(first.id, "done", 1)
        manager.apply(Claimed(first.id, 1, 1, TEST_PEER, 9), Started(first.id, 1, 1), Completed(first.id, 1, 1, result))
        await manager.wait(first.id)
        assert await coordinator.are_dependencies_satisfied(numbers[1])
        with pytest.raises(TaskNotFound, match="number 999"):
            await coordinator.are_dependencies_satisfied(999)
