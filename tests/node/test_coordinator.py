"""Tasks of planners, by their numbers in the tables, and the agents that do them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.coordinator import AgentSessions, TaskCoordinator
from node.interfaces import AgentInfo, EnqueueRequest
from node.testing import FakeClock, FakeSqliteDatabase, open_memory_hub
from protocol import ErrorCode, InvalidTask, PeertaskError, TaskNotFound, TaskStatus
from tests.node.memory_node import MemoryNode

# covers COORD-15, COORD-16, COORD-47


@dataclass(frozen=True)
class Office:
    """A node that coordinates, and what planners, agents and those who look after them ask of it."""

    node: MemoryNode
    clock: FakeClock
    database: FakeSqliteDatabase
    tasks: TaskCoordinator
    sessions: AgentSessions

    async def enqueue(self, title: str = "t", description: str = "d", persona_id: str = "implementer") -> int:
        """Put a task."""
        return await self.tasks.enqueue_task(
            EnqueueRequest(title=title, description=description, persona_id=persona_id)
        )

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Look into the tables."""
        return self.database.connection.execute(query, values).fetchall()

    async def pass_time(self, ms: int) -> None:
        """Let time pass for the node."""
        self.clock.advance(ms)
        self.node.dispatcher.wake()
        await wait_all_tasks_blocked()
        await self.node.manager.settle()


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    """An office with an empty database in memory."""
    database, clock = FakeSqliteDatabase(), FakeClock()
    async with open_memory_hub() as hub:
        node = MemoryNode(hub, "node", store=database, clock=clock)
        async with node.running():
            await wait_all_tasks_blocked()
            yield Office(
                node, clock, database, TaskCoordinator(node.manager, database, node.work), AgentSessions(node.work)
            )


async def test_a_task_of_a_planner_gets_a_number_and_its_row(office: Office) -> None:
    """The title, the description and the persona stand in the tables when the number is told; numbers grow."""
    # covers COORD-40, COORD-50
    number = await office.enqueue("Test Task", "Test Description", "implementer")
    assert number > 0
    query = "SELECT title, description, persona_id, status FROM tasks JOIN task_status ON task_id = id WHERE id = ?"
    assert office.rows(query, number) == [("Test Task", "Test Description", "implementer", "pending")]
    assert await office.enqueue() > number
    assert len(office.node.manager.list_tasks()) == 2


async def test_a_persona_that_cannot_be_one_is_refused(office: Office) -> None:
    """By name, and nothing is taken in."""
    with pytest.raises(InvalidTask, match="field persona"):
        await office.enqueue(persona_id="not a name")
    assert office.node.manager.list_tasks() == []


async def test_dependencies_are_judged_by_number(office: Office) -> None:
    """Known and each once: valid. Satisfied: all complete, and a task that depends on nothing is."""
    # covers COORD-45
    manager = office.node.manager
    first = manager.create_task("first", kind="agent")
    last = manager.create_task("last", kind="agent", depends_on=(first.id,))
    await manager.wait_saved(last.id)
    numbers = [await office.database.number_of(task.id) or 0 for task in (first, last)]
    for ids, valid in (([], True), (numbers, True), ([numbers[0]] * 2, False), ([*numbers, 999], False)):
        assert await office.tasks.validate_dependencies(ids) is valid
    assert [await office.tasks.are_dependencies_satisfied(number) for number in numbers] == [True, False]
    agent_id = await office.tasks.register_agent(AgentInfo(persona_id="implementer"))
    assert [task.id for task in await office.tasks.get_available_tasks()] == numbers[:1]
    assert await office.tasks.claim_task(numbers[0], agent_id)
    await office.tasks.complete_task(numbers[0], "done")
    assert await office.tasks.are_dependencies_satisfied(numbers[1])
    with pytest.raises(TaskNotFound, match="number 999"):
        await office.tasks.are_dependencies_satisfied(999)


async def test_an_agent_finds_claims_and_completes_a_task_by_its_number(office: Office) -> None:
    """From the planner to the result, as other programs ask for it; each step stands in the tables."""
    # covers COORD-4, COORD-21, COORD-31, COORD-41, COORD-42, COORD-43, COORD-44
    number = await office.enqueue("Write", "Write the page", "writer")
    await office.enqueue(persona_id="painter")
    agent_id = await office.tasks.register_agent(AgentInfo(id="agent-1", persona_id="writer"))
    (available,) = await office.tasks.get_available_tasks("writer")
    assert (available.id, available.title, available.description, available.persona_id) == (
        number,
        "Write",
        "Write the page",
        "writer",
    )
    assert len(await office.tasks.get_available_tasks()) == 2
    assert await office.tasks.claim_task(number, agent_id)
    query = "SELECT status, assigned_agent_id, lease_expires_at IS NOT NULL FROM task_status WHERE task_id = ?"
    await office.node.manager.settle()
    assert office.rows(query, number) == [("in_progress", "agent-1", 1)]
    assert await office.tasks.get_available_tasks("writer") == []
    await office.tasks.complete_task(number, "a page")
    assert office.rows(query, number) == [("completed", "agent-1", 0)]
    assert office.rows("SELECT result FROM task_results WHERE task_id = ?", number) == [("a page",)]


