"""Takes tasks of planners in, for a node whose store numbers them."""

from __future__ import annotations

from node.coordination_service import TaskNumbers
from node.interfaces import EnqueueRequest, TaskCoordinationService
from node.manager import TaskManager
from protocol import ErrorCode, PeertaskError


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
