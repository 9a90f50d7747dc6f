"""Group commit: what came while the last commit ran goes into the next one, in order, and nothing is lost."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock

from node.stores.sqlite import batch as batches
from node.stores.sqlite.batch import Batch, Forgotten, Item, NewTasks, fill_batch
from node.stores.sqlite.database import Refusals
from node.stores.sqlite.held import HELD_S
from node.stores.sqlite.thread import OwnThread, open_thread
from node.stores.sqlite.writer import CLOSING_S, REST_S, TIDY_AFTER_CHANGES, GroupWriter
from node.testing import make_task
from protocol import ErrorCode, new_task_id
from tests.node.stores.lives import birth, claim, life
from tests.node.stores.writers import Disk, full_disk, writing


def take_batch(line: deque[Item]) -> Batch:
    """Return what goes into the next commit."""
    batch = Batch()
    fill_batch(batch, line)
    return batch


async def test_what_comes_while_a_commit_runs_goes_into_the_next_one() -> None:
    """A hundred tasks that wait cost one commit more, and not a hundred."""
    # covers COORD-9, COORD-57
    disk = Disk()
    disk.may_go_on.clear()
    async with writing(disk) as writer:
        changes = [birth() for _ in range(101)]
        writer.put(changes[:1])
        await trio.to_thread.run_sync(disk.begun.wait, 10)
        for change in changes[1:]:
            writer.put((change,))
        disk.may_go_on.set()
        await writer.wait_saved()
        assert [len(batch.changes) for batch in disk.batches] == [1, 100]
        assert disk.changes == changes


async def test_the_loop_is_told_of_each_commit_once() -> None:
    """What is saved comes back in one call for each commit."""
    disk, calls = Disk(), list[int]()
    async with writing(disk, lambda batch, _refusals: calls.append(len(batch.changes))) as writer:
        for _ in range(50):
            writer.put((birth(),))
    assert calls == [50]


async def test_a_commit_takes_a_bounded_number_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit never holds the file for long, however much waits."""
    monkeypatch.setattr(batches, "MAX_CHANGES", 100)
    disk = Disk()
    async with writing(disk) as writer:
        for _ in range(250):
            writer.put((birth(),))
        for _ in range(150):
            writer.put(Forgotten([new_task_id()]))
    assert [len(batch.changes) + len(batch.forgotten) for batch in disk.batches] == [100, 100, 100, 100]


