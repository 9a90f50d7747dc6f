"""What the tests of this folder begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from node.testing import HeldStore
from tests.node.manager.bench import Bench, running


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A manager with a memory store."""
    async with running() as bench:
        yield bench


@pytest.fixture
async def held() -> AsyncIterator[tuple[Bench, HeldStore]]:
    """A manager with a store that commits when the test says so."""
    store = HeldStore()
    async with running(store) as bench:
        store.hold()
        yield bench, store
