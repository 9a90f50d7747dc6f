"""Waits for the tasks of a graph, and tells how each ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from node.coordination.naming import NamedGraph
from node.gateways.http.client import ControlClient, WatchItem
from node.gateways.http.response_models import EventView, LaggedView, TaskView
from protocol import TaskId


async def watch_graph(client: ControlClient, graph: NamedGraph, told: Callable[[str, TaskView], None]) -> None:
    """Submit a graph, and return when all of its tasks have ended.

    Args:
        client: asks the node.
        graph: what is submitted.
        told: is called with the name of each task as it ends, and what came of it.
    """
    names = {task_id: name for name, task_id in graph.ids.items()}

    async def look_at(task_id: TaskId) -> None:
        task = await client.get(task_id)
        if task.status.terminal:
            told(names.pop(task_id), task)

    async with client.watch_all() as items:  # before the graph is there, so that no end is missed
        await client.submit_graph(graph.tasks)
        for task_id in () if graph.fresh else [*names]:  # else some may have ended long ago
            await look_at(task_id)
        async for task_id in _news(items, names):
            await look_at(task_id)


async def _news(items: AsyncIterator[WatchItem], names: Mapping[TaskId, str]) -> AsyncIterator[TaskId]:
    """Yield the tasks that may have ended, until no names are left."""
    while names:
        item = await anext(items)
        if isinstance(item, LaggedView):
            for task_id in [*names]:
                yield task_id
        elif isinstance(item, EventView) and item.status.terminal and item.task_id in names:
            yield item.task_id
