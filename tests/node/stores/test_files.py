"""The store of files: what is kept, what the files look like, who may write them, and what is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import trio

from node.checkpoints import EngineErrorCode
from node.stores.files import FilesStore, saving
from node.stores.files.folder import MAX_FILE_BYTES
from node.stores.files.hold import LOCK_FILE
from node.stores.files.store import MAX_FACTS_PER_TASK, MAX_GROUP
from node.testing import START_MS, check_store, make_task
from protocol import ErrorCode, PeertaskError, Progressed
from tests.node.stores.task_files import facts_of, ignore, keep, loaded, path_of, read, running, until_failing
from tests.node.stores.task_lives import after, begun, finished


async def test_it_keeps_the_contract_of_stores(tmp_path: Path) -> None:
    """The store of files passes the checker, reopened by a new store on the same folder."""
    # covers FILE-1, FILE-2, FILE-7, CORE-10
    numbers = count()
    folders: dict[int, Path] = {}

    def open_store() -> FilesStore:
        folder = tmp_path / str(next(numbers))
        store = FilesStore(folder)
        folders[id(store)] = folder
        return store

    await check_store(open_store, lambda store: FilesStore(folders[id(store)]))


async def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    """A store that is never opened leaves no folder behind."""
    FilesStore(tmp_path / "data")
    assert not (tmp_path / "data").exists()


async def test_a_file_lies_where_its_project_and_id_say(tmp_path: Path) -> None:
    """The path of a task follows from the task alone."""
    # covers FILE-10, FILE-15, FILE-32
    task = make_task(project="alpha-2")
    await keep(tmp_path, task)
    assert path_of(tmp_path, task) == tmp_path / "tasks" / "alpha-2" / f"task-alpha-2-{task.id}.json"
    assert path_of(tmp_path, task).is_file()


async def test_a_project_that_is_no_safe_folder_name_lies_in_default(tmp_path: Path) -> None:
    """A device of Windows is no folder, and its tasks are kept all the same."""
    # covers FILE-13
    tasks = [make_task(project=project) for project in ("CON", "nul.txt", "ends.", "Com7")]
    await keep(tmp_path, *tasks)
    assert [folder.name for folder in (tmp_path / "tasks").iterdir()] == ["default"]
    store = FilesStore(tmp_path)
    async with running(store):
        assert {record.task.project for record in await loaded(store)} == {task.project for task in tasks}
        assert store.left_out == ()


async def test_a_file_can_be_read_by_a_person(tmp_path: Path) -> None:
    """Indented JSON with a newline at its end, times in words beside the numbers, and an order that never changes."""
    # covers FILE-3, FILE-16
    task = make_task("Größe: ✓", params={"z": 1, "a": [2]})
    await keep(tmp_path, task)
    text = path_of(tmp_path, task).read_text("utf-8")
    assert text.endswith("}\n")
    assert '"prompt": "Größe: ✓"' in text
    assert '    "created_at": 1800000000000,\n    "created_at_utc": "2027-01-15T08:00:00.000Z",\n' in text
    assert list(json.loads(text)) == ["format", "version", "record", "facts"]
    assert [fact["seq"] for fact in json.loads(text)["facts"]] == [1, 2, 3, 4]
    assert list(json.loads(text)["record"]["task"]["params"]) == ["z", "a"]


async def test_a_change_changes_few_lines_of_a_file(tmp_path: Path) -> None:
    """What does not change stays on its line, so that a comparison of two versions shows what happened."""
    # covers FILE-3
    task = make_task()
    changes = begun(task)
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        store.append(changes)
        await commits.wait_for(3)
        before = path_of(tmp_path, task).read_text("utf-8").splitlines()
        store.append(after(changes[-1], Progressed(task.id, START_MS + 5, 1, 0.5, "half", START_MS + 60_000)))
        await commits.wait_for(4)
    now = path_of(tmp_path, task).read_text("utf-8").splitlines()
    assert len([line for line in before if line not in now]) <= 8


async def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, also a folder that was there with another mode."""
    folder, task = tmp_path / "data", make_task(project="secret")
    (folder / "tasks").mkdir(parents=True, mode=0o755)
    await keep(folder, task)
    modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes.pop(Path("tasks.lock")) == 0o600
    assert modes == {
        Path("tasks"): 0o700,
        Path("tasks/secret"): 0o700,
        path_of(folder, task).relative_to(folder): 0o600,
    }


