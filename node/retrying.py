"""Has tasks done again that ended without a result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from node.coordination.dead_letters import again, retries_among
from node.interfaces import TaskFilter, TaskService
from protocol import PeerId, PeertaskError, TaskId, TaskRecord, new_task_id


def submit_again(
    service: TaskService, task_ids: Iterable[TaskId], *, own_id: PeerId, now: int
) -> Iterator[TaskRecord | PeertaskError]:
    """Submit a new task for each task that failed or was cancelled, one at each step of the iteration.

    Args:
        service: knows the tasks, and takes the new ones in.
        task_ids: what to have done again.
        own_id: this node, which asked for them.
        now: milliseconds since the epoch.

    Yields:
        For each, in their order, the record of the new task or why there is none.
    """
    retried = retries_among(service.list_tasks(TaskFilter(requester=own_id)))
    for task_id in task_ids:
        try:
            retry = again(service.latest(task_id), retried, own_id=own_id, new_id=new_task_id(), now=now)
            record = service.submit(retry.task, requester=own_id, target=retry.target, deadline=retry.deadline)
        except PeertaskError as error:
            yield error
        else:
            retried[task_id] = record.id
            yield record
