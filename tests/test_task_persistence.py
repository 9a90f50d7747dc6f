"""Checkpoints: tasks in files, saved and put back by name, in seven groups."""

# covers FILE-33

from __future__ import annotations

import json
import ntpath
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.checkpoints import EngineError, EngineErrorCode
from node.feed import Feed
from node.interfaces import Store
from node.manager import TaskManager, _extract_project_id
from node.stores.files import FileCheckpoints, FilesStore, TaskFolder
from node.stores.memory import MemoryStore
from node.testing import FakeClock, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    Failed,
    Failure,
    PeerId,
    Progressed,
    Released,
    Started,
    Task,
    TaskRecord,
    TaskResult,
    TaskStatus,
    new_task_id,
)
from protocol import ErrorCode as Code
from tests.protocol.strategies import tasks

PROJECT = Path(__file__).parents[1]
OWN = PeerId("own")
UUID = "0b0c9d44-2f1e-4c3a-8d7e-3f2a1b0c9d44"


@asynccontextmanager
async def managing(folder: Path | None, store: Store | None = None) -> AsyncIterator[TaskManager]:
    """A manager that runs, with checkpoints in a folder and its tasks in memory unless a store is given."""
    checkpoints = None if folder is None else FileCheckpoints(TaskFolder(folder))
    manager = TaskManager(store or MemoryStore(), FakeClock(), Feed(), own_id=OWN, checkpoints=checkpoints)
    with trio.fail_after(20):
        async with manager.running():
            yield manager


def execute(manager: TaskManager, task: Task) -> None:
    """Take a task in and begin to execute it."""
    manager.submit(task, requester=OWN, target=None)
    manager.apply(Claimed(task.id, 5, 1, OWN, 30_000), Started(task.id, 6, 1))


def complete(manager: TaskManager, task: Task) -> None:
    """Bring a task to its result."""
    execute(manager, task)
    manager.apply(Progressed(task.id, 7, 1, 0.5, "half", 30_000))
    manager.apply(Completed(task.id, 8, 1, TaskResult(task.id, "done", 3)))


def path_of(folder: Path, task: Task) -> Path:
    """Where the checkpoint of a task is."""
    return folder / "tasks" / task.project / f"task-{task.project}-{task.id}.json"


def failed(pair: tuple[object, EngineError | None]) -> EngineError:
    """Return the error of a pair that has no value."""
    value, error = pair
    assert value is None
    assert error is not None
    return error


async def checkpoint(folder: Path, task: Task) -> Path:
    """Save a task that executes in one manager, and return the file."""
    async with managing(folder) as manager:
        execute(manager, task)
        path, error = await manager.save_checkpoint(task.id)
        assert error is None
        assert path is not None
        return path


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what lies in a folder, with sizes and times of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# What a task had before there were checkpoints.
FIELDS = sorted(
    (
        *("id", "prompt", "sender", "timestamp", "kind", "params", "priority", "project", "session_id", "persona"),
        *("depends_on", "on_failed_dependency", "parent_id", "timeout_ms", "retry", "metadata"),
    )
)

# --- 1: round trip ---------------------------------------------------------------------------------------------------


@given(tasks)
def test_a_task_comes_back_from_its_dict_as_it_was(task: Task) -> None:
    """`to_dict` is the JSON-mode dump with every field, and `from_dict` checks and rebuilds it, through text too."""
    # covers FILE-5, FILE-6, FILE-7, FILE-8
    shape = task.to_dict()
    assert Task.from_dict(json.loads(json.dumps(shape))) == task
    assert sorted(shape) == sorted(Task.__dataclass_fields__) == FIELDS
    assert isinstance(Task.__dict__["from_dict"], classmethod)


@pytest.mark.parametrize("by", ["uuid", "reference"])
async def test_a_task_that_was_under_way_goes_on_in_another_manager(tmp_path: Path, by: str) -> None:
    """A checkpoint of an executing task, loaded after a crash: the same task, in the map, planned again."""
    # covers FILE-1, FILE-2, FILE-14, FILE-16, FILE-20, FILE-21, FILE-22, FILE-24
    task = make_task("long work", project="alpha-2", params={"x": [1, None]}, session_id="s", depends_on=())
    path = await checkpoint(tmp_path, task)
    assert json.loads(path.read_bytes())["record"]["task"]["prompt"] == "long work"
    async with managing(tmp_path) as manager:
        assert manager.find_task(task.id) is None
        assert await manager.load_checkpoint(task.id if by == "uuid" else task.reference) == (task, None)
        record = manager.get_task(task.id)
        assert record.task == task
        assert (record.status, record.attempt, record.lost_leases) == (TaskStatus.PENDING, 1, 1)
        assert manager.open_tasks == 1