async def test_nothing_is_told_before_it_is_on_disk(tmp_path: Path) -> None:
    """When a change is committed its file holds it."""
    task = make_task()
    store = FilesStore(tmp_path)
    seen: list[int] = []
    with trio.fail_after(20):
        async with store.running(lambda _: seen.append(read(tmp_path, task)["record"]["seq"])):
            for change in finished(task):
                store.append((change,))
            assert seen == []
    assert seen[-1] == 4


async def test_changes_that_wait_together_are_saved_together(tmp_path: Path) -> None:
    """A group of tasks costs one wait, however many changes they have; a group has a limit."""
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        for _ in range(MAX_GROUP + 1):
            for change in finished(make_task()):
                store.append((change,))
        await commits.wait_for(4 * (MAX_GROUP + 1))
    assert commits.calls == 2


async def test_only_the_last_facts_of_a_task_are_kept(tmp_path: Path) -> None:
    """A task that reports for hours has a file that does not grow; the newest facts stay, with their numbers."""
    task = make_task()
    history = begun(task)
    reports = [Progressed(task.id, START_MS + n, 1, 0.5, f"step {n}", START_MS + n) for n in range(300)]
    history += after(history[-1], *reports)
    async with running(store := FilesStore(tmp_path)):
        for change in history:
            store.append((change,))
    numbers = [fact["seq"] for fact in read(tmp_path, task)["facts"]]
    assert numbers == list(range(303 - MAX_FACTS_PER_TASK + 1, 304))
    async with running(store := FilesStore(tmp_path)):
        assert await facts_of(store, task.id, after_seq=301) == [change.fact for change in history[-2:]]


async def test_the_facts_of_a_finished_task_outlive_the_node(tmp_path: Path) -> None:
    """They are read from the file when they are asked for, open or not."""
    task = make_task()
    await keep(tmp_path, task)
    facts = [change.fact for change in finished(task)]
    store = FilesStore(tmp_path)
    assert await facts_of(store, task.id) == facts
    async with running(store):
        assert await facts_of(store, task.id, after_seq=1) == facts[1:]
        path_of(tmp_path, task).write_text("{", "utf-8")
        with pytest.raises(PeertaskError, match="cut off"):
            await facts_of(store, task.id)


async def test_a_forgotten_task_leaves_neither_file_nor_folder(tmp_path: Path) -> None:
    """Retention frees the disk; the folder of a project goes with its last task."""
    gone, kept = make_task(project="gone"), make_task(project="kept")
    store = FilesStore(tmp_path)
    async with running(store):
        store.append(finished(gone))
        store.append(finished(kept))
        store.forget([gone.id])
    assert [folder.name for folder in (tmp_path / "tasks").iterdir()] == ["kept"]


async def test_a_forgotten_task_may_come_again_in_another_project(tmp_path: Path) -> None:
    """The old file goes, the new one stays, also when both happen in one group."""
    old = make_task(project="old")
    new = make_task(id=old.id, project="new")
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        store.append(begun(old))
        store.forget([old.id])
        store.append(begun(new))
        await commits.wait_for(6)
        assert [record.task for record in await loaded(store)] == [new]
    assert not path_of(tmp_path, old).exists()
    assert path_of(tmp_path, new).exists()


async def test_what_is_not_saved_yet_is_loaded_too(tmp_path: Path) -> None:
    """Whoever asks the store sees what was appended, though the disk does not work at the moment."""
    saved, waiting = make_task(project="good"), make_task(project="bad")
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        store.append(begun(saved))
        await commits.wait_for(3)
        (tmp_path / "tasks" / "bad").write_text("in the way", "utf-8")
        store.append(begun(waiting))
        assert [record.id for record in await loaded(store)] == [saved.id, waiting.id]
        assert len(await facts_of(store, waiting.id)) == 3
        (tmp_path / "tasks" / "bad").unlink()


