"""A node with a scripted executor of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from node.interfaces import Change, Execution, Executor, Output, Store
from node.testing import (
    MemoryHub,
    ScriptedExecutor,
    open_memory_hub,
)
from protocol import (
    ErrorCode,
    TaskId,
    TaskRecord,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode

# Bounds a wait in which the test looks again every millisecond.
UNTIL_S = 60.0


class Scene:
    """A node with a scripted executor of its own."""

    def __init__(self, node: MemoryNode, executor: ScriptedExecutor) -> None:
        self.node = node
        self.executor = executor
        self.told: list[Change] = []
        node.feed.listen(self.told.append)

    def submit(self, prompt: str = "a prompt", **options: Any) -> TaskId:
        """Take a task for the scripted executor in."""
        return self.node.submit(prompt, to=self.node, **{"kind": self.executor.kind, **options})

    async def run(self, prompt: str = "a prompt", **options: Any) -> TaskRecord:
        """Submit it, and return how it ended."""
        return await self.node.wait(self.submit(prompt, **options))

    def record(self, task_id: TaskId) -> TaskRecord:
        """What is known of a task."""
        return self.node.manager.get_task(task_id)

    def facts(self, task_id: TaskId) -> list[type[object]]:
        """What has happened to a task."""
        return [type(change.fact) for change in self.told if change.record.id == task_id]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when something holds; looks at it after each round of the scheduler in which something happened."""
        with trio.fail_after(UNTIL_S):
            while not condition():
                await trio.sleep(0.001)


@asynccontextmanager
async def scene_of(hub: MemoryHub, executor: ScriptedExecutor | None = None, **options: Any) -> AsyncIterator[Scene]:
    """A scene that runs."""
    executor = executor or ScriptedExecutor()
    scene = Scene(MemoryNode(hub, "node", [executor], **options), executor)
    async with scene.node.running():
        yield scene


@asynccontextmanager
async def started_again(store: Store) -> AsyncIterator[Scene]:
    """A scene that goes on with what another has saved, on another hub: nobody there knows the former one."""
    async with open_memory_hub() as hub, scene_of(hub, store=store) as again:
        yield again


def failure_of(record: TaskRecord) -> tuple[TaskStatus, ErrorCode | None, str]:
    """How a task has ended without a result."""
    failure = record.failure
    if failure is None:
        return record.status, None, ""
    return record.status, failure.code, failure.message


class Careless(Executor):
    """Calls what the test gives it, and checks nothing."""

    kind, slots, safe = "careless", 4, True

    def __init__(self, function: Callable[[Execution], Any]) -> None:
        self._function = function

    async def execute(self, execution: Execution) -> Output:
        """Call the function."""
        return await self._function(execution)  # type: ignore[no-any-return]
