"""The tables of the SQLite store: what others find in them, what they refuse, and that queries use the indexes."""

from __future__ import annotations

import sqlite3

import pytest

from node.stores.sqlite import database as statements
from node.stores.sqlite.opening import connect
from node.testing import START_MS, TEST_PEER, FakeSqliteDatabase, make_task
from protocol import Cancelled, CancelRequested, Failed, Failure, TaskId, new_task_id
from protocol import ErrorCode as Code
from tests.node.stores.lives import birth, claim, completion, continued, life

NOW = "datetime('now')"


@pytest.fixture
def store() -> FakeSqliteDatabase:
    """An empty store."""
    return FakeSqliteDatabase()


@pytest.fixture
def database(store: FakeSqliteDatabase) -> sqlite3.Connection:
    """A connection to its database."""
    return store.connection


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


def columns(database: sqlite3.Connection, table: str) -> dict[str, tuple[str, bool, str | None, bool]]:
    """The type of each column, whether it must be given, its default, and whether it is part of the key."""
    rows = database.execute(f"PRAGMA table_info({table})").fetchall()
    return {name: (kind, bool(not_null), default, bool(key)) for _, name, kind, not_null, default, key in rows}


def rows(database: sqlite3.Connection, query: str) -> list[tuple[object, ...]]:
    """What a query yields."""
    return database.execute(query).fetchall()


# --- what is asked of the tables -------------------------------------------------------------------------------------

TEXT, REQUIRED = ("TEXT", False, None, False), ("TEXT", True, None, False)
SINCE = ("TEXT", True, NOW, False)
ASKED: dict[str, dict[str, tuple[str, bool, str | None, bool]]] = {
    "personas": {"name": REQUIRED, "definition": REQUIRED, "created_at": SINCE},
    "tasks": {
        "id": ("INTEGER", False, None, True),
        "title": REQUIRED,
        "description": REQUIRED,
        "persona_id": REQUIRED,
        "created_by": TEXT,
        "created_at": SINCE,
        "uuid": REQUIRED,
    },
    "task_status": {
        "task_id": ("INTEGER", False, None, True),
        "status": REQUIRED,
        "assigned_agent_id": TEXT,
        "claimed_at": TEXT,
        "lease_expires_at": TEXT,
    },
    "task_dependencies": {"task_id": ("INTEGER", True, None, True), "depends_on": ("INTEGER", True, None, True)},
    "agents": {
        "persona_id": REQUIRED,
        "registered_at": SINCE,
        "last_heartbeat": SINCE,
        "status": ("TEXT", True, "'active'", False),
    },
}


@pytest.mark.parametrize("table", ASKED)
def test_the_tables_have_the_columns_that_were_asked_for(database: sqlite3.Connection, table: str) -> None:
    """Names, types, what must be given and the defaults; further columns may stand beside them."""
    # covers COORD-14, COORD-34, COORD-35, COORD-36, COORD-37, COORD-38
    assert ASKED[table].items() <= columns(database, table).items()


@pytest.mark.parametrize("table", ["personas", "agents"])
def test_personas_and_agents_are_told_by_text(database: sqlite3.Connection, table: str) -> None:
    """Their key is a text that people choose."""
    # covers COORD-34, COORD-38
    kind, _, _, key = columns(database, table)["id"]
    assert (kind, key) == ("TEXT", True)


def test_integer_keys_are_not_used_again(database: sqlite3.Connection) -> None:
    """The key of a task that was forgotten does not become another one's."""
    # covers COORD-35
    (row,) = rows(database, "SELECT sql FROM sqlite_schema WHERE name = 'tasks'")
    assert "INTEGER PRIMARY KEY AUTOINCREMENT" in str(row[0])


def test_foreign_keys_lead_where_they_should(database: sqlite3.Connection) -> None:
    """Every reference of the schema, with what it refers to."""
    # covers COORD-35, COORD-36, COORD-37, COORD-38
    references = {
        (table, row[3], row[2])
        for table in (*ASKED, "events", "task_results")
        for row in rows(database, f"PRAGMA foreign_key_list({table})")
    }
    assert references == {
        ("tasks", "persona_id", "personas"),
        ("task_status", "task_id", "tasks"),
        ("task_dependencies", "task_id", "tasks"),
        ("task_dependencies", "depends_on", "tasks"),
        ("agents", "persona_id", "personas"),
        ("events", "task_id", "tasks"),
        ("task_results", "task_id", "tasks"),
    }


def test_foreign_keys_are_enforced_on_every_connection(database: sqlite3.Connection) -> None:
    """An agent of a persona that is not there is refused; so is a task."""
    # covers COORD-39
    assert rows(database, "PRAGMA foreign_keys") == [(1,)]
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        database.execute("INSERT INTO agents (id, persona_id) VALUES ('a', 'nobody')")
    database.execute("INSERT INTO personas (id, name, definition) VALUES ('p', 'P', 'does things')")
    database.execute("INSERT INTO agents (id, persona_id) VALUES ('a', 'p')")
    (agent,) = rows(database, "SELECT status, registered_at = last_heartbeat FROM agents")
    assert agent == ("active", 1)