async def test_a_task_that_is_complete_comes_back_with_its_result(tmp_path: Path) -> None:
    """A result that nobody had fetched is still there; the memory store keeps no facts of it, and needs none."""
    # covers FILE-2, FILE-24
    task = make_task()
    async with managing(tmp_path) as manager:
        complete(manager, task)
        await manager.save_checkpoint(task.id)
    async with managing(tmp_path) as manager:
        assert await manager.load_checkpoint(task.id) == (task, None)
        assert manager.get_result(task.id) == TaskResult(task.id, "done", 3)
        assert manager.get_task(task.id).holder == OWN
        assert manager.open_tasks == 0


@pytest.mark.parametrize("durable", [True, False], ids=["with all facts", "without those of ended tasks"])
async def test_tasks_in_every_state_come_back(tmp_path: Path, durable: bool) -> None:  # noqa: FBT001 - of a table
    """Pending, claimed, released, cancelling, failed and cancelled: each is again what it can be."""
    # covers FILE-2, FILE-24
    store = FilesStore(tmp_path / "store") if durable else None
    made = [make_task(str(number)) for number in range(6)]
    _, claimed, released, cancelling, broken, cancelled = made
    async with managing(tmp_path, store) as manager:
        for task in made:
            manager.submit(task, requester=OWN, target=OWN, deadline=10**13)
        for task in (claimed, released, cancelling, broken):
            manager.apply(Claimed(task.id, 5, 1, OWN, 30_000))
        manager.apply(Started(released.id, 6, 1), Released(released.id, 6, 1, Code.EXECUTION_FAILED, "again", 9))
        manager.apply(CancelRequested(cancelling.id, 6))
        manager.apply(Failed(broken.id, 6, 1, Failure.of(Code.EXECUTION_FAILED, "no")))
        manager.apply(Cancelled(cancelled.id, 6))
        await until_saved(manager, made)
        for task in made:
            assert await manager.save_checkpoint(task.id) == (path_of(tmp_path, task), None)
    async with managing(tmp_path) as manager:
        for task in made:
            assert await manager.load_checkpoint(task.id) == (task, None)
        records = [manager.get_task(task.id) for task in made]
    assert [record.status.value for record in records] == [
        *("pending", "pending", "pending"),
        *("cancelled", "failed", "cancelled"),
    ]
    assert all((record.target, record.deadline) == (OWN, 10**13) for record in records)
    assert [record.failures for record in records] == [0, 0, 1, 0, 0, 0]
    assert [record.failure.code.value for record in records[3:] if record.failure] == [
        *("CANCELLED", "EXECUTION_FAILED", "CANCELLED"),
    ]


async def until_saved(manager: TaskManager, made: list[Task]) -> None:
    """Wait until the store has saved all that is known of some tasks."""
    while any(manager.find_task(task.id) is not manager.latest(task.id) for task in made):
        await trio.sleep(0.001)


async def test_a_task_that_is_known_stays_as_it_is(tmp_path: Path) -> None:
    """Loading an old checkpoint does not undo what has happened since."""
    task = make_task()
    async with managing(tmp_path) as manager:
        execute(manager, task)
        await manager.save_checkpoint(task.id)
        manager.apply(Completed(task.id, 8, 1, TaskResult(task.id, "done", 3)))
        assert await manager.load_checkpoint(task.id) == (task, None)
        assert manager.get_task(task.id).status is TaskStatus.COMPLETE


async def test_another_task_under_the_same_uuid_is_refused(tmp_path: Path) -> None:
    """A UUID names one task; the one that is known stays."""
    task = make_task("one")
    await checkpoint(tmp_path, task)
    async with managing(tmp_path) as manager:
        manager.submit(make_task("another", id=task.id), requester=OWN, target=None)
        error = failed(await manager.load_checkpoint(task.id))
        assert error.code is EngineErrorCode.UNKNOWN
        assert error.details["error"] == "CONFLICT"
        assert manager.get_task(task.id).task.prompt == "another"


