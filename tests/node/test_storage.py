"""Which store a node has, by its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import NodeConfig
from node.storage import SQLITE_FILE, left_behind, storage_of
from node.stores.files import FilesStore
from node.stores.memory import MemoryStore
from node.stores.redis import RedisStore
from node.stores.sqlite import SqliteStore
from node.testing import TEST_PEER
from protocol import ErrorCode, PeertaskError


@pytest.mark.parametrize(
    ("store", "kind", "place"),
    [
        ("memory", MemoryStore, ""),
        ("sqlite", SqliteStore, SQLITE_FILE),
        ("files", FilesStore, "tasks"),
        ("redis", RedisStore, "redis://localhost:6379/0 (lucia:)"),
    ],
)
def test_the_settings_name_the_store(tmp_path: Path, store: str, kind: type[object], place: str) -> None:
    """Nothing is opened, and checkpoints have a place in every data folder."""
    # covers REDIS-13, REDIS-14, REDIS-15, REDIS-16, REDIS-17
    config = NodeConfig.load(data=tmp_path, store=store, redis_instance_name="lucia:", environment={})
    storage = storage_of(config, TEST_PEER)
    assert isinstance(storage.store, kind)
    assert storage.place.endswith(place)
    assert storage.checkpoints is not None
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_a_folder_keeps_its_tasks_in_memory() -> None:
    """And has no place for checkpoints."""
    storage = storage_of(NodeConfig(), TEST_PEER)
    assert isinstance(storage.store, MemoryStore)
    assert storage.checkpoints is None


def test_a_wrong_setting_of_redis_is_named() -> None:
    """When the store is made, before anything is connected."""
    with pytest.raises(PeertaskError, match="task_ttl_hours") as refused:
        storage_of(NodeConfig(store="redis", redis_task_ttl_hours=-1), TEST_PEER)
    assert refused.value.code is ErrorCode.INVALID_CONFIG


def test_tasks_of_another_store_in_the_folder_are_found(tmp_path: Path) -> None:
    """Only where the store that is asked for has none: then somebody may miss them."""
    files = tmp_path / "tasks" / "default" / "task-default-x.json"
    database = tmp_path / SQLITE_FILE
    sqlite, in_files, memory = (
        NodeConfig(data=tmp_path, store="sqlite"),
        NodeConfig(data=tmp_path, store="files"),
        NodeConfig(data=tmp_path),
    )
    assert [left_behind(config) for config in (sqlite, in_files, memory, NodeConfig())] == [None] * 4
    files.parent.mkdir(parents=True)
    files.touch()
    assert left_behind(sqlite) == tmp_path / "tasks"
    database.touch()
    assert [left_behind(config) for config in (sqlite, in_files, memory)] == [None, None, database]
    files.unlink()
    assert left_behind(in_files) == database
