"""Tasks as lines of JSON, and their way through every kind of store."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.archive import ArchivedTask, read_line, write_line
from node.interfaces import Change, Store
from node.stores.files import FilesStore
from node.stores.memory import MemoryStore
from node.stores.redis import RedisStore
from node.testing import TEST_PEER
from node.testing.sqlite import FakeSqliteDatabase
from protocol import ErrorCode, PeertaskError, TaskStatus
from tests.node.stores.drawn import histories
from tests.node.stores.histories import facts_of, loaded
from tests.node.stores.lives import life
from tests.node.stores.redis_server import needs_redis, open_server

# covers FILE-7, REDIS-29

_QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_some_lives = st.lists(histories(), min_size=1, max_size=4, unique_by=lambda history: history[0].record.id)


def archived(history: Sequence[Change]) -> ArchivedTask:
    """What a store that keeps everything would export."""
    return ArchivedTask(history[-1].record, [change.fact for change in history])


@given(histories())
def test_a_line_gives_back_the_task_that_was_written(history: list[Change]) -> None:
    """Its record, its facts, and the changes that lead there."""
    task = archived(history)
    line = write_line(*task)
    assert "\n" not in line
    assert read_line(line, "line 1") == task
    assert read_line(line, "line 1").changes() == history


def test_a_task_whose_first_facts_are_gone_keeps_its_outcome() -> None:
    """With the shortest history that leads to it."""
    history = life()
    record, facts = history[-1].record, [change.fact for change in history]
    back = read_line(write_line(record, facts[2:]), "line 1").changes()[-1].record
    assert back.status is TaskStatus.COMPLETE
    assert (back.task, back.result) == (record.task, record.result)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "not an archived task of version 1"),
        (json.dumps({"peertask": 2}), "not an archived task of version 1"),
        (json.dumps({"peertask": 1}), "KeyError"),
        (json.dumps({"peertask": 1, "record": {}, "facts": []}), "KeyError"),
        ("[" * 200_000, "RecursionError"),
    ],
)
def test_what_is_no_task_is_refused_with_its_place(line: str, words: str) -> None:
    """Whoever imports a file can find the line."""
    with pytest.raises(PeertaskError, match=r"line 7 of x is not a task of an export") as refused:
        read_line(line, "line 7 of x")
    assert words in refused.value.message
    assert refused.value.code is ErrorCode.INVALID_TASK


def test_facts_that_do_not_lead_to_the_record_are_refused() -> None:
    """A file that somebody has edited is not taken for what a node has written."""
    record, facts = archived(life())
    shape = json.loads(write_line(record, facts))
    shape["record"]["updated_at"] += 1
    with pytest.raises(PeertaskError, match="its facts do not lead to its record"):
        read_line(json.dumps(shape), "line 1")


async def passed_through(store: Store, tasks: Iterable[ArchivedTask]) -> list[ArchivedTask]:
    """Import tasks into a store, and export what is there then."""
    async with store.running(lambda _changes: None):
        for task in tasks:
            store.append(task.changes())
    return [ArchivedTask(record, await facts_of(store, record.id)) for record in await loaded(store)]


def by_id(tasks: Iterable[ArchivedTask]) -> dict[str, ArchivedTask]:
    """Tasks found by their ids, through the lines of a file."""
    read = (read_line(write_line(*task), "a line") for task in tasks)
    return {task.record.id: task for task in read}


@_QUICK
@given(_some_lives)
def test_tasks_pass_from_store_to_store_without_loss(drawn: list[list[Change]]) -> None:
    """Through lines of JSON from SQLite to files and back; memory keeps at least the records."""

    async def pass_on() -> None:
        tasks = [archived(history) for history in drawn]
        with tempfile.TemporaryDirectory() as folder:
            for store in (FakeSqliteDatabase(), FilesStore(Path(folder)), FakeSqliteDatabase()):
                tasks = list(by_id(await passed_through(store, tasks)).values())
        assert by_id(tasks) == by_id(archived(history) for history in drawn)
        kept = await passed_through(MemoryStore(), tasks)
        assert {task.record.id: task.record for task in kept} == {task.record.id: task.record for task in tasks}

    trio.run(pass_on)


@needs_redis
@settings(_QUICK, max_examples=10)
@given(_some_lives)
def test_tasks_pass_through_redis_without_loss(drawn: list[list[Change]]) -> None:
    """Records and facts, each in a server of its own."""

    async def pass_on() -> None:
        tasks = [archived(history) for history in drawn]
        with tempfile.TemporaryDirectory() as folder:
            async with open_server(Path(folder), "--appendfsync", "no") as server:
                kept = await passed_through(RedisStore(server.settings(), owner=TEST_PEER), tasks)
        assert by_id(kept) == by_id(tasks)

    trio.run(pass_on)