async def test_a_full_node_says_so(tmp_path: Path) -> None:
    """A manager that is stopping takes no task from a file either, unless it has ended."""
    # covers FILE-22
    going_on, ended = make_task(), make_task()
    async with managing(tmp_path) as manager:
        execute(manager, going_on)
        complete(manager, ended)
        for task in (going_on, ended):
            await manager.save_checkpoint(task.id)
    async with managing(tmp_path) as manager:
        manager.draining = True
        assert failed(await manager.load_checkpoint(going_on.id)).details["error"] == "DRAINING"
        assert await manager.load_checkpoint(ended.id) == (ended, None)


async def test_an_older_checkpoint_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    """Saving twice, or from a node that knows less, keeps the file that knows most."""
    task = make_task()
    async with managing(tmp_path) as manager:
        execute(manager, task)
        manager.apply(Completed(task.id, 8, 1, TaskResult(task.id, "done", 3)))
        await manager.save_checkpoint(task.id)
    newest = path_of(tmp_path, task).read_bytes()
    await checkpoint(tmp_path, task)
    assert path_of(tmp_path, task).read_bytes() == newest


async def test_the_files_of_a_files_store_are_checkpoints(tmp_path: Path) -> None:
    """With that store every task has its checkpoint at any time, and a folder is moved by copying it."""
    # covers FILE-1, FILE-3
    task = make_task()
    store = FilesStore(tmp_path)
    manager = TaskManager(store, FakeClock(), Feed(), own_id=OWN, checkpoints=store.checkpoints)
    with trio.fail_after(20):
        async with manager.running():
            complete(manager, task)
            await manager.wait(task.id)
            before = path_of(tmp_path, task).read_bytes()
            assert await manager.save_checkpoint(task.id) == (path_of(tmp_path, task), None)
            assert path_of(tmp_path, task).read_bytes() == before
    async with managing(tmp_path) as other:
        assert await other.load_checkpoint(task.id) == (task, None)
        assert other.get_task(task.id) == (await records_of(store))[0]


async def records_of(store: Store) -> list[TaskRecord]:
    """The records that a store has kept."""
    return [record async for record in store.load()]


async def test_a_loaded_task_is_saved_in_a_durable_store_before_it_is_told(tmp_path: Path) -> None:
    """A checkpoint that was loaded needs no file any more: the store of the node has it."""
    # covers FILE-2, FILE-24
    task = make_task()
    await checkpoint(tmp_path / "from", task)
    store = FilesStore(tmp_path / "to")
    async with managing(tmp_path / "from", store) as manager:
        assert await manager.load_checkpoint(task.id) == (task, None)
        assert path_of(tmp_path / "to", task).exists()
    assert [record.task for record in await records_of(store)] == [task]


# --- 2: directory creation -------------------------------------------------------------------------------------------


async def test_saving_makes_the_folders(tmp_path: Path) -> None:
    """The first checkpoint of a project finds or makes ``tasks/{project}``, private, and returns the path."""
    # covers FILE-15, FILE-32
    task = make_task(project="new-project")
    folder = tmp_path / "not" / "there"
    path = await checkpoint(folder, task)
    assert path == folder / "tasks" / "new-project" / f"task-new-project-{task.id}.json"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_folder_that_cannot_be_made_is_an_error_that_is_returned(tmp_path: Path) -> None:
    """The error has the path in its details, and the reason in its message."""
    # covers FILE-17, FILE-19
    (tmp_path / "tasks").write_text("in the way", "utf-8")
    task = make_task()
    async with managing(tmp_path) as manager:
        execute(manager, task)
        error = failed(await manager.save_checkpoint(task.id))
    assert error.code is EngineErrorCode.UNKNOWN
    assert error.details == {"path": str(path_of(tmp_path, task)), "error": "STORE_FAILED"}
    assert "exists" in error.message or "directory" in error.message


async def test_a_strange_file_in_the_place_of_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    """Somebody may want to know what it was."""
    # covers FILE-17, FILE-19
    task = make_task()
    path_of(tmp_path, task).parent.mkdir(parents=True)
    path_of(tmp_path, task).write_text("mine", "utf-8")
    async with managing(tmp_path) as manager:
        execute(manager, task)
        error = failed(await manager.save_checkpoint(task.id))
    assert error.code is EngineErrorCode.JSON
    assert error.details["path"] == str(path_of(tmp_path, task))
    assert path_of(tmp_path, task).read_text("utf-8") == "mine"


# --- 3: missing files ------------------------------------------------------------------------------------------------


