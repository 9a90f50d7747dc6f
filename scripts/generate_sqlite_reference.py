"""Writes the tables in docs/reference/sqlite.md from node/stores/sqlite/schema; --check only compares."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing

from generated_part import write_generated_part

from node.stores.sqlite.migrations import known_migrations, migrate
from node.stores.sqlite.opening import connect

_COLUMN_COMMENT = re.compile(r"^ +(\w+) .*?-- (.+)$", re.MULTILINE)
_ADDED_COMMENT = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+) .*; -- (.+)$", re.MULTILINE)
_TABLE_COMMENT = re.compile(r"((?:^-- .*\n)+)CREATE TABLE (\w+)", re.MULTILINE)


def describe_schema() -> str:
    """Return a section for each table of a database that had all migrations, and one for what stands beside them."""
    with closing(connect(":memory:")) as database:
        migrate(database, ":memory:")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return "\n".join([f"`PRAGMA user_version` is {version}.", *_tables(database), *_indexes(database)])


def _tables(database: sqlite3.Connection) -> Iterator[str]:
    meanings = {
        name: " ".join(line.removeprefix("-- ") for line in comment.splitlines())
        for migration in known_migrations()
        for comment, name in _TABLE_COMMENT.findall(migration.sql)
    }
    tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    for name, sql in database.execute(tables):
        yield f"\n## `{name}`\n"
        if name in meanings:
            yield f"{meanings[name]}\n"
        yield "| column | type | default | refers to | meaning |\n|---|---|---|---|---|"
        yield from _columns(database, name, sql)


def _columns(database: sqlite3.Connection, table: str, sql: str) -> Iterator[str]:
    comments = dict(_COLUMN_COMMENT.findall(sql))
    for migration in known_migrations():
        comments |= {name: text for altered, name, text in _ADDED_COMMENT.findall(migration.sql) if altered == table}
    references = {
        column: f"`{other}.{to}`"
        for _, _, other, column, to, *_ in database.execute(f"PRAGMA foreign_key_list({table})")
    }
    for _, name, kind, required, default, key in database.execute(f"PRAGMA table_info({table})"):
        shape = " ".join([kind, *["NOT NULL"] * required, *["KEY"] * bool(key)])
        meaning = comments.get(name, "")
        yield f"| `{name}` | {shape} | {_code(default)} | {references.get(name, '')} | {meaning} |"


def _indexes(database: sqlite3.Connection) -> Iterator[str]:
    yield "\n## Indexes and triggers\n\n```sql"
    for (sql,) in database.execute(
        "SELECT sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid"
    ):
        yield f"{sql};"
    yield "```"


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`"


if __name__ == "__main__":
    sys.exit(write_generated_part("docs/reference/sqlite.md", "generate_sqlite_reference.py", describe_schema()))