async def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    """The next save makes it, and the node goes on."""
    # covers FILE-15
    gone, later = make_task(), make_task()
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        store.append(begun(gone))
        await commits.wait_for(3)
        shutil.rmtree(tmp_path / "tasks")
        store.append(begun(later))
        await commits.wait_for(6)
    assert [record.id for record in await loaded(store)] == [later.id]


# --- what stands in the way ------------------------------------------------------------------------------------------


async def test_trouble_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file cannot be written `failure` says where, why and what to do; then everything is saved, in order."""
    monkeypatch.setattr(saving, "LONGEST_RETRY_S", 0.05)
    first, second = make_task(project="blocked"), make_task(project="fine")
    store = FilesStore(tmp_path)
    async with running(store) as commits:
        (tmp_path / "tasks" / "blocked").write_text("in the way", "utf-8")
        store.append(begun(first))
        store.append(begun(second))
        failure = await until_failing(store)
        assert failure.code is ErrorCode.STORE_FAILED
        assert "blocked" in failure.message
        assert "nothing is lost" in failure.remedy
        assert commits.changes == []
        (tmp_path / "tasks" / "blocked").unlink()
        await commits.wait_for(6)
        assert [change.record.id for change in commits.changes] == 3 * [first.id] + 3 * [second.id]


async def test_a_store_that_cannot_save_ends_all_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Leaving waits five seconds for the disk, then says what is lost; what was saved before is there."""
    saved, lost = make_task(project="good"), make_task(project="bad")
    store = FilesStore(tmp_path)
    async with store.running(ignore):
        store.append(begun(saved))
        while not path_of(tmp_path, saved).exists():
            await trio.sleep(0.01)
        (tmp_path / "tasks" / "bad").write_text("in the way", "utf-8")
        store.append(begun(lost))
        began = trio.current_time()
    assert trio.current_time() - began < 60
    assert [record.id for record in await loaded(store)] == [saved.id]


async def test_leaving_when_cancelled_saves_what_was_appended(tmp_path: Path) -> None:
    """A node that is cancelled loses nothing of what it took in."""
    task = make_task()
    store = FilesStore(tmp_path)
    with trio.CancelScope() as scope:
        async with store.running(ignore):
            store.append(finished(task))
            scope.cancel()
            await trio.sleep_forever()
    assert [record.id for record in await loaded(store)] == [task.id]


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    """The tasks of the store do not wrap the errors of whoever uses it."""
    with pytest.raises(ZeroDivisionError):
        async with FilesStore(tmp_path).running(ignore):
            raise ZeroDivisionError


async def test_a_store_that_is_not_open_takes_nothing_in(tmp_path: Path) -> None:
    """What would be told to nobody is refused."""
    store = FilesStore(tmp_path)
    with pytest.raises(PeertaskError, match="not open") as refused:
        store.append(begun(make_task()))
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert await loaded(store) == []


async def test_one_store_cannot_be_opened_twice(tmp_path: Path) -> None:
    """Neither the same object nor another one on the same folder."""
    store = FilesStore(tmp_path)
    async with running(store):
        for again in (store, FilesStore(tmp_path)):
            with pytest.raises(PeertaskError, match=r"open already|in use by process") as refused:
                async with again.running(ignore):
                    pytest.fail("a second store is open")
            assert refused.value.code is ErrorCode.STORE_FAILED


