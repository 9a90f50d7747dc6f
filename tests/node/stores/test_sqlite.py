"""The SQLite store, as a node sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from node.feed import Feed
from node.interfaces import Change
from node.manager import TaskManager
from node.stores.sqlite import SqliteStore
from node.stores.sqlite import database as statements
from node.testing import START_MS, TEST_PEER, FakeClock, FakeSqliteDatabase, check_store, make_task
from protocol import (
    Claimed,
    ErrorCode,
    Fact,
    PeertaskError,
    Progressed,
    Submitted,
    TaskId,
    TaskNotFound,
    TaskRecord,
    advance,
    new_task_id,
)
from tests.node.stores.drawn import histories
from tests.node.stores.lives import birth, claim, completion, continued, life


def ignore(_changes: object) -> None:
    """Stand for a node that listens to nothing."""


async def records_of(store: SqliteStore) -> list[TaskRecord]:
    """What is kept."""
    return [record async for record in store.load()]


async def facts_of(store: SqliteStore, task_id: TaskId, after_seq: int = 0) -> list[Fact]:
    """What is kept of a task."""
    return [fact async for fact in store.facts(task_id, after_seq)]


async def test_it_keeps_the_contract_of_stores(tmp_path: Path) -> None:
    """The SQLite store passes the checker, also when another store is opened on the same file."""
    # covers COORD-16
    paths: dict[int, Path] = {}
    stores: list[SqliteStore] = []

    def open_store() -> SqliteStore:
        path = tmp_path / f"{len(stores)}.db"
        stores.append(SqliteStore(path))
        paths[id(stores[-1])] = path
        return stores[-1]

    await check_store(open_store, lambda store: SqliteStore(paths[id(store)]))


async def test_it_keeps_the_contract_with_full_synchronisation(tmp_path: Path) -> None:
    """Waiting for the disk changes when something is committed, and not what."""
    numbers = iter(range(100))
    await check_store(lambda: SqliteStore(tmp_path / f"{next(numbers)}.db", synchronous="full"))


async def test_the_store_in_memory_keeps_the_contract_too() -> None:
    """The double is the real store on another kind of database."""
    # covers COORD-47
    await check_store(FakeSqliteDatabase)


async def test_the_store_in_memory_can_be_looked_into() -> None:
    """A test reads with SQL what the store has committed."""
    # covers COORD-47
    store = FakeSqliteDatabase()
    task = make_task("Test Description", metadata={"title": "Test Task"}, persona="implementer")
    async with store.running(ignore):
        store.append((birth(task),))
        await records_of(store)
        (row,) = store.connection.execute("SELECT id, title, description, persona_id FROM tasks").fetchall()
        assert row == (1, "Test Task", "Test Description", "implementer")
    assert "peertask-" in repr(store)


async def test_making_a_store_touches_no_file(tmp_path: Path) -> None:
    """Only running opens the file, so a node that is only configured leaves nothing behind."""
    SqliteStore(tmp_path / "tasks.db")
    assert list(tmp_path.iterdir()) == []


async def test_the_facts_of_a_finished_task_are_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    """The audit log of a task is complete and numbered, also for a store that is opened later."""
    # covers COORD-8
    changes = life()
    task_id = changes[0].record.id
    async with SqliteStore(tmp_path / "tasks.db").running(ignore):
        pass
    store = SqliteStore(tmp_path / "tasks.db")
    async with store.running(ignore):
        store.append(changes)
    async with store.running(ignore):
        assert await facts_of(store, task_id) == [change.fact for change in changes]
        assert await facts_of(store, task_id, 2) == [change.fact for change in changes[2:]]
        store.forget((task_id,))
        assert await facts_of(store, task_id) == []


async def test_many_facts_and_records_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit a page goes on in the next one: in order, nothing twice, nothing left out."""
    monkeypatch.setattr(statements, "PAGE_ROWS", 3)
    store = SqliteStore(tmp_path / "tasks.db")
    histories = [life(at=START_MS + number // 4) for number in range(10)]
    last = claim(birth())
    reports = [Progressed(last[-1].record.id, START_MS + n, 1, n / 20, "", 1) for n in range(10)]
    async with store.running(ignore):
        for history in histories:
            store.append(history)
        assert await records_of(store) == [history[-1].record for history in histories]
        going_on = birth(last[0].record.task)
        store.append([going_on, *last, *continued(last[-1], *reports)])
        assert len(await facts_of(store, going_on.record.id)) == 13


async def test_a_store_that_is_opened_again_goes_on_with_open_tasks(tmp_path: Path) -> None:
    """An open task is known with its number; the next fact follows, and no other."""
    first = birth()
    async with SqliteStore(tmp_path / "tasks.db").running(ignore):
        pass
    store = SqliteStore(tmp_path / "tasks.db")
    async with store.running(ignore):
        store.append((first,))
    store = SqliteStore(tmp_path / "tasks.db")
    async with store.running(ignore):
        with pytest.raises(PeertaskError, match="holds number 1") as refused:
            store.append((first,))
        assert refused.value.code is ErrorCode.CONFLICT
        store.append(claim(first))
        assert (await records_of(store))[0].seq == 3


async def test_a_store_that_is_not_open_takes_nothing(tmp_path: Path) -> None:
    """What would be told to nobody is not taken in, and a reader finds what is there."""
    store = SqliteStore(tmp_path / "tasks.db")
    with pytest.raises(PeertaskError, match=r"tasks\.db is not open") as refused:
        store.append((birth(),))
    assert refused.value.code is ErrorCode.STORE_FAILED
    with pytest.raises(PeertaskError, match="not open"):
        store.forget((new_task_id(),))
    assert store.failure is None
    assert await records_of(store) == []


async def test_a_store_runs_once_at_a_time(tmp_path: Path) -> None:
    """A second node would be told of the first one's changes."""
    store = SqliteStore(tmp_path / "tasks.db")
    async with store.running(ignore):
        with pytest.raises(PeertaskError, match="open already"):
            async with store.running(ignore):
                pytest.fail("it runs twice")


async def test_what_is_appended_is_committed_when_the_node_is_cancelled(tmp_path: Path) -> None:
    """Ctrl-C is no reason to lose what was taken in."""
    store = SqliteStore(tmp_path / "tasks.db")
    committed: list[Change] = []
    histories = [life() for _ in range(50)]
    with trio.CancelScope() as scope:
        async with store.running(committed.extend):
            for history in histories:
                store.append(history)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert committed == [change for history in histories for change in history]
    assert len(await records_of(store)) == 50


async def test_an_error_of_the_node_comes_out_as_it_is(tmp_path: Path) -> None:
    """What the block raises is not wrapped in a group, and what was appended is saved."""
    store = SqliteStore(tmp_path / "tasks.db")

    async def fail() -> None:
        async with store.running(ignore):
            store.append((birth(),))
            raise ValueError("the node")

    with pytest.raises(ValueError, match="the node"):
        await fail()
    assert len(await records_of(store)) == 1


async def test_a_listener_may_append_the_next_change(tmp_path: Path) -> None:
    """What is committed may cause the next fact at once, and order is kept."""
    store = SqliteStore(tmp_path / "tasks.db")
    changes = life()
    committed: list[Change] = []

    def commit_and_go_on(news: Sequence[Change]) -> None:
        committed.extend(news)
        if len(committed) < len(changes):
            store.append((changes[len(committed)],))

    async with store.running(commit_and_go_on):
        store.append((changes[0],))
    assert committed == changes


# --- two processes on one file ---------------------------------------------------------------------------------------


class Refusals:
    """Remembers what was refused."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.errors: list[PeertaskError] = []

    def __call__(self, changes: Sequence[Change], error: PeertaskError) -> None:
        """Take a refusal down."""
        self.changes.extend(changes)
        self.errors.append(error)


async def test_of_two_claims_of_one_task_one_wins(tmp_path: Path) -> None:
    """The database compares the number that a claim follows: the loser is told, and all that follows is refused."""
    # covers COORD-42, COORD-57
    path = tmp_path / "tasks.db"
    shared = birth()
    async with SqliteStore(path).running(ignore):
        pass
    winner, refusals = SqliteStore(path), Refusals()
    loser = SqliteStore(path)
    loser.on_refused(refusals)
    async with winner.running(ignore):
        winner.append((shared,))
        await records_of(winner)
        committed: list[Change] = []
        async with loser.running(committed.extend):
            others = [life() for _ in range(3)]
            claimed = claim(shared)
            winner.append(claimed)
            await records_of(winner)
            loser.append(others[0])
            loser.append(claimed[:1])
            loser.append(others[1])
            loser.append(claimed[1:])
            await records_of(loser)
            with pytest.raises(PeertaskError, match="another process has changed the task") as refused:
                loser.append(completion(claimed[-1]))
            assert refused.value.code is ErrorCode.CONFLICT
            loser.append(others[2])
        assert committed == [change for other in others for change in other]
        assert (refusals.changes, [error.code for error in refusals.errors]) == (claimed, [ErrorCode.CONFLICT])
        assert str(refusals.errors[0]) == (
            f"task {shared.record.id}: fact number 2 cannot be saved, because another process has changed the task"
            " in tasks.db. Give each node a file of its own"
        )
        assert len(await facts_of(winner, shared.record.id)) == 3


async def test_what_was_in_line_behind_a_lost_claim_is_refused_with_it(tmp_path: Path) -> None:
    """The fact after a lost claim has the number that would fit the winner's record; it is not taken for the next."""
    path = tmp_path / "tasks.db"
    shared = birth()
    winner, refusals = SqliteStore(path), Refusals()
    loser = SqliteStore(path)
    loser.on_refused(refusals)
    async with winner.running(ignore):
        winner.append((shared,))
        await records_of(winner)
        async with loser.running(ignore):
            claimed = claim(shared)
            winner.append(claimed[:1])
            await records_of(winner)
            loser.append(claimed[:1])
            for _ in range(3_000):  # more than one commit takes, so that what follows waits in line
                loser.append((birth(),))
            loser.append(claimed[1:])
            loser.forget([new_task_id()])
        assert refusals.changes == claimed
        assert len(await facts_of(winner, shared.record.id)) == 2


async def test_a_task_that_another_process_has_brought_is_not_brought_twice(tmp_path: Path) -> None:
    """A UUID belongs to one task of the file, whoever was first."""
    path = tmp_path / "tasks.db"
    refusals = Refusals()
    first, second = SqliteStore(path), SqliteStore(path)
    second.on_refused(refusals)
    async with first.running(ignore), second.running(ignore):
        change = birth()
        first.append((change,))
        await records_of(first)
        second.append((change,))
    assert [error.code for error in refusals.errors] == [ErrorCode.CONFLICT]
    assert await records_of(first) == [change.record]


async def test_what_no_row_can_hold_is_refused_alone(tmp_path: Path) -> None:
    """Text that UTF-8 cannot carry must not keep everything else from being saved."""
    refusals = Refusals()
    store = SqliteStore(tmp_path / "tasks.db")
    store.on_refused(refusals)
    good, bad = life(), claim(birth())
    async with store.running(ignore):
        store.append((birth(bad[0].record.task),))
        store.append(bad)
        store.append(continued(bad[-1], Progressed(bad[0].record.id, START_MS, 1, 0.5, "\ud800", 1)))
        store.append(good)
    assert [error.code for error in refusals.errors] == [ErrorCode.INTERNAL]
    assert "the file cannot hold it" in str(refusals.errors[0])
    assert [record.id for record in await records_of(store) if record.terminal] == [good[0].record.id]


async def test_whoever_waits_for_a_task_that_another_process_has_changed_is_told(tmp_path: Path) -> None:
    """A node whose task was taken by another program says so, and knows the task no more."""
    store, other = SqliteStore(tmp_path / "tasks.db"), SqliteStore(tmp_path / "tasks.db")
    manager = TaskManager(store, FakeClock(), Feed(), own_id=TEST_PEER)
    with trio.fail_after(20):
        async with manager.running():
            task = manager.create_task("p")
            await manager.wait_saved(task.id)
            async with other.running(ignore):
                (record,) = await records_of(other)
                other.append(claim(Change(record, Submitted(task, record.created_at, TEST_PEER))))
            manager.apply(Claimed(task.id, 1, 1, TEST_PEER, 1))
            ended = await manager.wait(task.id)
            assert ended.failure is not None
            assert ended.failure.code is ErrorCode.CONFLICT
            with pytest.raises(TaskNotFound):
                manager.get_task(task.id)


async def test_a_refusal_is_logged_when_nobody_asks_for_it(tmp_path: Path) -> None:
    """Without a listener the log tells what was not saved."""
    path = tmp_path / "tasks.db"
    first, second = SqliteStore(path), SqliteStore(path)
    change = birth()
    with capture_logs() as logged:
        async with first.running(ignore), second.running(ignore):
            first.append((change,))
            await records_of(first)
            second.append((change,))
    (entry,) = logged
    assert (entry["log_level"], entry["task_id"], entry["tasks"]) == ("error", change.record.id, 1)


# --- without loss ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(histories(), min_size=1, max_size=4, unique_by=lambda history: history[0].record.id))
def test_every_record_and_every_fact_comes_back_as_it_was(drawn: list[list[Change]]) -> None:
    """Whatever the protocol allows in a task, a result, a failure or a fact is lossless in the rows."""

    async def keep_and_compare() -> None:
        store = FakeSqliteDatabase()
        async with store.running(ignore):
            for history in drawn:
                store.append(history[:1])
                if history[1:]:
                    store.append(history[1:])
            kept = {record.id: record for record in await records_of(store)}
            assert kept == {history[-1].record.id: history[-1].record for history in drawn}
            for history in drawn:
                assert await facts_of(store, history[0].record.id) == [change.fact for change in history]
                assert type(kept[history[0].record.id].progress) is float

    trio.run(keep_and_compare)


def test_advance_is_what_the_lives_of_these_tests_are_made_with() -> None:
    """The samples are histories that a manager could have made."""
    changes = life()
    assert [change.record.seq for change in changes] == [1, 2, 3, 4]
    assert advance(changes[0].record, changes[1].fact) == changes[1].record  # type: ignore[arg-type]
    assert changes[0].record.requester == TEST_PEER
