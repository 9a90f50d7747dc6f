"""Takes tasks of planners in, for a node whose store numbers them."""

from __future__ import annotations

from collections.abc import Sequence

from node.coordination.dependencies import are_dependencies_satisfied
from node.coordination_service import TaskNumbers
from node.interfaces import EnqueueRequest, TaskCoordinationService
from node.manager import TaskManager
from protocol import ErrorCode, PeertaskError, TaskId, TaskNotFound


class TaskCoordinator(TaskCoordinationService):
    """Enqueues tasks, and knows them by the numbers that they have in the tables.

    Args:
        manager: the map of the node.
        store: where it is kept, and numbered.
    """

    def __init__(self, manager: TaskManager, store: TaskNumbers) -> None:
        self._manager = manager
        self._store = store

    async def enqueue_task(self, request: EnqueueRequest) -> int:
        """Take a task in, and return its number; see `TaskCoordinationService.enqueue_task`."""
        task = self._manager.create_task(
            request.description, persona=request.persona_id, metadata={"title": request.title}
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

    async def _task_of(self, number: int) -> TaskId:
        task_id = await self._store.task_of(number)
        if task_id is None:
            raise TaskNotFound(f"this node has no task number {number}")
        return task_id
