"""What the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import (
    MemoryHub,
    open_memory_hub,
)
from tests.node.dispatcher.scenes import Scene, scene_of


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    """What lies between the nodes of a test."""
    async with open_memory_hub() as hub:
        yield hub


@pytest.fixture
async def scene(hub: MemoryHub) -> AsyncIterator[Scene]:
    """A scene with 16 slots."""
    async with scene_of(hub) as scene:
        yield scene
