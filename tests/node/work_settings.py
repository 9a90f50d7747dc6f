"""A node with a work door, for the checker of the contract and the tests of agents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trio.testing import wait_all_tasks_blocked

from node.interfaces import Store
from node.testing import FakeClock, WorkSetting, open_memory_hub
from tests.node.memory_node import MemoryNode

LEASE_MS = 30_000


@asynccontextmanager
async def work_setting(store: Store | None = None, **options: Any) -> AsyncIterator[WorkSetting]:
    """A node of real parts whose clock stands still until the test lets time pass."""
    clock = FakeClock()
    async with open_memory_hub() as hub:
        node = MemoryNode(hub, "node", store=store, lease_ms=LEASE_MS, clock=clock, **options)

        async def pass_time(ms: int) -> None:
            clock.advance(ms)
            node.dispatcher.wake()
            await wait_all_tasks_blocked()
            await node.manager.settle()

        async with node.running():
            await wait_all_tasks_blocked()  # until the dispatcher is there
            yield WorkSetting(
                work=node.work, tasks=node.manager, own_id=node.peer_id, lease_ms=LEASE_MS, pass_time=pass_time
            )