async def test_a_second_process_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    """Two nodes on one folder would undo each other's work; a node that was killed does not hold the next one up."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    try:
        assert holder.stdout is not None
        assert "open\n" in iter(holder.stdout.readline, "")
        with pytest.raises(PeertaskError, match=f"in use by process {holder.pid}") as refused:
            async with FilesStore(tmp_path).running(ignore):
                pytest.fail("a second store is open")
        assert refused.value.remedy.startswith("Stop that process")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    async with running(FilesStore(tmp_path)):
        assert (tmp_path / LOCK_FILE).read_text("ascii") == f"{os.getpid()}\n"


_HOLD = """
import sys, pathlib, trio
from node.stores.files import FilesStore
async def main():
    async with FilesStore(pathlib.Path(sys.argv[1])).running(print):
        print("open", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error says where, why, and what to do."""
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(PeertaskError, match="cannot be opened: Not a directory") as refused:
        async with FilesStore(tmp_path / "file" / "data").running(ignore):
            pytest.fail("it is open")
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert refused.value.remedy


async def test_drafts_of_a_crash_are_removed(tmp_path: Path) -> None:
    """What a writer that was killed had begun is gone after the next start; a stranger's hidden file is not."""
    task = make_task()
    await keep(tmp_path, task)
    path = path_of(tmp_path, task)
    draft, stranger = path.with_name(f".{path.name}.tmp"), path.with_name(".gitignore")
    draft.write_text('{"format"', "utf-8")
    stranger.write_text("", "utf-8")
    async with running(store := FilesStore(tmp_path)):
        assert [record.id for record in await loaded(store)] == [task.id]
        assert store.left_out == ()
    assert not draft.exists()
    assert stranger.exists()


# --- what is left alone ----------------------------------------------------------------------------------------------

BAD = {
    "empty": (b"", "is empty", EngineErrorCode.JSON),
    "cut off": (b'{"format": "peertask ta', "cut off", EngineErrorCode.JSON),
    "bytes": (b"\xff\xfe\x00", "not valid JSON", EngineErrorCode.JSON),
    "nested too deep": (b"[" * 100_000, "not valid JSON", EngineErrorCode.JSON),
    "not a number": (b'{"version": NaN}', "NaN is no number", EngineErrorCode.JSON),
    "foreign": (b'{"name": "package"}', 'no "format"', EngineErrorCode.VALIDATION),
    "a list": (b"[1, 2]", 'no "format"', EngineErrorCode.VALIDATION),
    "newer": (b'{"format": "peertask task", "version": 2}', "its version is 2", EngineErrorCode.VALIDATION),
    "no record": (b'{"format": "peertask task", "version": 1}', "no record", EngineErrorCode.VALIDATION),
}


@pytest.mark.parametrize(("content", "reason", "kind"), BAD.values(), ids=BAD)
async def test_a_file_that_is_no_task_is_left_alone(
    tmp_path: Path, content: bytes, reason: str, kind: EngineErrorCode
) -> None:
    """It is reported with its path, the reason and a remedy, stays as it is, and all others are loaded."""
    # covers FILE-31
    bad, good = make_task(), make_task()
    await keep(tmp_path, bad, good)
    path_of(tmp_path, bad).write_bytes(content)
    store = FilesStore(tmp_path)
    async with running(store):
        assert [record.id for record in await loaded(store)] == [good.id]
        (error,) = store.left_out
        assert error.path == path_of(tmp_path, bad)
        assert error.kind is kind
        assert reason in error.message
        assert str(error.path) in error.message
        assert "leaves it as it is" in error.remedy
        store.forget([bad.id])
        with pytest.raises(PeertaskError, match=reason) as refused:
            store.append(begun(bad))
        assert refused.value.code is ErrorCode.STORE_FAILED
        assert "start the node again" in refused.value.remedy
    assert path_of(tmp_path, bad).read_bytes() == content


async def test_every_truncation_of_a_file_is_noticed(tmp_path: Path) -> None:
    """However much of a file is missing, it is not taken for a task."""
    task = make_task()
    await keep(tmp_path, task)
    path = path_of(tmp_path, task)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:length])
        async with running(store := FilesStore(tmp_path)):
            assert [error.path for error in store.left_out] == [path]


