"""Has tasks done again that ended without a result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from node.coordination.dead_letters import again, retries_among
from node.coordination.dependencies import dependents_first
from node.interfaces import TaskFilter, TaskService
from protocol import PeerId, PeertaskError, TaskId, TaskRecord, new_task_id


def submit_again(
    service: TaskService, task_ids: Iterable[TaskId], *, own_id: PeerId, now: int
) -> Iterator[TaskRecord | PeertaskError]:
    """Submit a new task for each task that failed or was cancelled; first those that others of them depend on.

    Args:
        service: knows the tasks, and takes the new ones in.
        task_ids: what to have done again.
        own_id: this node, which asked for them.
        now: milliseconds since the epoch.

    Yields:
        For each, in their order, the record of the new task or why there is none.
    """
    asked = list(task_ids)
    own = TaskFilter(requester=own_id)
    # A retry that is being saved counts, or whoever asks twice at once would have the task done twice.
    retried = retries_among([*service.list_tasks(own), *filter(own.matches, service.unsaved_tasks())])
    ends: dict[int, TaskRecord | PeertaskError] = {}
    for place in _in_order(service, asked):
        try:
            retry = again(service.latest(asked[place]), retried, own_id=own_id, new_id=new_task_id(), now=now)
            record = service.submit(retry.task, requester=own_id, target=retry.target, deadline=retry.deadline)
        except PeertaskError as error:
            ends[place] = error
        else:
            retried[asked[place]] = record.id
            ends[place] = record
    yield from (ends[place] for place in range(len(asked)))


def _in_order(service: TaskService, task_ids: Sequence[TaskId]) -> list[int]:
    """Return the places of tasks, those of tasks that others depend on first; what is unknown stays where it is."""
    known = {record.id: record.task for record in map(service.find_task, task_ids) if record is not None}
    rank = {task_id: number for number, task_id in enumerate(reversed(dependents_first(known.values())))}
    return sorted(range(len(task_ids)), key=lambda place: rank.get(task_ids[place], -1))
