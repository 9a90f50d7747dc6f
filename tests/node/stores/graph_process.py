"""Keeps graph after graph in a store, and says so, until it is killed: ``python -m … sqlite|files FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import trio

from node.interfaces import Change, Store
from node.stores.files import FilesStore
from node.stores.sqlite import SqliteStore
from node.telemetry import default_to_stdlib_logging
from node.testing import make_task
from tests.node.stores.lives import birth

GRAPH_TASKS = 40


def store_in(kind: str, folder: Path) -> Store:
    """Return the store of a kind in a folder."""
    return SqliteStore(folder / "tasks.db") if kind == "sqlite" else FilesStore(folder)


async def keep_on(store: Store) -> None:
    """Append graphs; each is a session of its own, and is told when it is saved."""
    saved = trio.Event()

    def committed(changes: Sequence[Change]) -> None:
        sys.stdout.write(f"{changes[0].record.task.session_id} {len(changes)}\n")
        sys.stdout.flush()
        saved.set()

    async with store.running(committed):
        for number in count():
            saved = trio.Event()
            store.append_new([birth(make_task(session_id=f"graph-{number}")) for _ in range(GRAPH_TASKS)])
            await saved.wait()


if __name__ == "__main__":
    default_to_stdlib_logging()
    trio.run(keep_on, store_in(sys.argv[1], Path(sys.argv[2])))
