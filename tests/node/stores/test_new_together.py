"""New tasks that are appended together are on disk together, or not at all."""

# covers COORD-3

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.interfaces import Change
from node.stores.files import FilesStore
from node.stores.files.folder import TaskFolder
from node.stores.sqlite import SqliteStore
from node.testing import FakeSqliteDatabase, make_task
from protocol import PeertaskError, new_task_id
from tests.node.stores.graph_process import GRAPH_TASKS, store_in
from tests.node.stores.lives import birth, claim, completion
from tests.node.stores.task_files import ignore, loaded, running

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["sqlite", "files"])
async def test_a_process_that_is_killed_leaves_no_half_of_a_graph(tmp_path: Path, kind: str) -> None:
    """What it has told is there in whole, and so is all else that is there."""
    command = [sys.executable, "-m", "tests.node.stores.graph_process", kind, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        told += [line.split() for line in process.stdout if line.endswith("\n")]
    assert {size for _, size in told} == {str(GRAPH_TASKS)}
    store = store_in(kind, tmp_path)
    async with store.running(ignore):
        kept = Counter(record.task.session_id for record in await loaded(store))
    assert set(kept.values()) == {GRAPH_TASKS}
    assert {session for session, _ in told} <= set(kept)


async def test_files_of_a_graph_that_was_not_finished_are_removed(tmp_path: Path) -> None:
    """A note names them; what else lies there, and what the note has no business with, stays."""
    graph = [make_task() for _ in range(3)]
    store = FilesStore(tmp_path)
    async with running(store):
        store.append((birth(kept := make_task()),))
    folder = TaskFolder(tmp_path)
    paths = [folder.path(task.project, task.id) for task in graph]
    strange = tmp_path / "tasks" / "notes.json"
    strange.write_text("{}")

    def contents() -> Iterator[tuple[Path, bytes]]:
        yield paths[0], b"{}"
        yield paths[1], b"{}"
        raise OSError(28, "the disk is full")

    with pytest.raises(OSError, match="full"):
        folder.write_together(contents(), [*paths, strange])
    assert paths[1].exists()
    async with running(store):
        assert [record.id for record in await loaded(store)] == [kept.id]
    assert not any(path.exists() for path in paths)
    assert strange.exists()
    folder.undo()


async def test_a_group_of_files_that_is_tried_again_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails on the way, and then does not: everything is saved, and no note is left."""
    monkeypatch.setattr("node.stores.files.saving.FIRST_RETRY_S", 0.001)
    write, failures = TaskFolder.write, [OSError(28, "the disk is full")]

    def failing(self: TaskFolder, contents: Iterator[tuple[Path, bytes]]) -> None:
        write(self, [next(contents)] if failures else contents)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(TaskFolder, "write", failing)
    graph = [birth() for _ in range(3)]
    store = FilesStore(tmp_path)
    with capture_logs():
        async with running(store) as commits:
            store.append_new(graph)
            store.append(claim(graph[0]))
            await commits.wait_for(5)
    assert commits.changes == [*graph, *claim(graph[0])]
    async with running(store):
        assert len(await loaded(store)) == 3
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["default"]


async def test_a_graph_that_sqlite_cannot_save_in_whole_is_refused_in_whole(tmp_path: Path) -> None:
    """Another process has one of the tasks: none of the others is kept, and later tasks are."""
    path = tmp_path / "tasks.db"
    graph = [birth() for _ in range(300)]
    refused: list[tuple[Sequence[Change], PeertaskError]] = []
    ours, other = SqliteStore(path), SqliteStore(path)
    ours.on_refused(lambda changes, error: refused.append((changes, error)))
    async with running(ours) as commits:
        async with running(other):
            other.append((graph[150],))
        with capture_logs():
            ours.append_new(graph)
            ours.append((after := birth(),))
            await commits.wait_for(1)
        assert commits.changes == [after]
        assert {record.id for record in await loaded(ours)} == {graph[150].record.id, after.record.id}
    assert {changes[0].record.id for changes, _ in refused} == {change.record.id for change in graph}


async def test_a_graph_has_a_commit_of_its_own_in_sqlite() -> None:
    """What came before it and what comes after are in others."""
    store = FakeSqliteDatabase()
    before, graph, after = birth(), [birth() for _ in range(3)], birth()
    async with running(store) as commits:
        store.append((before,))
        store.append_new(graph)
        store.append(claim(graph[0]))
        store.append((after,))
        await commits.wait_for(7)
    assert commits.changes == [before, *graph, *claim(graph[0]), after]
    assert commits.calls == 3


@pytest.mark.parametrize("store", [FakeSqliteDatabase, lambda: FilesStore(Path("unused"))], ids=["sqlite", "files"])
async def test_a_store_that_is_not_open_takes_no_graph(store: object) -> None:
    """The error says so."""
    with pytest.raises(PeertaskError, match="is not open"):
        store().append_new([birth()])  # type: ignore[operator]


async def test_dependencies_of_a_graph_stand_in_their_table() -> None:
    """Whichever task comes first, the link is there; a finished and forgotten dependency takes its link along."""
    store = FakeSqliteDatabase()
    first = birth(make_task(id=new_task_id()))
    last = birth(make_task(depends_on=(first.record.id,), on_failed_dependency="wait", parent_id=first.record.id))
    async with running(store) as commits:
        store.append_new([last, first])
        await commits.wait_for(2)
        links = (
            "SELECT t.uuid, d.uuid FROM task_dependencies"
            " JOIN tasks t ON t.id = task_id JOIN tasks d ON d.id = depends_on"
        )
        assert store.connection.execute(links).fetchall() == [(last.record.id, first.record.id)]
        assert store.connection.execute("SELECT count(*) FROM awaited_dependencies").fetchone() == (0,)
        (loaded_last,) = [record for record in await loaded(store) if record.id == last.record.id]
        assert loaded_last.task == last.record.task
        started = claim(first)
        store.append(started)
        store.append(completion(started[-1]))
        store.forget([first.record.id])
        await store.number_of(last.record.id)
        assert store.connection.execute(links).fetchall() == []
