"""What planners and agents of other programs ask, for a node that keeps its tasks in SQLite.

They know tasks by the numbers that those have in the tables; all else is the task service and the work door.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.coordination.dependencies import are_dependencies_satisfied
from node.coordination_service import TaskNumbers
from node.interfaces import (
    AGENT_KIND,
    AgentInfo,
    AgentSessionService,
    AvailableTask,
    EnqueueRequest,
    Output,
    TaskCoordinationService,
)
from node.manager import TaskManager
from node.work_service import AgentRegistration, WorkService
from protocol import ErrorCode, PeertaskError, TaskId, TaskNotFound, TaskRecord

_TITLE = "title"


class TaskCoordinator(TaskCoordinationService):
    """Knows tasks by the numbers that they have in the tables.

    Args:
        manager: the map of the node.
        store: where it is kept, and numbered.
        work: the door of the agents.
    """

    def __init__(self, manager: TaskManager, store: TaskNumbers, work: WorkService) -> None:
        self._manager = manager
        self._store = store
        self._work = work

    async def enqueue_task(self, request: EnqueueRequest) -> int:
        """Take a task for agents in, and return its number; see `TaskCoordinationService.enqueue_task`."""
        task = self._manager.create_task(
            request.description, kind=AGENT_KIND, persona=request.persona_id, metadata={_TITLE: request.title}
        )
        number = await self._store.number_of(task.id)
        if number is None:
            raise PeertaskError(
                f"task {task.id} is not saved",
                code=ErrorCode.STORE_FAILED,
                remedy="Look into the log of the node for what its store says",
            )
        return number

    async def validate_dependencies(self, task_ids: Sequence[int]) -> bool:
        """Whether a new task may depend on these; see `TaskCoordinationService.validate_dependencies`."""
        found = [await self._store.task_of(number) for number in task_ids]
        return None not in found and len(set(found)) == len(found)

    async def are_dependencies_satisfied(self, task_id: int) -> bool:
        """Whether all that a task depends on are complete; see `TaskCoordinationService.are_dependencies_satisfied`."""
        record = self._manager.get_task(await self._task_of(task_id))
        return are_dependencies_satisfied(record.task, self._manager.dependency)

    async def get_available_tasks(self, persona_id: str | None = None) -> list[AvailableTask]:
        """Return what waits for an agent; see `TaskCoordinationService.get_available_tasks`."""
        waiting = self._work.waiting(kind=AGENT_KIND, persona=persona_id)
        numbers = await self._store.numbers_of([record.id for record in waiting])
        return [_available(numbers[record.id], record) for record in waiting if record.id in numbers]

    async def claim_task(self, task_id: int, agent_id: str) -> bool:
        """Let an agent begin a task; see `TaskCoordinationService.claim_task`."""
        try:
            claim = await self._work.claim_task(agent_id, await self._task_of(task_id))
        except PeertaskError as error:
            if error.code is ErrorCode.CONFLICT:
                return False
            raise
        # Whoever has no word for the beginning of the work has begun when it has the task.
        await self._work.start(agent_id, claim.record.id, claim.attempt)
        return True

    async def complete_task(self, task_id: int, result: str) -> None:
        """Deliver a result; see `TaskCoordinationService.complete_task`."""
        record = self._manager.latest(await self._task_of(task_id))
        await self._work.complete(record.holder or "", record.id, record.attempt, Output(result))

    async def _task_of(self, number: int) -> TaskId:
        task_id = await self._store.task_of(number)
        if task_id is None:
            raise TaskNotFound(f"this node has no task number {number}")
        return task_id

    async def register_agent(self, info: AgentInfo) -> str:
        """Let an agent take part; see `TaskCoordinationService.register_agent`."""
        return await _register(self._work, info)

    async def heartbeat(self, agent_id: str) -> bool:
        """Take a sign of life; see `TaskCoordinationService.heartbeat`."""
        return await _beat(self._work, agent_id)

    async def deregister_agent(self, agent_id: str) -> None:
        """Let an agent go; see `TaskCoordinationService.deregister_agent`."""
        try:
            await self._work.deregister(agent_id)
        except PeertaskError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise


class AgentSessions(AgentSessionService):
    """Who takes part.

    Args:
        work: the door of the agents.
    """

    def __init__(self, work: WorkService) -> None:
        self._work = work

    async def register_agent(self, registration: AgentInfo) -> str:
        """Let an agent take part; see `AgentSessionService.register_agent`."""
        return await _register(self._work, registration)

    async def update_heartbeat(self, agent_id: str) -> bool:
        """Take a sign of life; see `AgentSessionService.update_heartbeat`."""
        return await _beat(self._work, agent_id)

    async def get_active_agents(self) -> list[AgentInfo]:
        """Return the agents that are there; see `AgentSessionService.get_active_agents`."""
        agents = [state.agent for state in self._work.active_agents()]
        return [AgentInfo(id=agent.id, persona_id=agent.persona, kinds=agent.kinds) for agent in agents]

    async def cleanup_expired_sessions(self) -> int:
        """Forget silent agents; see `AgentSessionService.cleanup_expired_sessions`."""
        return len(await self._work.cleanup_expired())


async def _register(work: WorkService, info: AgentInfo) -> str:
    registration = AgentRegistration.of(id=info.id, kinds=info.kinds, persona=info.persona_id)
    return (await work.register(registration)).id


async def _beat(work: WorkService, agent_id: str) -> bool:
    try:
        await work.heartbeat(agent_id)
    except PeertaskError as error:
        if error.code is ErrorCode.NOT_FOUND:
            return False
        raise
    return True


def _available(number: int, record: TaskRecord) -> AvailableTask:
    task = record.task
    title = str(task.metadata.get(_TITLE, ""))
    return AvailableTask(id=number, title=title, description=task.prompt, persona_id=task.persona)
