"""`peertask store`: what a node keeps, looked after while it does not run; and what it finds when it starts again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.app import open_node
from node.config import NodeConfig
from node.storage import SQLITE_FILE
from protocol import TaskFailed
from tests.acceptance.processes import Stage

# covers COORD-16, COORD-17, FILE-2, FILE-3


async def fill(folder: Path, store: str = "sqlite", tasks: int = 3) -> None:
    """Let a node keep some complete tasks and one that failed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = NodeConfig(data=folder, listen=(), store="files" if store == "files" else "sqlite")
    async with open_node(config, control=False) as node:
        for number in range(tasks):
            await node.submit(f"prompt {number}", kind="echo")
        with pytest.raises(TaskFailed):
            await node.submit("late", kind="mock", timeout_ms=1)


async def test_info_counts_what_is_kept(stage: Stage) -> None:
    """How many of each status, where, and since when."""
    await fill(stage.folder / "a")
    told = stage.run("store", "info", "--data", "a", "--json").json()[0]
    assert told["tasks"] == {"complete": 3, "failed": 1}
    assert told["place"].endswith(SQLITE_FILE)
    assert told["bytes"] > 0
    assert told["oldest"] <= told["newest"]
    assert "complete           3" in stage.run("store", "info", "--data", "a").lines


@pytest.mark.parametrize(("origin", "target"), [("sqlite", "files"), ("files", "sqlite")])
async def test_an_export_is_imported_into_another_kind_of_store_without_loss(
    stage: Stage, origin: str, target: str
) -> None:
    """Record for record and fact for fact; importing it again changes nothing."""
    await fill(stage.folder / "a", origin)
    told = stage.run("store", "export", "one.jsonl", "--data", "a", "--store", origin, "--json").json()[0]
    assert told["tasks"] == 4
    assert (stage.folder / "one.jsonl").stat().st_mode & 0o777 == 0o600
    imported = ("store", "import", "one.jsonl", "--data", "b", "--store", target, "--json")
    first, second = (stage.run(*imported).json()[0] for _ in range(2))
    assert [(one["tasks"], one["known"]) for one in (first, second)] == [(4, 0), (0, 4)]
    again = stage.run("store", "export", "-", "--data", "b", "--store", target)
    # Which of two tasks of one millisecond comes first is up to the store.
    assert sorted(again.lines) == sorted((stage.folder / "one.jsonl").read_text("utf-8").splitlines())
    came = [line["record"]["created_at"] for line in again.json() if "record" in line]
    assert came == sorted(came)
    assert stage.run("store", "check", "--data", "b", "--store", target).code == 0


async def test_check_finds_what_is_wrong_and_changes_nothing(stage: Stage) -> None:
    """In the pages of the file, and in what stands there."""
    folder = stage.folder / "a"
    await fill(folder)
    assert stage.run("store", "check", "--data", "a", "--json").json()[0]["faults"] == []
    with closing(sqlite3.connect(folder / SQLITE_FILE)) as connection, connection:
        connection.execute("UPDATE task_status SET attempt = attempt + 1 WHERE task_id = 1")
    found = stage.run("store", "check", "--data", "a", "--json")
    assert found.code == 1
    assert "its facts do not lead to its record" in found.json()[0]["faults"][0]
    path = folder / SQLITE_FILE
    damaged = bytearray(path.read_bytes())
    damaged[4096 * 3 : 4096 * 4] = os.urandom(4096)
    path.write_bytes(damaged)
    found = stage.run("store", "check", "--data", "a")
    assert found.code == 1
    refused = stage.run("store", "info", "--data", "a", "--json")
    assert refused.code == 1
    assert "is damaged" in refused.error()["message"]
    assert path.read_bytes() == damaged


async def test_migrate_says_what_it_would_do(stage: Stage) -> None:
    """A file of this version needs nothing."""
    await fill(stage.folder / "a", tasks=1)
    told = stage.run("store", "migrate", "--dry-run", "--data", "a", "--json").json()[0]
    assert (told["migrations"], told["applied"]) == ([], False)
    refused = stage.run("store", "migrate", "--data", "a", "--store", "files", "--json")
    assert refused.code == 2
    assert "no schema" in refused.error()["message"]


async def test_gc_forgets_finished_tasks_by_number_and_age(stage: Stage) -> None:
    """The newest stay, and the file gives its room back."""
    await fill(stage.folder / "a", tasks=30)
    before = stage.run("store", "info", "--data", "a", "--json").json()[0]["bytes"]
    told = stage.run("store", "gc", "--keep", "2", "--data", "a", "--json").json()[0]
    assert (told["forgotten"], told["tasks"]) == (29, 2)
    assert stage.run("store", "info", "--data", "a", "--json").json()[0]["bytes"] <= before
    told = stage.run("store", "gc", "--older-than", "0", "--data", "a", "--json").json()[0]
    assert told["tasks"] == 0


def test_what_cannot_be_done_is_said_in_words(stage: Stage) -> None:
    """A store that is not there, a file that is no export, an argument too few."""
    missing = stage.run("store", "info", "--data", "nowhere", "--json")
    assert missing.code == 2
    assert "there is no data folder" in missing.error()["message"]
    assert not (stage.folder / "nowhere").exists()
    (stage.folder / "empty").mkdir(mode=0o700)
    assert "there is no sqlite store" in stage.run("store", "info", "--data", "empty", "--json").error()["message"]
    (stage.folder / "deep.jsonl").write_text("[" * 200_000)
    deep = stage.run("store", "import", "deep.jsonl", "--data", "b", "--json")
    assert "line 1 of deep.jsonl is not a task of an export" in deep.error()["message"]
    (stage.folder / "bad.jsonl").write_text('{"peertask": 2}\n')
    bad = stage.run("store", "import", "bad.jsonl", "--data", "b", "--json")
    assert "line 1 of bad.jsonl is not a task of an export" in bad.error()["message"]
    assert stage.run("store", "export").code == 2
    assert stage.run("store", "info", "more").code == 2


def test_a_node_that_runs_keeps_its_store_to_itself(stage: Stage) -> None:
    """The command names its process."""
    node = stage.start_node("a")
    refused = stage.run("store", "info", "--data", "a", "--json")
    assert refused.code == 2
    assert str(node.process.pid) in refused.error()["message"]


@pytest.mark.parametrize("store", ["sqlite", "files"])
def test_a_node_that_was_killed_finds_its_tasks_and_results(stage: Stage, store: str) -> None:
    """Kill -9 right after the answer: the task is complete in the next process, with all its facts numbered."""
    node = stage.start_node("a", settings={"PEERTASK_STORE": store})
    stage.run("send", "--data", "a", "--kind", "echo", "kept")
    (task,) = node.tasks()
    node.process.signal(signal.SIGKILL)
    node.process.wait()
    stage.start_again(node)
    shown = stage.run("show", "--data", "a", "--events", "--json", task.id).json()
    assert [(event["seq"], event["fact"]) for event in shown] == [
        (1, "Submitted"),
        (2, "Claimed"),
        (3, "Started"),
        (4, "Completed"),
    ]
    assert json.loads(stage.run("show", "--data", "a", "--json", task.id).out)["result"]["result"] == "kept"
