"""Waiting for the tasks of a graph, over a real socket and a real manager."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from node.cli.graph_watch import GraphWatch, _may_have_ended
from node.coordination.naming import resolve_names
from node.gateways.http.client import ControlClient
from node.gateways.http.response_models import LaggedView, TaskView
from protocol import TaskId, new_task_id
from tests.node.gateways.http_node import TEST_S, serving

_FIRST, _LAST = new_task_id(), new_task_id()
GRAPH = {
    "last": {"id": _LAST, "prompt": "b", "depends_on": ["first"]},
    "first": {"id": _FIRST, "prompt": "a"},
}


async def test_each_task_is_told_as_it_ends_and_a_graph_that_has_ended_at_once(tmp_path: Path) -> None:
    """The second time nothing happens any more, and nobody waits for it."""
    told: list[tuple[str, str]] = []

    def tell(name: str, task: TaskView) -> None:
        told.append((name, task.status.value))

    async with serving(tmp_path) as served:
        with trio.fail_after(TEST_S):
            async with trio.open_nursery() as nursery:
                graph = resolve_names(GRAPH)
                nursery.start_soon(GraphWatch(ControlClient(tmp_path), graph, tell).run)
                while served.manager.find_task(_LAST) is None:
                    await wait_all_tasks_blocked(0.01)
                for task_id in (_FIRST, _LAST):
                    served.start(task_id)
                    served.complete(task_id)
            assert told == [("first", "complete"), ("last", "complete")]
            await GraphWatch(ControlClient(tmp_path), graph, tell).run()
            assert told[2:] == [("last", "complete"), ("first", "complete")]


def test_after_a_gap_every_task_is_looked_at() -> None:
    """Any of them may have ended in it."""
    names = {TaskId(_FIRST): "first", TaskId(_LAST): "last"}
    assert _may_have_ended(LaggedView(missed=None), names) == [_FIRST, _LAST]