def test_a_connection_of_ours_has_foreign_keys_on() -> None:
    """SQLite has them off unless a connection asks for them."""
    # covers COORD-39
    connection = connect(":memory:")
    assert rows(connection, "PRAGMA foreign_keys") == [(1,)]
    assert rows(connection, "PRAGMA busy_timeout") == [(5_000,)]
    connection.close()


async def test_a_status_outside_of_the_five_words_is_refused(store: FakeSqliteDatabase) -> None:
    """The check of the table holds for other programs too."""
    # covers COORD-36
    async with store.running(ignore):
        store.append((birth(),))
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        store.connection.execute("UPDATE task_status SET status = 'executing'")


# --- what stands in them ---------------------------------------------------------------------------------------------


async def test_each_status_has_its_word(store: FakeSqliteDatabase) -> None:
    """Seven statuses are told by five words; the rest of the row says which of two it is."""
    # covers COORD-36
    pending, claimed, executing, cancelling, complete, failed, cancelled = ([birth()] for _ in range(7))
    claimed += claim(claimed[-1])[:1]
    executing += claim(executing[-1])
    cancelling += claim(cancelling[-1])
    cancelling += continued(cancelling[-1], CancelRequested(cancelling[0].record.id, START_MS))
    complete += claim(complete[-1])
    complete += completion(complete[-1])
    failure = Failure.of(Code.DEADLINE_EXCEEDED, "late")
    failed += continued(failed[-1], Failed(failed[0].record.id, START_MS, 0, failure))
    cancelled += continued(cancelled[-1], Cancelled(cancelled[0].record.id, START_MS))
    histories = (pending, claimed, executing, cancelling, complete, failed, cancelled)
    async with store.running(ignore):
        for history in histories:
            store.append(history)
            store.hurry()
    words = rows(store.connection, "SELECT status FROM task_status ORDER BY task_id")
    assert [word for (word,) in words] == [
        "pending",
        "claimed",
        "in_progress",
        "in_progress",
        "completed",
        "failed",
        "failed",
    ]
    assert [record.status.value async for record in store.load()] == [
        history[-1].record.status.value for history in histories
    ]


async def test_a_claim_can_be_read_by_people(store: FakeSqliteDatabase) -> None:
    """Who has a task, since when, and until when, stands in the row as UTC text; a completion ends the lease."""
    # covers COORD-36
    changes = life()
    query = "SELECT assigned_agent_id, claimed_at, lease_expires_at FROM task_status"
    async with store.running(ignore):
        store.append(changes[:3])
        assert len([record async for record in store.load()]) == 1
        assert rows(store.connection, query) == [(TEST_PEER, "2027-01-15 08:00:00", "2027-01-15 08:00:30.001")]
        store.append(changes[3:])
    assert rows(store.connection, query) == [(TEST_PEER, "2027-01-15 08:00:00", None)]
    assert rows(store.connection, "SELECT title, created_by, created_at FROM tasks") == [
        ("a prompt", TEST_PEER, "2027-01-15 08:00:00")
    ]


@pytest.mark.parametrize(
    ("prompt", "metadata", "title"),
    [
        ("first line\nsecond line", {}, "first line"),
        ("p" * 500, {}, "p" * 80),
        ("a prompt", {"title": "A title"}, "A title"),
        ("a prompt", {"title": ["no", "text"]}, "a prompt"),
        ("", {}, ""),
    ],
)
async def test_a_title_is_named_by_the_requester_or_begins_the_prompt(
    store: FakeSqliteDatabase, prompt: str, metadata: dict[str, object], title: str
) -> None:
    """A list of tasks has one line for each."""
    # covers COORD-35
    async with store.running(ignore):
        store.append((birth(make_task(prompt, metadata=metadata)),))
    assert rows(store.connection, "SELECT title FROM tasks") == [(title,)]


async def test_a_persona_that_is_new_gets_a_row(store: FakeSqliteDatabase) -> None:
    """A task may name a persona that nobody has defined; its definition can be filled in, and is left alone."""
    # covers COORD-34
    async with store.running(ignore):
        store.append((birth(make_task(persona="reviewer")),))
        assert len([record async for record in store.load()]) == 1
        store.connection.execute("UPDATE personas SET definition = 'reviews' WHERE id = 'reviewer'")
        store.append((birth(make_task(persona="reviewer")),))
        store.append((birth(),))
    assert rows(store.connection, "SELECT id, name, definition FROM personas ORDER BY id") == [
        ("*", "anyone", "Takes tasks that name no persona."),
        ("reviewer", "reviewer", "reviews"),
    ]
    assert rows(store.connection, "SELECT persona_id FROM tasks") == [("reviewer",), ("reviewer",), ("*",)]


async def test_dependencies_are_linked_whichever_task_comes_first(store: FakeSqliteDatabase) -> None:
    """A task may depend on one that the node has not heard of; the link is made when that one comes."""
    # covers COORD-37
    early, late, never = make_task(), make_task(), new_task_id()
    waiting = make_task(depends_on=(early.id, late.id, never))
    async with store.running(ignore):
        for task in (early, waiting, late):
            store.append((birth(task),))
    links = "SELECT task_id, depends_on FROM task_dependencies ORDER BY depends_on"
    assert rows(store.connection, links) == [(2, 1), (2, 3)]
    assert rows(store.connection, "SELECT uuid, task_id FROM awaited_dependencies") == [(never, 2)]
    assert [record.task.depends_on async for record in store.load()][1] == (early.id, late.id, never)