async def test_a_missing_task_is_an_error_that_is_returned(tmp_path: Path) -> None:
    """Neither saving what the node does not know, nor loading what has no file, raises anything."""
    # covers FILE-17, FILE-18, FILE-19, FILE-22, FILE-23
    task_id = new_task_id()
    reference = f"task-alpha-{task_id}"
    expected = str(tmp_path / "tasks" / "alpha" / f"{reference}.json")
    async with managing(tmp_path) as manager:
        for function in (manager.save_checkpoint, manager.load_checkpoint, manager.get_task_metadata):
            error = failed(await function(reference))
            assert error.code is EngineErrorCode.UNKNOWN
            assert error.details == {"path": expected, "error": "NOT_FOUND"}
            assert task_id in error.message
            assert failed(await function(task_id)).details["error"] == "NOT_FOUND"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "no id", "task-alpha-7", f"task-../../etc-{UUID}", f"task-a/b-{UUID}", "task-x\0y"]
)
async def test_a_name_of_no_task_is_an_error_that_is_returned(tmp_path: Path, name: str) -> None:
    """The path in the details stays within the folder, whatever the text is."""
    # covers FILE-13, FILE-17, FILE-22, FILE-23
    async with managing(tmp_path) as manager:
        for function in (manager.save_checkpoint, manager.load_checkpoint, manager.get_task_metadata):
            error = failed(await function(name))
            assert error.code is EngineErrorCode.VALIDATION
            assert "names no task" in error.message
            assert Path(error.details["path"]) == tmp_path / "tasks" / "default"


async def test_a_node_without_a_folder_says_so() -> None:
    """A program that embeds a node without a data folder gets an error, and an empty list."""
    # covers FILE-17, FILE-22, FILE-25
    task = make_task()
    async with managing(None) as manager:
        execute(manager, task)
        for function in (manager.save_checkpoint, manager.load_checkpoint, manager.get_task_metadata):
            error = failed(await function(task.id))
            assert "no data folder" in error.message
            assert error.details["error"] == "STORE_FAILED"
            assert failed(await function("x")).details["path"] == "tasks/default"
        assert await manager.list_tasks("default") == []


# --- 4: corrupt JSON -------------------------------------------------------------------------------------------------

CORRUPT: dict[str, tuple[bytes, EngineErrorCode]] = {
    "empty": (b"", EngineErrorCode.JSON),
    "cut off": (b'{"format": "peertask task", "version": 1, "record": {"atte', EngineErrorCode.JSON),
    "not text": (b"\x80\x81", EngineErrorCode.JSON),
    "foreign": (b'{"a": 1}', EngineErrorCode.VALIDATION),
    "newer": (b'{"format": "peertask task", "version": 99, "record": {}}', EngineErrorCode.VALIDATION),
    "no task": (b'{"format": "peertask task", "version": 1, "record": {}}', EngineErrorCode.VALIDATION),
}


@pytest.mark.parametrize(("content", "code"), CORRUPT.values(), ids=CORRUPT)
async def test_a_corrupt_file_is_an_error_that_is_returned(
    tmp_path: Path, content: bytes, code: EngineErrorCode
) -> None:
    """JSON for what is no JSON, VALIDATION for what is no task; the file and the map stay as they are."""
    # covers FILE-20, FILE-22, FILE-23, FILE-31
    task = make_task()
    path = await checkpoint(tmp_path, task)
    path.write_bytes(content)
    async with managing(tmp_path) as manager:
        for function in (manager.load_checkpoint, manager.get_task_metadata):
            error = failed(await function(task.id))
            assert error.code is code
            assert error.details["path"] == str(path)
            assert str(path) in error.message
        assert manager.find_task(task.id) is None
    assert path.read_bytes() == content


async def test_facts_that_do_not_follow_from_each_other_are_an_error(tmp_path: Path) -> None:
    """A history that the table of transitions does not allow was written by no node."""
    # covers FILE-20, FILE-23
    task = make_task()
    path = await checkpoint(tmp_path, task)
    document = json.loads(path.read_bytes())
    document["facts"][1]["attempt"] = 7
    path.write_text(json.dumps(document), "utf-8")
    async with managing(tmp_path) as manager:
        error = failed(await manager.load_checkpoint(task.id))
        assert error.code is EngineErrorCode.VALIDATION
        assert error.details == {"path": str(path), "error": "ILLEGAL_TRANSITION"}
        assert manager.open_tasks == 0


