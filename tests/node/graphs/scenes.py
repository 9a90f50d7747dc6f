"""Tasks of a graph, and what was carried out."""

from __future__ import annotations

from typing import Any

from node.interfaces import GraphTask
from node.testing import (
    ScriptedExecutor,
)
from protocol import (
    Task,
    TaskId,
    TaskRecord,
)
from tests.node.memory_node import MemoryNode


def task(node: MemoryNode, prompt: str, *depends_on: TaskId, **fields: Any) -> Task:
    """Return a task of a node for the scripted executor."""
    fields = {"kind": "scripted", "depends_on": depends_on, **fields}
    return Task.new(prompt, node.peer_id, timestamp=node.clock.now(), **fields)


def submit(node: MemoryNode, *tasks: Task, target: MemoryNode | None = None) -> list[TaskRecord]:
    """Submit tasks together."""
    peer_id = None if target is None else target.peer_id
    return node.manager.submit_graph([GraphTask(one, peer_id) for one in tasks], requester=node.peer_id)


def prompts(executor: ScriptedExecutor) -> list[str]:
    """Return what was carried out, in the order of beginning."""
    return [seen.task.prompt for seen in executor.seen]
