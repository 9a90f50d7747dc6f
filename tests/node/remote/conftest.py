"""What the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import (
    MemoryHub,
)
from tests.node.remote.pairs import Pair, pair_on


@pytest.fixture
async def pair(hub: MemoryHub) -> AsyncIterator[Pair]:
    """A pair that runs."""
    async with pair_on(hub) as pair:
        yield pair