async def test_a_file_that_cannot_be_read_is_an_error_that_is_returned(tmp_path: Path) -> None:
    """The code is UNKNOWN, and the message says what the system said."""
    # covers FILE-22, FILE-23
    task = make_task()
    path = await checkpoint(tmp_path, task)
    path.unlink()
    path.symlink_to(path.name)
    async with managing(tmp_path) as manager:
        error = failed(await manager.load_checkpoint(task.reference))
        assert error.code is EngineErrorCode.UNKNOWN
        assert "cannot be read: Too many levels of symbolic links" in error.message


async def test_a_folder_in_the_place_of_a_file_is_an_error_that_is_returned(tmp_path: Path) -> None:
    """Reading neither fails with a traceback nor waits for ever."""
    # covers FILE-22
    task, piped = make_task(), make_task()
    path_of(tmp_path, task).mkdir(parents=True)
    os.mkfifo(path_of(tmp_path, piped))
    async with managing(tmp_path) as manager:
        for named in (task, piped):
            assert "not a file" in failed(await manager.load_checkpoint(named.reference)).message


# --- 5: listing ------------------------------------------------------------------------------------------------------


async def test_a_project_without_a_folder_has_an_empty_list(tmp_path: Path) -> None:
    """Nothing there is no error, and asking makes nothing."""
    # covers FILE-4, FILE-25, FILE-27, FILE-28
    async with managing(tmp_path / "data") as manager:
        for project in ("alpha", "", "../..", "CON", "a/b", "x" * 500, "\0"):
            assert await manager.list_tasks(project) == []
    assert not (tmp_path / "data").exists()


async def test_the_tasks_of_a_project_are_listed_sorted(tmp_path: Path) -> None:
    """The ids of those that have a file, in order, of this project only; nothing is changed, and no file is read."""
    # covers FILE-4, FILE-26, FILE-28
    alpha = [make_task(project="alpha") for _ in range(5)]
    for task in (*alpha, make_task(project="alpha-2"), make_task()):
        await checkpoint(tmp_path, task)
    path_of(tmp_path, alpha[0]).write_text("corrupt", "utf-8")
    (tmp_path / "tasks" / "alpha" / "notes.txt").write_text("mine", "utf-8")
    before = snapshot(tmp_path)
    async with managing(tmp_path) as manager:
        assert await manager.list_tasks("alpha") == sorted(task.id for task in alpha)
        assert len(await manager.list_tasks("alpha-2")) == len(await manager.list_tasks("default")) == 1
        assert await manager.checkpoints.list_tasks("alpha") == await manager.list_tasks("alpha")
        assert manager.list_tasks() == []
    assert snapshot(tmp_path) == before


async def test_projects_that_share_the_folder_default_are_told_apart(tmp_path: Path) -> None:
    """A project whose name is no safe folder has its own list."""
    # covers FILE-4, FILE-13, FILE-26
    device, plain = make_task(project="CON"), make_task()
    for task in (device, plain):
        await checkpoint(tmp_path, task)
    async with managing(tmp_path) as manager:
        assert await manager.list_tasks("CON") == [device.id]
        assert await manager.list_tasks("default") == [plain.id]
        assert await manager.load_checkpoint(device.id) == (device, None)
        assert await manager.load_checkpoint(plain.reference) == (plain, None)


# --- 6: metadata extraction ------------------------------------------------------------------------------------------


async def test_metadata_are_five_fields(tmp_path: Path) -> None:
    """Which task, how it stands, of which pipeline, and two times: nothing else."""
    # covers FILE-3, FILE-29
    task = make_task(metadata={"pipeline_id": "p-1"})
    async with managing(tmp_path) as manager:
        execute(manager, task)
        await manager.save_checkpoint(task.id)
        record = manager.get_task(task.id)
        assert await manager.get_task_metadata(task.id) == (
            {
                "task_id": task.id,
                "status": "executing",
                "pipeline_id": "p-1",
                "created_at": record.created_at,
                "updated_at": 6,
            },
            None,
        )


async def test_metadata_come_without_building_the_task(tmp_path: Path) -> None:
    """A task that would not pass the check is described all the same, and nothing is put into the map."""
    # covers FILE-30
    task = make_task()
    path = await checkpoint(tmp_path, task)
    document: dict[str, Any] = json.loads(path.read_bytes())
    document["record"]["task"]["priority"] = "highest"
    path.write_text(json.dumps(document), "utf-8")
    async with managing(tmp_path) as manager:
        metadata, error = await manager.get_task_metadata(task.id)
        assert error is None
        assert metadata is not None
        assert metadata["pipeline_id"] is None
        assert failed(await manager.load_checkpoint(task.id)).code is EngineErrorCode.VALIDATION
        assert manager.find_task(task.id) is None


