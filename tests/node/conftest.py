"""What the tests of nodes begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import MemoryHub, open_memory_hub


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    """What lies between the nodes of a test."""
    async with open_memory_hub() as hub:
        yield hub
