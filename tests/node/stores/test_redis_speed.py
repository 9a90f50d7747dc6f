"""How fast a Redis store saves, beside the client library alone in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import coredis
import pytest
import trio

from node.interfaces import Change
from node.stores.redis import RedisStore, context_of
from node.testing import TEST_PEER, make_task
from tests.node.stores.histories import submitted
from tests.node.stores.redis_server import RedisServer, every_test_needs_redis, open_server

pytestmark = [*every_test_needs_redis, pytest.mark.slow]

TASKS = 4_000
IN_FLIGHT = 64
ROUNDS = 3
# Of what the client library reaches with as many saves in flight.
LEAST_RATIO = 0.5


async def bare_saves_a_second(server: RedisServer, value: bytes) -> float:
    """Save a value under many keys with the client alone, as many at once as the store has."""
    async with coredis.Redis("127.0.0.1", server.port) as client:
        numbers = iter(range(TASKS))

        async def save() -> None:
            for number in numbers:
                await client.set(f"bare{number}", value, ex=86_400)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(save)
        return TASKS / (time.perf_counter() - began)


async def saves_a_second(server: RedisServer) -> float:
    """Save as many tasks with a store, each new one when another is committed."""
    store = RedisStore(server.settings(), owner=TEST_PEER)
    waiting = iter([submitted(make_task(f"{number:0200}")) for number in range(TASKS)])
    done, saved = trio.Event(), 0

    def committed(changes: Sequence[Change]) -> None:
        nonlocal saved
        saved += len(changes)
        for _ in changes:
            if (change := next(waiting, None)) is not None:
                store.append((change,))
        if saved == TASKS:
            done.set()

    async with store.running(committed):
        began = time.perf_counter()
        for _ in range(IN_FLIGHT):
            store.append((next(waiting),))
        await done.wait()
        return TASKS / (time.perf_counter() - began)


async def test_a_store_saves_at_least_half_as_fast_as_the_client_alone(tmp_path: Path) -> None:
    """With its facts, its order and its checks; the best of some rounds each, on the same server."""
    async with open_server(tmp_path, "--appendfsync", "everysec") as server:
        value = context_of(submitted(make_task("0" * 200)).record, TEST_PEER).to_json()
        bare = max([await bare_saves_a_second(server, value) for _ in range(ROUNDS)])
        ours = max([await saves_a_second(server) for _ in range(ROUNDS)])
    assert ours >= LEAST_RATIO * bare, f"{ours:,.0f} saves/s, and {bare:,.0f}/s with the client alone"
