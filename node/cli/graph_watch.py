"""Waits for the tasks of a graph, and tells how each ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from node.cli.waiting import Hint
from node.coordination.hindrances import Wait
from node.coordination.naming import NamedGraph
from node.gateways.http.client import ControlClient, WatchItem
from node.gateways.http.limits import MAX_LISTED
from node.gateways.http.response_models import EventView, LaggedView, TaskSummary, TaskView
from protocol import TaskId, TaskStatus

_OPEN: Final = ",".join(status.value for status in TaskStatus if not status.terminal)
# So many different things that a graph waits for are all that somebody reads; each costs a request.
_MAX_EXPLAINED: Final = 10
# What is as it should be while others of the graph run.
_IN_ORDER: Final = frozenset({Wait.SLOT, Wait.TURN})


class GraphWatch:
    """Submits a graph, and waits for its tasks.

    Args:
        client: asks the node.
        graph: what is submitted.
        told: is called with the name of each task as it ends, and what came of it.
    """

    def __init__(self, client: ControlClient, graph: NamedGraph, told: Callable[[str, TaskView], None]) -> None:
        self._client = client
        self._graph = graph
        self._told = told
        self._names = {task_id: name for name, task_id in graph.ids.items()}

    async def run(self) -> None:
        """Submit the graph, and return when all of its tasks have ended."""
        async with self._client.watch_all() as items:  # before the graph is there, so that no end is missed
            await self._client.submit_graph(self._graph.tasks)
            for task_id in () if self._graph.fresh else [*self._names]:  # else some may have ended long ago
                await self._look_at(task_id)
            while self._names:
                for task_id in _may_have_ended(await anext(items), self._names):
                    await self._look_at(task_id)

    async def _look_at(self, task_id: TaskId) -> None:
        task = await self._client.get(task_id)
        if task.status.terminal:
            self._told(self._names.pop(task_id), task)

    async def look_for_hindrances(self) -> list[Hint]:
        """Return what keeps tasks of the graph from starting that could; blocked ones count only when none runs."""
        listed = await self._client.list_tasks(status=_OPEN, limit=MAX_LISTED)
        tasks = [task for task in listed if task.id in self._names]
        runs = any(task.status is not TaskStatus.PENDING for task in tasks)
        return [
            Hint(reason, self._names.get(task.id, task.id))
            for task in _unlike(_stuck(tasks, runs=runs))
            for reason in [view.reason() for view in (await self._client.explain(task.id)).waits_for]
            if not (runs and reason.wait in _IN_ORDER)
        ]


def _stuck(tasks: Sequence[TaskSummary], *, runs: bool) -> list[TaskSummary]:
    pending = [task for task in tasks if task.status is TaskStatus.PENDING]
    ready = [task for task in pending if not task.blocked]
    return ready if ready or runs else pending


def _unlike(tasks: Sequence[TaskSummary]) -> list[TaskSummary]:
    """Return some tasks that may wait for different things."""
    found = {(task.kind, task.persona, task.target, task.blocked): task for task in tasks}
    return [*found.values()][:_MAX_EXPLAINED]


def _may_have_ended(item: WatchItem, names: Mapping[TaskId, str]) -> list[TaskId]:
    if isinstance(item, LaggedView):  # any of them, while nobody looked
        return [*names]
    return [item.task_id] if isinstance(item, EventView) and item.status.terminal and item.task_id in names else []
