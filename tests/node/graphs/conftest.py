"""What the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import (
    MemoryHub,
    ScriptedExecutor,
)
from tests.node.memory_node import MemoryNode


@pytest.fixture
def executor() -> ScriptedExecutor:
    """What carries the tasks out."""
    return ScriptedExecutor()


@pytest.fixture
async def node(hub: MemoryHub, executor: ScriptedExecutor) -> AsyncIterator[MemoryNode]:
    """A node that runs."""
    async with MemoryNode(hub, "ann", [executor]).running() as node:
        yield node