def test_a_commit_takes_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large prompts and results do not gather in one transaction."""
    monkeypatch.setattr(batches, "MAX_BYTES", 10_000)
    line = deque[Item](life(make_task("x" * 3_000)) for _ in range(10))
    assert [len(take_batch(line).entries) for _ in range(3)] == [4, 4, 2]


def test_the_changes_of_one_task_are_one_entry() -> None:
    """Only the last record of a task is written, with the facts in between."""
    changes = life()
    batch = take_batch(deque[Item]([changes[:1], changes[1:3], changes[3:]]))
    (entry,) = batch.entries.values()
    assert (entry.seq_before, entry.record) == (0, changes[-1].record)
    assert entry.facts == [change.fact for change in changes]
    assert entry.claimed_ms() == changes[1].fact.at


def test_a_task_that_comes_again_after_it_was_forgotten_waits_for_the_next_commit() -> None:
    """Within a commit the changes come first; what was appended after a forgetting is not forgotten with it."""
    change, other = birth(), birth()
    line = deque[Item]([(change,), Forgotten([change.record.id]), (other,), (change,)])
    first = take_batch(line)
    assert (first.changes, first.forgotten) == ([change, other], {change.record.id})
    assert take_batch(line).changes == [change]
    assert not line


async def test_a_disk_that_fails_is_tried_again_and_told_once(autojump_clock: MockClock) -> None:
    """The same batch comes again, before all that came later; the log has the beginning and the end."""
    disk = Disk()
    disk.errors.extend(full_disk() for _ in range(8))
    with capture_logs() as logged:
        async with writing(disk) as writer:
            first, second = birth(), birth()
            writer.put((first,))
            await writer.wait_saved()
            assert writer.failure is not None
            assert writer.failure.code is ErrorCode.STORE_FAILED
            assert str(writer.failure) == (
                "the SQLite store tasks.db cannot be saved to: the disk is full (database or disk is full)."
                " Make room on it"
            )
            writer.put((second,))
            await writer.close()
    assert disk.changes == [first, second]
    assert [(entry["log_level"], entry["event"]) for entry in logged] == [
        ("error", "nothing can be saved"),
        ("info", "saving works again"),
    ]


async def test_closing_waits_a_bounded_time_for_a_disk_that_fails(autojump_clock: MockClock) -> None:
    """A node can stop when its disk cannot save; the log says how much is lost, and why."""
    disk = Disk()
    disk.errors.extend(full_disk() for _ in range(1_000))
    with capture_logs() as logged:
        async with writing(disk) as writer:
            writer.put((birth(),))
            await writer.wait_saved()
            writer.put((birth(),))
            writer.put(life())
            begun = trio.current_time()
        assert CLOSING_S <= trio.current_time() - begun < 2 * CLOSING_S
    assert disk.batches == []
    assert logged[-1]["changes"] == 6
    assert "the disk is full" in logged[-1]["error"]


async def test_what_comes_while_the_writer_closes_is_not_held_back() -> None:
    """What the last commit brings about is saved too."""
    disk, first, last = Disk(), life(), birth()
    disk.may_go_on.clear()
    async with writing(disk) as writer, trio.open_nursery() as nursery:
        writer.put(first)
        await trio.to_thread.run_sync(disk.begun.wait, 10)
        nursery.start_soon(writer.close)
        await trio.testing.wait_all_tasks_blocked()
        writer.put((last,))
        disk.may_go_on.set()
    assert disk.changes == [*first, last]


async def test_a_disk_that_works_again_while_the_store_closes_loses_nothing(autojump_clock: MockClock) -> None:
    """The last attempts count."""
    disk = Disk()
    disk.errors.extend(full_disk() for _ in range(5))
    async with writing(disk) as writer:
        writer.put((birth(),))
        await writer.wait_saved()
    assert len(disk.changes) == 1


async def test_an_error_that_is_no_error_of_sqlite_is_not_hidden() -> None:
    """A defect of the program comes out, and nobody waits for ever."""

    class Broken(Disk):
        def write(self, _batch: Batch) -> Refusals:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_thread("writer") as thread, trio.open_nursery() as nursery:
            writer = GroupWriter(Broken(), lambda _batch, _refusals: None, thread, "tasks.db")
            nursery.start_soon(writer.run)
            writer.put((birth(),))
            await writer.wait_saved()
            await writer.close()


async def test_what_nobody_waits_for_joins_the_next_commit(mock_clock: MockClock) -> None:
    """A task that is claimed, begun and completed within a moment costs one commit; what is read counts at once."""
    disk = Disk()
    async with writing(disk) as writer:
        first, *between, last = life()
        writer.put((first,))
        await writer.wait_saved()
        for change in between:
            writer.put((change,))
            await trio.testing.wait_all_tasks_blocked()
        writer.put((last,))
        await writer.wait_saved()
        assert [batch.changes for batch in disk.batches] == [[first], [*between, last]]
        claimed = claim(birth())
        writer.put(claimed)
        writer.put(Forgotten([new_task_id()]))
        await trio.testing.wait_all_tasks_blocked()
        assert len(disk.batches) == 2
        await writer.wait_saved()
        assert [batch.changes for batch in disk.batches[2:]] == [claimed]


async def test_what_nobody_waits_for_is_saved_soon(autojump_clock: MockClock) -> None:
    """A task that takes long is seen to run."""
    disk, told = Disk(), trio.Event()
    async with writing(disk, lambda _batch, _refusals: told.set()) as writer:
        begun, claimed = trio.current_time(), claim(birth())
        writer.put(claimed)
        await told.wait()
        assert trio.current_time() - begun == pytest.approx(HELD_S)
        assert disk.changes == claimed


@pytest.mark.parametrize("somebody_waits", [False, True])
async def test_a_task_that_has_come_waits_for_company_unless_somebody_waits_for_it(
    autojump_clock: MockClock, *, somebody_waits: bool
) -> None:
    """A short task costs one commit; who enqueues one is told at once that it is there."""
    disk, told = Disk(), trio.Event()
    async with writing(disk, lambda *_: told.set()) as writer:
        begun = trio.current_time()
        writer.put((birth(),))
        if somebody_waits:
            writer.hurry()
        await told.wait()
        assert trio.current_time() - begun == pytest.approx(0 if somebody_waits else HELD_S)


async def test_a_short_task_is_written_once_while_others_end(autojump_clock: MockClock) -> None:
    """The end of one task does not take along the beginning of another, which is in the commit of its own end."""
    disk, commits = Disk(), trio.Semaphore(0)
    async with writing(disk, lambda *_: commits.release()) as writer:
        first, second = life(), life()
        writer.put(second[:1])
        writer.put(first)
        await commits.acquire()
        writer.put(second[1:3])
        writer.put(second[3:])
        await commits.acquire()
    assert [batch.changes for batch in disk.batches] == [first, second]
    assert [batch.items for batch in disk.batches] == [1, 1]


async def test_what_is_held_back_is_saved_in_time_while_others_end(autojump_clock: MockClock) -> None:
    """A busy node tells of a task that takes long as soon as an idle one."""
    disk, commits = Disk(), trio.Semaphore(0)
    async with writing(disk, lambda *_: commits.release()) as writer:
        waiting, begun = birth(), trio.current_time()
        writer.put((waiting,))
        while waiting not in disk.changes:
            writer.put(life())
            await commits.acquire()
            await trio.sleep(HELD_S / 10)
        assert trio.current_time() - begun <= HELD_S * 1.2
        assert len(disk.batches) > 5


async def test_a_task_is_forgotten_after_what_is_held_back_of_it() -> None:
    """As with everything that was appended before."""
    disk, change, other = Disk(), birth(), birth()
    async with writing(disk) as writer:
        writer.put((change,))
        writer.put((other,))
        writer.put(Forgotten([change.record.id]))
    assert disk.changes == [change, other]
    assert disk.batches[0].forgotten == {change.record.id}


async def test_a_graph_does_not_overtake_what_it_may_depend_on(mock_clock: MockClock) -> None:
    """After a crash it would wait for tasks that nobody knows, and fail."""
    disk, parent, child = Disk(), birth(), birth()
    async with writing(disk) as writer:
        writer.put((parent,))
        writer.put(NewTasks([child]))
        await writer.wait_saved()
    assert disk.changes == [parent, child]


async def test_a_task_that_is_given_up_takes_along_what_is_held_back_of_it() -> None:
    """Nothing of it is saved any more; it is told with what was in line."""
    disk, changes, other = Disk(), life(), birth()
    disk.may_go_on.clear()
    async with writing(disk) as writer:
        writer.put((other,))
        writer.hurry()
        await trio.to_thread.run_sync(disk.begun.wait, 10)
        writer.put(changes[:1])
        writer.hurry()
        writer.put(changes[1:2])
        assert writer.drop(changes[0].record.id) == changes[:2]
        disk.may_go_on.set()
        await writer.wait_saved()
    assert disk.changes == [other]


async def test_the_wal_is_moved_into_the_file_when_nothing_is_to_be_saved(autojump_clock: MockClock) -> None:
    """Not after each commit, and not while more comes."""
    disk = Disk()
    async with writing(disk) as writer:
        for _ in range(3):
            for _ in range(TIDY_AFTER_CHANGES // 2):
                writer.put((birth(),))
            await writer.wait_saved()
            assert disk.checkpoints == 0
        assert await trio.to_thread.run_sync(disk.tidied.wait, 10)
        writer.put((birth(),))
        await writer.wait_saved()
        await trio.sleep(2 * REST_S)
        assert disk.checkpoints == 1


async def test_a_thread_of_its_own_runs_calls_in_order_and_ends() -> None:
    """It returns and raises what the functions do; after the end there is an error, and no waiting."""

    def fail() -> None:
        raise ZeroDivisionError

    before = threading.active_count()
    async with open_thread("a thread of a test") as thread:
        name, number = await thread.run_sync(lambda: (threading.current_thread().name, 1))
        assert (name, number) == ("a thread of a test", 1)
        with pytest.raises(ZeroDivisionError):
            await thread.run_sync(fail)
    assert "a thread of a test" not in [other.name for other in threading.enumerate()]
    assert threading.active_count() <= before + 1  # trio keeps those that it has waited in
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await thread.run_sync(fail)


async def test_a_call_that_has_begun_is_waited_for_by_a_caller_that_is_cancelled() -> None:
    """A transaction is not left to itself."""
    disk, done = Disk(), list[Refusals]()
    disk.may_go_on.clear()
    async with open_thread("writer") as thread:

        async def write() -> None:
            done.append(await thread.run_sync(disk.write, Batch()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.to_thread.run_sync(disk.begun.wait, 10)
            nursery.cancel_scope.cancel()
            disk.may_go_on.set()
        assert done == [{}]
        with trio.CancelScope() as scope:
            scope.cancel()
            await write()
    assert len(disk.batches) == 1


def test_a_thread_ends_with_the_loop_that_was_killed() -> None:
    """A loop that dies without closing anything leaves no thread behind once its objects are collected."""
    threads: list[threading.Thread] = []

    async def leave() -> None:
        thread = OwnThread("forgotten")
        await thread.run_sync(lambda: threads.append(threading.current_thread()))

    trio.run(leave)
    threads[0].join(10)
    assert not threads[0].is_alive()