async def test_forgetting_a_task_leaves_no_row_of_it(store: FakeSqliteDatabase) -> None:
    """What belongs to a task goes with it, and nothing of another."""
    # covers COORD-16
    kept, gone = life(), life(make_task(depends_on=(new_task_id(),), persona="reviewer"))
    linked = birth(make_task(depends_on=(gone[0].record.id,)))
    async with store.running(ignore):
        store.append(kept)
        store.append(gone)
        store.append((linked,))
        store.forget([gone[0].record.id])
    counts = {
        table: rows(store.connection, f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - names of this file
        for table in (*ASKED, "events", "task_results", "awaited_dependencies")
    }
    assert counts == {
        "personas": 2,
        "tasks": 2,
        "task_status": 2,
        "task_dependencies": 0,
        "agents": 0,
        "events": 5,
        "task_results": 1,
        "awaited_dependencies": 0,
    }


# --- queries ---------------------------------------------------------------------------------------------------------

PLANS = {
    "load": (statements.LOAD_PAGE, (0, 0, 10), "SEARCH tasks USING INDEX tasks_by_age"),
    "record": (statements.READ_RECORD, ("",), "SEARCH tasks USING INDEX sqlite_autoindex_tasks_1"),
    "facts": (statements.READ_FACTS, ("", 0, 10), "SEARCH events USING PRIMARY KEY (task_id=? AND seq>?)"),
    "open": (statements.OPEN_PAGE, (0, 10), "SEARCH task_status USING INDEX task_status_open"),
    "finished, as people ask for it": (
        "SELECT task_id FROM task_status WHERE finished_ms < ? ORDER BY finished_ms, task_id",
        (0,),
        "SEARCH task_status USING COVERING INDEX task_status_finished",
    ),
    "replace": (
        statements.REPLACE_STATUS.statement(2),
        (0,) * 20,
        "SEARCH task_status USING INTEGER PRIMARY KEY",
    ),
    "finish": (statements.FINISH_STATUS.statement(2), (0,) * 20, "SEARCH task_status USING INTEGER PRIMARY KEY"),
    "forget": (statements.FORGET.statement(2), ("", ""), "SEARCH tasks USING"),
    "facts of new tasks": (statements.INSERT_SUBMITTED, (0,), "SEARCH tasks USING INTEGER PRIMARY KEY"),
    "link": (statements.LINK_DEPENDENCIES, (0,), "SEARCH awaited USING COVERING INDEX awaited_dependencies_of"),
}


@pytest.mark.parametrize("query", PLANS)
def test_a_query_uses_its_index(database: sqlite3.Connection, query: str) -> None:
    """No query reads a whole table, or sorts what an index has in order."""
    # covers COORD-59
    sql, values, expected = PLANS[query]
    plan = [str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert any(step.startswith(expected) for step in plan), plan
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith(("SCAN task", "SCAN events"))], plan


async def test_a_row_that_this_version_does_not_know_is_named(store: FakeSqliteDatabase) -> None:
    """A record of another format, or one that was damaged by hand, is refused with its task, reason and remedy."""
    changes = life()
    task_id: TaskId = changes[0].record.id
    async with store.running(ignore):
        store.append(changes)
    for statement, reason in {
        "UPDATE task_status SET format = 2": "its rows have format 2",
        "UPDATE task_status SET format = 1, rest = '{'": "Expecting property name",
        """UPDATE task_status SET rest = '{"state": "asleep"}'""": "'asleep' is not a valid TaskStatus",
        "UPDATE tasks SET kind = '?'": "field kind",
    }.items():
        store.connection.execute(statement)
        with pytest.raises(Exception, match=f"task {task_id} cannot be read: ") as refused:
            assert [record async for record in store.load()] == []
        assert reason in str(refused.value)
        store.connection.execute("UPDATE task_status SET rest = NULL")


async def test_a_fact_that_cannot_be_read_is_named(store: FakeSqliteDatabase) -> None:
    """An unknown fact, a field that is missing, and a result that is gone are each told with their number."""
    changes = life()
    async with store.running(ignore):
        store.append(changes)
    for statement, reason in {
        "UPDATE events SET body = '{}' WHERE seq = 2": "fact 2 of task",
        "UPDATE events SET fact = 'Vanished' WHERE seq = 2": "'Vanished' is unknown",
        "UPDATE events SET fact = 'Started' WHERE seq = 2": "fact 4 of task",
        "UPDATE events SET fact = 'Failed' WHERE seq = 4": "the task has no failure",
    }.items():
        store.connection.execute("DELETE FROM task_results")
        store.connection.execute(statement)
        with pytest.raises(Exception, match="cannot be read") as refused:
            assert [fact async for fact in store.facts(changes[0].record.id)] == []
        assert reason in str(refused.value)