# --- 7: project-id parsing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_id", "project"),
    [
        (f"task-alpha-{UUID}", "alpha"),
        (f"task-alpha-beta-2-{UUID}", "alpha-beta-2"),
        (f"task-{UUID}-{UUID}", UUID),
        (f"task-v1.2_x-{UUID}", "v1.2_x"),
        (f"task-task-{UUID}", "task"),
        (f"task-a--b-{UUID}", "a--b"),
        (f"task-alpha-{UUID.upper()}", "alpha"),
    ],
)
def test_the_project_stands_between_task_and_uuid(task_id: str, project: str) -> None:
    """Also when it has dashes itself."""
    # covers FILE-9, FILE-10, FILE-12
    assert _extract_project_id(task_id) == project


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        UUID,
        "task-",
        "task-alpha",
        f"task-{UUID}",
        f"task--{UUID}",
        f"alpha-{UUID}",
        "task-alpha-0b0c9d44",
        f"task-alpha-{UUID}x",
        f" task-alpha-{UUID}",
        f"task-alpha-{UUID}\n",
    ],
)
def test_a_malformed_id_belongs_to_default(task_id: str) -> None:
    """What has no project in its place is in the project that everything without one is in."""
    # covers FILE-11
    assert _extract_project_id(task_id) == "default"


UNSAFE = (
    *(
        "..",
        ".",
        "../../etc",
        "a/b",
        "a\\b",
        "/etc",
        "C:",
        "C:\\x",
        "~",
        "-x",
        ".hidden",
        "a.",
        "a ",
        " a",
        "a\n",
        "\0",
    ),
    *("CON", "con", "PRN", "aux", "NUL", "nul.txt", "COM1", "com9.a.b", "LPT0", "CONIN$", "a*b", "a?b", 'a"b', "a|b"),
    *("x" * 129, "ünïcode", "\u202ea", "%2e%2e"),
)


@pytest.mark.parametrize("project", UNSAFE)
def test_a_project_that_is_unsafe_in_a_path_counts_as_default(project: str) -> None:
    """Traversal, separators, devices of Windows, hidden and over-long names go nowhere."""
    # covers FILE-13
    assert _extract_project_id(f"task-{project}-{UUID}") == "default"


_MEAN = st.sampled_from(["..", "/", "\\", "CON", ".", "-", "task-", UUID, "\0", ":", "\n", "a"])


@given(st.lists(st.text(max_size=8) | _MEAN).map("".join))
def test_whatever_the_text_the_project_is_one_safe_name(text: str) -> None:
    """Nothing that comes in makes a path that leads out, on any system."""
    # covers FILE-13
    for task_id in (text, f"task-{text}-{UUID}"):
        project = _extract_project_id(task_id)
        assert 1 <= len(project) <= 128
        assert project.isascii()
        assert not project.startswith(".")
        assert not project.endswith((".", " "))
        for flavour in (PurePosixPath, PureWindowsPath):
            assert flavour("tasks", project).parts == ("tasks", project)
        assert not is_reserved_on_windows(project)


def is_reserved_on_windows(name: str) -> bool:
    """Whether a name belongs to a device."""
    if sys.version_info >= (3, 13):
        return ntpath.isreserved(name)
    return PureWindowsPath(name).is_reserved()


@given(tasks)
def test_the_reference_of_a_task_leads_to_the_folder_of_its_file(task: Task) -> None:
    """The folder follows from the id alone, for every task that there can be."""
    # covers FILE-9, FILE-10, FILE-32
    path = TaskFolder(Path("data")).path(task.project, task.id)
    assert path == Path("data", "tasks", _extract_project_id(task.reference), f"{task.reference}.json")
    assert len(path.name) <= 255 - len("..tmp")


def test_the_functions_of_the_manager_do_not_hold_the_loop_up() -> None:
    """Each waits for the disk in a thread."""
    for name in ("save_checkpoint", "load_checkpoint", "get_task_metadata"):
        assert iscoroutinefunction(getattr(TaskManager, name))


def test_a_program_without_files_loads_nothing_of_them() -> None:
    """The manager knows checkpoints by their seam only, so nothing else has changed for who does not use them."""
    # covers FILE-8, FILE-34
    code = "import sys, node.manager; print(*(name for name in sys.modules if name.startswith('node.stores')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
