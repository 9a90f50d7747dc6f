"""How long a task is kept on which others depend."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from node.retention import Capacity
from node.testing import (
    Hang,
    MemoryHub,
    Return,
    ScriptedExecutor,
)
from protocol import (
    InvalidTask,
)
from tests.node.memory_node import MemoryNode


async def test_a_task_is_kept_while_others_depend_on_it(
    autojump_clock: MockClock, hub: MemoryHub, executor: ScriptedExecutor
) -> None:
    """However many end after it; when nobody needs it any more it is forgotten as any other, and then it is unknown."""
    executor.on("hang", Hang()).on("hang", Return("ok"))
    async with MemoryNode(hub, "ann", [executor], capacity=Capacity(finished_records=2)).running() as node:
        first = await node.run("first", kind="scripted")
        hanging = node.submit("hang", kind="scripted")
        last = node.submit("last", kind="scripted", depends_on=(first.id, hanging))
        for number in range(5):
            await node.run(f"{number}")
        assert node.manager.find_task(first.id) is not None
        node.manager.cancel_task(hanging)
        await node.wait(last)
        for number in range(5):
            await node.run(f"{number}")
        assert node.manager.find_task(first.id) is None
        with pytest.raises(InvalidTask, match=f"names {first.id}, which is no task of yours at this node.*forgotten"):
            node.submit("too late", depends_on=(first.id,))
