"""The store in a Redis server: the contract, the keys, two nodes on one server, a server that dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.interfaces import Store
from node.stores.redis import RedisStore
from node.testing import TEST_PEER, check_store
from tests.node.stores.redis_server import RedisServer, needs_redis, open_server

pytestmark = needs_redis


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own."""
    async with open_server(tmp_path) as running:
        yield running


async def test_it_keeps_the_contract_of_stores(server: RedisServer) -> None:
    """The Redis store passes the checker, and another one in its place finds what it has kept."""
    # covers REDIS-1, REDIS-28
    number = 0

    def fresh() -> Store:
        nonlocal number
        number += 1
        return RedisStore(server.settings(instance_name=f"test{number}:"), owner=TEST_PEER)

    def reopen(_store: Store) -> Store:
        return RedisStore(server.settings(instance_name=f"test{number}:"), owner=TEST_PEER)

    await check_store(fresh, reopen)
