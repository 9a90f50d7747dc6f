"""What the SQLite store does with a file that is damaged, foreign, locked or out of reach: words, and no loss."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from node.interfaces import Change
from node.stores.sqlite import SqliteStore, opening
from node.stores.sqlite.files import companion, set_aside
from node.stores.sqlite.opening import open_connection
from node.testing import make_task
from protocol import ErrorCode, PeertaskError, TaskRecord
from tests.node.stores.lives import birth, life

TASKS = 200
ENDINGS = ("", "-wal", "-shm")
PAGE = 4096
# The first pages are the schema and where the tables begin; whoever loses one loses more.
ROOTS = 30


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


async def records_of(store: SqliteStore) -> list[TaskRecord]:
    """What is kept."""
    return [record async for record in store.load()]


async def fill(path: Path, tasks: int = TASKS) -> None:
    """Make a store with finished tasks."""
    store = SqliteStore(path)
    async with store.running(ignore):
        for _ in range(tasks):
            store.append(life())


async def refusal(store: SqliteStore) -> PeertaskError:
    """Why a store cannot be opened."""
    with pytest.raises(PeertaskError) as refused:
        async with store.running(ignore):
            pytest.fail("it was opened")
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert refused.value.remedy
    return refused.value


def spoil(path: Path, offset: int, length: int) -> None:
    """Write nonsense into the middle of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * length)


# --- settings --------------------------------------------------------------------------------------------------------


