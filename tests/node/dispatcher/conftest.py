"""What the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import (
    MemoryHub,
)
from tests.node.dispatcher.scenes import Scene, scene_of


@pytest.fixture
async def scene(hub: MemoryHub) -> AsyncIterator[Scene]:
    """A scene with 16 slots."""
    async with scene_of(hub) as scene:
        yield scene
