"""Which store a node has, by its settings. Each is imported when a node has it, because most take a while."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.checkpoints import CheckpointFolder
from node.config import NodeConfig
from node.interfaces import Store
from node.stores.memory import MemoryStore

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


def storage_of(config: NodeConfig) -> Storage:
    """Return the store that the settings ask for; nothing is opened yet."""
    match config.store, config.data:
        case "files", Path() as folder:
            return _in_files(folder)
        case "sqlite", Path() as folder:
            return Storage(_in_sqlite(config, folder), _checkpoints(folder), str(folder / SQLITE_FILE))
        case _, folder:
            return Storage(MemoryStore(), _checkpoints(folder) if folder else None)


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