def pragma(connection: sqlite3.Connection, name: str) -> object:
    """A setting of a connection."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("synchronous", "number"), [("normal", 1), ("full", 2)])
def test_a_connection_has_the_settings_that_the_promises_need(
    tmp_path: Path, synchronous: opening.Synchronous, number: int
) -> None:
    """WAL lets readers and a writer work at once; foreign keys hold; a lock is waited for."""
    # covers COORD-10, COORD-39, COORD-57
    with closing(open_connection(tmp_path / "tasks.db", synchronous)) as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == number
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "busy_timeout") == opening.BUSY_TIMEOUT_MS
        assert connection.isolation_level is None


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    """Prompts and results are nobody else's business, also while they are in the WAL."""
    path = tmp_path / "tasks.db"
    store = SqliteStore(path)
    before = os.umask(0)
    try:
        async with store.running(ignore):
            store.append((birth(),))
            await records_of(store)
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"tasks.db": 0o600, "tasks.db-wal": 0o600, "tasks.db-shm": 0o600}


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that SQLite does not know would fail at the first task, and far from its cause."""
    monkeypatch.setattr(opening, "_OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(PeertaskError, match=r"peertask needs 99\.0\.0"):
        open_connection(tmp_path / "tasks.db")


# --- damaged files ---------------------------------------------------------------------------------------------------


async def test_a_damaged_file_is_set_aside_and_the_node_goes_on_with_the_rest(tmp_path: Path) -> None:
    """The damaged file is not written to, and the log says where it is, how much could be read, and what to do."""
    path = tmp_path / "tasks.db"
    await fill(path)
    spoil(path, ROOTS * PAGE, 3 * PAGE)
    damaged = path.read_bytes()
    store = SqliteStore(path)
    with capture_logs() as logged:
        async with store.running(ignore):
            rest = await records_of(store)
            store.append(life())
    assert 0 < len(rest) < TASKS
    assert len(await records_of(store)) == len(rest) + 1
    aside = tmp_path / "tasks.db.damaged"
    assert aside.read_bytes() == damaged
    (entry,) = logged
    assert (entry["log_level"], entry["store"], entry["set_aside"]) == ("error", str(path), str(aside))
    assert entry["tasks"] == len(rest)
    assert f"put it in the place of {path}" in entry["remedy"]
    assert {file.name for file in tmp_path.iterdir()} <= {"tasks.db", *(f"tasks.db.damaged{end}" for end in ENDINGS)}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_damaged_file_is_set_aside_with_its_wal_as_they_are(tmp_path: Path) -> None:
    """After a crash the newest changes are in the WAL only; what can be read of both is brought over."""
    path, crashed = tmp_path / "tasks.db", tmp_path / "crashed"
    crashed.mkdir()
    await fill(path)
    store = SqliteStore(path)
    async with store.running(ignore):
        for _ in range(3):
            store.append(life())
        assert len(await records_of(store)) == TASKS + 3
        for suffix in ("", "-wal"):
            companion(crashed / "tasks.db", suffix).write_bytes(companion(path, suffix).read_bytes())
    spoil(crashed / "tasks.db", (ROOTS - 8) * PAGE, 8 * PAGE)
    before = {suffix: companion(crashed / "tasks.db", suffix).read_bytes() for suffix in ("", "-wal")}
    with capture_logs():
        rest = await records_of(SqliteStore(crashed / "tasks.db"))
    assert 0 < len(rest) < TASKS + 3
    assert before == {suffix: companion(crashed / "tasks.db.damaged", suffix).read_bytes() for suffix in ("", "-wal")}


async def test_a_truncated_file_is_set_aside_too(tmp_path: Path) -> None:
    """A copy that was cut off, or a disk that was full under another program: told as damage, and kept."""
    path = tmp_path / "tasks.db"
    await fill(path)
    os.truncate(path, path.stat().st_size - 4 * PAGE + 100)
    store = SqliteStore(path)
    with capture_logs() as logged:
        assert len(await records_of(store)) > TASKS // 2
    assert (tmp_path / "tasks.db.damaged").exists()
    assert [entry["log_level"] for entry in logged] == ["error"]


async def test_a_second_damaged_file_does_not_overwrite_the_first(tmp_path: Path) -> None:
    """The next free number is taken."""
    path = tmp_path / "tasks.db"
    with capture_logs():
        for _ in range(2):
            await fill(path)
            spoil(path, ROOTS * PAGE, 3 * PAGE)
            await records_of(SqliteStore(path))
    names = {file.name for file in tmp_path.iterdir()}
    assert {"tasks.db", "tasks.db.damaged", "tasks.db.damaged.2"} <= names


def test_setting_aside_takes_the_wal_along(tmp_path: Path) -> None:
    """A database without its WAL is an older one."""
    path = tmp_path / "tasks.db"
    for suffix in ("", "-wal", "-shm"):
        companion(path, suffix).write_text(f"content{suffix}")
    companion(tmp_path / "tasks.db.damaged", "-wal").write_text("taken")
    aside = set_aside(path)
    assert aside == tmp_path / "tasks.db.damaged.2"
    assert [companion(aside, suffix).read_text() for suffix in ("", "-wal", "-shm")] == [
        "content",
        "content-wal",
        "content-shm",
    ]
    assert not path.exists()
    assert companion(tmp_path / "tasks.db.damaged", "-wal").read_text() == "taken"


async def test_a_damaged_file_that_cannot_be_set_aside_stays_where_it_is(tmp_path: Path) -> None:
    """Where the name cannot be changed the store is refused, with what to do by hand."""
    path = tmp_path / "tasks.db"
    await fill(path)
    spoil(path, ROOTS * PAGE, 3 * PAGE)
    damaged = path.read_bytes()
    taken = tmp_path / "elsewhere"
    taken.mkdir()
    link = taken / "tasks.db"
    link.symlink_to(path)
    companion(link, "-wal").mkdir()  # what is not a file cannot get a second name
    error = await refusal(SqliteStore(link))
    assert str(link) in error.message
    assert path.read_bytes() == damaged


async def test_a_wal_without_its_database_is_set_aside(tmp_path: Path) -> None:
    """SQLite would delete it; what is in it may be all that is left of the last hour."""
    path = tmp_path / "tasks.db"
    companion(path, "-wal").write_bytes(b"frames of a database that is gone")
    with capture_logs() as logged:
        assert await records_of(SqliteStore(path)) == []
    aside = companion(tmp_path / "tasks.db.damaged", "-wal")
    assert aside.read_bytes() == b"frames of a database that is gone"
    assert "nothing could be read" in logged[0]["event"]
    assert "its own content is gone" in logged[1]["reason"]


# --- files that are something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"Dear diary, " * 1000, b"SQLite format 3\x00 and no more"])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    """A wrong path must not cost anybody a file."""
    path = tmp_path / "tasks.db"
    path.write_bytes(content)
    error = await refusal(SqliteStore(path))
    assert "is not an SQLite database" in error.message
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["tasks.db"]


async def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Our tables do not go into a stranger's file."""
    path = tmp_path / "places.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE places (name TEXT)")
    content = path.read_bytes()
    error = await refusal(SqliteStore(path))
    assert "is the database of another program" in error.message
    assert path.read_bytes() == content


