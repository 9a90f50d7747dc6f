"""The door of outside workers, over the stores that keep agents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from node.interfaces import Store
from node.stores.memory import MemoryStore
from node.testing import FakeSqliteDatabase, check_work_service
from tests.node.work_settings import work_setting

STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore, "sqlite": FakeSqliteDatabase}


@pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)
async def test_the_door_keeps_its_contract(make_store: Callable[[], Store]) -> None:
    """Agents, claims, leases and fencing are the same whatever keeps the tasks."""
    # covers COORD-4, COORD-6, COORD-21, COORD-22, COORD-23, COORD-24, COORD-30, COORD-31, COORD-49, COORD-58
    await check_work_service(lambda: work_setting(make_store()))
