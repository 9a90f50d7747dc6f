"""Which store a node has, by its settings. Each is imported when a node has it, because most take a while."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from node.checkpoints import CheckpointFolder
from node.config import NodeConfig
from node.interfaces import Store
from node.personas import PersonaSource
from node.stores.memory import MemoryAgents, MemoryStore
from node.work_service import AgentStore
from protocol import PeerId

if TYPE_CHECKING:
    from node.stores.redis import RedisSettings

SQLITE_FILE: Final = "tasks.sqlite3"
"""In the data folder."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a node keeps its tasks.

    Attributes:
        store: what is saved by itself.
        checkpoints: what programs save by name; None without a data folder.
        place: where the store is, for people; empty when it is not kept beyond this process.
    """

    store: Store
    checkpoints: CheckpointFolder | None = None
    place: str = ""

    def agents(self) -> AgentStore:
        """Return what keeps the agents: the store, when it can, else the memory of this process."""
        return self.store if isinstance(self.store, AgentStore) else MemoryAgents()


def storage_of(config: NodeConfig, owner: PeerId) -> Storage:
    """Return the store that the settings ask for; nothing is opened yet.

    Args:
        config: the settings, of which those about a store that is not asked for play no part.
        owner: the node whose tasks they are, where several share a server.

    Raises:
        PeertaskError: code INVALID_CONFIG, when an address or a value cannot be used, or a package is missing.
    """
    match config.store, config.data:
        case "files", Path() as folder:
            return _in_files(folder)
        case "sqlite", Path() as folder:
            return Storage(_in_sqlite(config, folder), _checkpoints(folder), str(folder / SQLITE_FILE))
        case "redis", folder:
            settings = _redis_settings(config)
            place = f"{settings.address} ({settings.instance_name})"
            return Storage(_in_redis(settings, owner), _checkpoints(folder) if folder else None, place)
        case _, folder:
            return Storage(MemoryStore(), _checkpoints(folder) if folder else None)


def persona_sources(store: Store, folder: Path | None) -> tuple[PersonaSource, ...]:
    """Return where definitions of personas are kept: the database, where there is one, and then files."""
    database = (store,) if isinstance(store, PersonaSource) else ()
    return database if folder is None else (*database, _persona_folder(folder))


def _persona_folder(folder: Path) -> PersonaSource:
    from node.stores.files.personas import PERSONAS_FOLDER, PersonaFolder  # noqa: PLC0415 - see above

    return PersonaFolder(folder / PERSONAS_FOLDER)


def left_behind(config: NodeConfig) -> Path | None:
    """Return where a data folder has tasks of another kind of store, where it has none of the one asked for."""
    if config.data is None:
        return None
    sqlite, files = config.data / SQLITE_FILE, next(config.data.glob("tasks/*/task-*.json"), None)
    match config.store:
        case "sqlite":
            return files.parents[1] if files is not None and not sqlite.exists() else None
        case "files":
            return sqlite if files is None and sqlite.exists() else None
        case _:
            return sqlite if sqlite.exists() else None


def _checkpoints(folder: Path) -> CheckpointFolder:
    from node.stores.files import FileCheckpoints, TaskFolder  # noqa: PLC0415 - see above

    return FileCheckpoints(TaskFolder(folder))


def _in_files(folder: Path) -> Storage:
    from node.stores.files import TASKS_FOLDER, FilesStore  # noqa: PLC0415 - see above

    store = FilesStore(folder)
    return Storage(store, store.checkpoints, str(folder / TASKS_FOLDER))


def _in_sqlite(config: NodeConfig, folder: Path) -> Store:
    from node.stores.sqlite import SqliteStore  # noqa: PLC0415 - see above

    return SqliteStore(folder / SQLITE_FILE, synchronous=config.synchronous)


def _redis_settings(config: NodeConfig) -> RedisSettings:
    from node.stores.redis import RedisSettings  # noqa: PLC0415 - see above

    return RedisSettings(
        connection_string=config.redis_connection_string,
        instance_name=config.redis_instance_name,
        task_ttl_hours=config.redis_task_ttl_hours,
        connect_retry_count=config.redis_connect_retry_count,
        connect_timeout_ms=config.redis_connect_timeout_ms,
    )


def _in_redis(settings: RedisSettings, owner: PeerId) -> Store:
    from node.stores.redis import RedisStore  # noqa: PLC0415 - see above

    return RedisStore(settings, owner=owner)