async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The system's reason stands in the message."""
    (tmp_path / "tasks.db").mkdir()
    error = await refusal(SqliteStore(tmp_path / "tasks.db"))
    assert "Is a directory" in error.message


# --- out of reach ----------------------------------------------------------------------------------------------------


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typing mistake makes no new folder."""
    error = await refusal(SqliteStore(tmp_path / "gone" / "tasks.db"))
    assert "No such file or directory" in error.message
    assert str(tmp_path / "gone") in error.remedy


async def test_a_file_that_another_process_keeps_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is waited for, and then told, with who may be the reason."""
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "tasks.db"
    await fill(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        error = await refusal(SqliteStore(path))
    assert "another process keeps it locked" in error.message
    assert len(await records_of(SqliteStore(path))) == 1


def fill_up(path: Path) -> None:
    """Take all room of a disk."""
    with path.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(PAGE))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    yield from mounted(tmp_path / "disk", "size=4m,mode=0700")


def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory for the length of a test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
async def test_a_folder_that_may_only_be_read_is_told(small_disk: Path) -> None:
    """Whether the file is there or not, the message says that the place is read-only."""
    await fill(small_disk / "tasks.db", 1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("tasks.db", "new.db"):
        error = await refusal(SqliteStore(small_disk / name))
        assert "its folder may only be read" in error.message
        assert str(small_disk / name) in error.message


@pytest.mark.root
async def test_a_disk_that_is_full_from_the_start_is_told(small_disk: Path) -> None:
    """A node on a full disk does not start, and says why."""
    fill_up(small_disk / "ballast")
    error = await refusal(SqliteStore(small_disk / "tasks.db"))
    assert "disk" in error.message


@pytest.mark.root
async def test_a_disk_that_fills_up_stops_nothing_but_saving(small_disk: Path) -> None:
    """The store says why it cannot save, keeps what came in line, can be read, and goes on when there is room."""
    path, ballast = small_disk / "tasks.db", small_disk / "ballast"
    store = SqliteStore(path)
    committed: list[Change] = []
    histories = [life(make_task(f"{number} " * 500)) for number in range(300)]
    with capture_logs() as logged, trio.fail_after(30):
        async with store.running(committed.extend):
            store.append(histories[0])
            assert len(await records_of(store)) == 1
            fill_up(ballast)
            for history in histories[1:]:
                store.append(history)
            kept = len(await records_of(store))
            failure = store.failure
            assert failure is not None
            assert failure.code is ErrorCode.STORE_FAILED
            assert f"the SQLite store {path} cannot be saved to: the disk is full" in str(failure)
            assert 1 <= kept < len(histories)
            ballast.unlink()
            while len(committed) < 4 * 150:
                await trio.sleep(0.01)
            assert store.failure is None
            store.forget([history[0].record.id for history in histories[:-5]])
    assert committed == [change for history in histories for change in history]
    assert [entry["log_level"] for entry in logged] == ["error", "info"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(await records_of(store)) == 5
