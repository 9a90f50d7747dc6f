"""Waits for the tasks of a graph, and tells how each ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        while names:
            for task_id in _may_have_ended(await anext(items), names):
                await look_at(task_id)


def _may_have_ended(item: WatchItem, names: Mapping[TaskId, str]) -> list[TaskId]:
    if isinstance(item, LaggedView):  # any of them, while nobody looked
        return [*names]
    return [item.task_id] if isinstance(item, EventView) and item.status.terminal and item.task_id in names else []