async def test_of_many_agents_exactly_one_claims_a_task(office: Office) -> None:
    """The others are told that they did not get it, and it is done once."""
    # covers COORD-42
    number = await office.enqueue()
    answers: list[bool] = []

    async def claim(name: str) -> None:
        answers.append(await office.tasks.claim_task(number, name))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            name = await office.tasks.register_agent(AgentInfo(persona_id="implementer"))
            nursery.start_soon(claim, name)
    assert sorted(answers) == [False] * 9 + [True]


async def test_what_is_not_there_is_named(office: Office) -> None:
    """Numbers and agents that nobody knows, a task that nobody has, and one that is not the agent's."""
    number = await office.enqueue(persona_id="painter")
    agent_id = await office.tasks.register_agent(AgentInfo(persona_id="writer"))
    for asked, code in (
        (office.tasks.claim_task(9_999, agent_id), ErrorCode.NOT_FOUND),
        (office.tasks.claim_task(number, "nobody"), ErrorCode.NOT_FOUND),
        (office.tasks.claim_task(number, agent_id), ErrorCode.FORBIDDEN),
        (office.tasks.complete_task(9_999, "x"), ErrorCode.NOT_FOUND),
        (office.tasks.complete_task(number, "x"), ErrorCode.ILLEGAL_TRANSITION),
        (office.tasks.register_agent(AgentInfo(id="not a name")), ErrorCode.PROTOCOL),
    ):
        with pytest.raises(PeertaskError) as refused:
            await asked
        assert refused.value.code is code


async def test_an_agent_that_falls_silent_loses_its_task(office: Office) -> None:
    """A heartbeat keeps it, silence gives it to the next, and what the first one delivers then is refused."""
    # covers COORD-6, COORD-22, COORD-24, COORD-58
    number = await office.enqueue()
    first = await office.tasks.register_agent(AgentInfo(persona_id="implementer"))
    assert await office.tasks.claim_task(number, first)
    await office.pass_time(20_000)
    assert await office.tasks.heartbeat(first)
    await office.pass_time(20_000)
    assert await office.tasks.get_available_tasks() == []
    await office.pass_time(20_000)
    assert [task.id for task in await office.tasks.get_available_tasks()] == [number]
    with pytest.raises(PeertaskError) as late:
        await office.tasks.complete_task(number, "late")
    assert late.value.code is ErrorCode.STALE_ATTEMPT
    second = await office.sessions.register_agent(AgentInfo(persona_id="implementer"))
    assert await office.tasks.claim_task(number, second)
    await office.tasks.complete_task(number, "in time")
    (record,) = office.node.manager.list_tasks()
    assert (record.status, record.holder, record.lost_leases) == (TaskStatus.COMPLETE, second, 1)


async def test_who_looks_after_agents_sees_them_come_and_go(office: Office) -> None:
    """Registration, heartbeats, the list, and the cleaning up of those that are silent; the table says the same."""
    # covers COORD-21, COORD-22, COORD-46
    one = await office.sessions.register_agent(AgentInfo(id="one", persona_id="writer"))
    two = await office.sessions.register_agent(AgentInfo(id="two"))
    assert [(agent.id, agent.persona_id) for agent in await office.sessions.get_active_agents()] == [
        ("one", "writer"),
        ("two", None),
    ]
    query = "SELECT id, persona_id, status FROM agents ORDER BY id"
    assert office.rows(query) == [("one", "writer", "active"), ("two", "*", "active")]
    await office.pass_time(29_000)
    assert await office.sessions.update_heartbeat(one)
    await office.pass_time(2_000)
    assert [agent.id for agent in await office.sessions.get_active_agents()] == ["one"]
    assert await office.sessions.cleanup_expired_sessions() == 1
    assert not await office.sessions.update_heartbeat(two)
    assert office.rows("SELECT id, last_heartbeat FROM agents") == [("one", "2027-01-15 08:00:29.000")]
    await office.tasks.deregister_agent(one)
    await office.tasks.deregister_agent(one)
    assert office.rows(query) == []
