"""The SQLite store: one file, nothing to start, and what is committed survives a crash.

- `store`: the seam `Store`;
- `writer`, `batch`: group commit, off the event loop;
- `thread`: where all that happens;
- `database`, `bulk`: the statements, in few steps;
- `columns`, `to_rows`, `from_rows`: what stands in the tables;
- `opening`, `integrity`, `files`: from a path to a connection that can be trusted;
- `migrations`, `schema/`: numbered SQL files.
"""

from node.stores.sqlite.integrity import find_faults
from node.stores.sqlite.migrations import Migration, planned_migrations
from node.stores.sqlite.opening import Synchronous, compact, open_connection
from node.stores.sqlite.store import SqliteStore

__all__ = [
    "Migration",
    "SqliteStore",
    "Synchronous",
    "compact",
    "find_faults",
    "open_connection",
    "planned_migrations",
]