async def test_things_that_are_no_files_of_tasks_are_reported(tmp_path: Path) -> None:
    """Strange names, folders and pipes are told with what to do; hidden ones are nobody's business."""
    task = make_task(project="good")
    await keep(tmp_path, task)
    tasks = tmp_path / "tasks"
    (tasks / "README").write_text("mine", "utf-8")
    (tasks / ".git").mkdir()
    (tasks / "good" / "notes.txt").write_text("mine", "utf-8")
    (tasks / "other").mkdir()
    (tasks / "other" / path_of(tmp_path, task).name).write_bytes(path_of(tmp_path, task).read_bytes())
    os.mkfifo(tasks / "good" / f"task-good-{make_task().id}.json")
    (tasks / "good" / f"task-good-{make_task().id}.json").mkdir()
    (tasks / "good" / f"task-good-{make_task().id}.json").symlink_to("nowhere")
    (tasks / "round").symlink_to("round")
    async with running(store := FilesStore(tmp_path)):
        assert [record.id for record in await loaded(store)] == [task.id]
        reasons = sorted(error.message.partition(": ")[2] for error in store.left_out)
    assert reasons == [
        "it is not a file",
        "it is not a file",
        "it is not a file",
        "it is not the folder of a project",
        "it is not the folder of a project",
        "its name is not task-{project}-{uuid}.json",
        "its name says project good, and its folder other",
    ]
    assert (tasks / "README").exists()


async def test_a_wrong_fact_is_found(tmp_path: Path) -> None:
    """Of a task that goes on at the start, which leaves it out; of one that has ended when somebody asks."""
    ended, going_on = make_task(), make_task()
    async with running(store := FilesStore(tmp_path)):
        store.append(finished(ended))
        store.append(begun(going_on))
    for task in (ended, going_on):
        document = read(tmp_path, task)
        document["facts"][2]["at"] = "noon"
        path_of(tmp_path, task).write_text(json.dumps(document), "utf-8")
    async with running(store := FilesStore(tmp_path)):
        (error,) = store.left_out
        assert error.path == path_of(tmp_path, going_on)
        assert "its fact number 3 is wrong: field at" in error.message
        with pytest.raises(PeertaskError, match="its fact number 3 is wrong") as refused:
            await facts_of(store, ended.id)
        assert str(path_of(tmp_path, ended)) in refused.value.message


async def test_a_file_that_is_too_large_for_a_task_is_left_out(tmp_path: Path) -> None:
    """A node does not read into its memory what no node has written."""
    task = make_task()
    await keep(tmp_path, task)
    os.truncate(path_of(tmp_path, task), MAX_FILE_BYTES + 1)
    async with running(store := FilesStore(tmp_path)):
        assert "larger than any task" in store.left_out[0].message


async def test_a_file_under_the_name_of_another_task_is_left_out(tmp_path: Path) -> None:
    """A copy that somebody renamed would be one task twice."""
    task, other = make_task(), make_task()
    await keep(tmp_path, task)
    path_of(tmp_path, other).write_bytes(path_of(tmp_path, task).read_bytes())
    async with running(store := FilesStore(tmp_path)):
        (error,) = store.left_out
        assert error.path == path_of(tmp_path, other)
        assert "which its name does not say" in error.message


async def test_a_task_in_two_projects_is_loaded_once(tmp_path: Path) -> None:
    """The second file of the same UUID is left out, and names the first."""
    task = make_task(project="a")
    await keep(tmp_path, task)
    twin = tmp_path / "tasks" / "b" / f"task-b-{task.id}.json"
    twin.parent.mkdir()
    document = read(tmp_path, task)
    document["record"]["task"]["project"] = "b"
    twin.write_text(json.dumps(document), "utf-8")
    async with running(store := FilesStore(tmp_path)):
        assert [record.task.project for record in await loaded(store)] == ["a"]
        (error,) = store.left_out
        assert error.path == twin
        assert str(path_of(tmp_path, task)) in error.message


async def test_a_file_in_the_place_of_a_folder_refuses_only_its_project(tmp_path: Path) -> None:
    """Whoever asks for a task of that project is told why; the others go on."""
    (tmp_path / "tasks").mkdir(parents=True)
    (tmp_path / "tasks" / "blocked").write_text("in the way", "utf-8")
    async with running(store := FilesStore(tmp_path)) as commits:
        with pytest.raises(PeertaskError, match="not the folder of a project"):
            store.append(begun(make_task(project="blocked")))
        store.append(begun(make_task(project="fine")))
        await commits.wait_for(3)
