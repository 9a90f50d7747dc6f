"""Tasks of peers that are to stop, before they have come, while they run, and after the end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.interfaces import Change
from node.testing import (
    Hang,
    HeldStore,
    MemoryHub,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Claimed,
    Task,
    TaskId,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode
from tests.node.remote.pairs import Pair, pair_on, until


async def test_a_cancel_stops_the_execution_at_the_worker(autojump_clock: MockClock, pair: Pair) -> None:
    """Both sides record it, and the worker's executor has stopped first."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    pair.ann.manager.cancel_task(task_id)
    record = await pair.ann.wait(task_id)
    assert record.status is pair.ben.manager.get_task(task_id).status is TaskStatus.CANCELLED
    assert pair.executor.seen[0].ended == "cancelled"


async def test_a_cancel_right_behind_the_task_stops_it_too(autojump_clock: MockClock, pair: Pair) -> None:
    """Before the worker has answered."""

    def cancel(change: Change) -> None:
        if isinstance(change.fact, Claimed):
            cancels.append(change.record.id)

    cancels: list[TaskId] = []
    pair.ann.feed.listen(cancel)
    pair.executor.on("a prompt", Hang())
    task_id = pair.submit()
    while not cancels:
        await trio.lowlevel.checkpoint()
    pair.ann.manager.cancel_task(task_id)
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    assert pair.executor.running == 0
    assert (await pair.run("next")).status is TaskStatus.COMPLETE


async def test_a_task_that_is_cancelled_as_soon_as_it_is_claimed_is_stopped(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """Whoever hears of the claim may cancel at once: the peer is told to stop right behind the task."""

    def cancel(change: Change) -> None:
        if change.record.task.prompt == "unwanted" and isinstance(change.fact, Claimed):
            pair.ann.manager.cancel_task(change.record.id)

    pair.ann.feed.listen(cancel)
    assert (await pair.run("unwanted")).status is TaskStatus.CANCELLED
    assert (await pair.run("wanted")).status is TaskStatus.COMPLETE
    assert {record.task.prompt: record.status.value for record in pair.ben.tasks_of(pair.ann)} == {
        "unwanted": "cancelled",
        "wanted": "complete",
    }


async def test_a_cancel_that_crosses_the_result_changes_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    """The result came first: it is kept, at both ends, and the session goes on."""
    gate = trio.Event()
    pair.executor.then((Until(gate), Return("done first")))
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    gate.set()
    await pair.ben.wait(task_id)
    pair.ann.manager.cancel_task(task_id)
    record = await pair.ann.wait(task_id)
    assert record.result is not None
    assert record.result.result == "done first"
    assert (await pair.run()).status is TaskStatus.COMPLETE


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_task_is_passed_on_before_it_is_saved_only_when_nobody_can_ask_for_its_id_again(
    autojump_clock: MockClock, hub: MemoryHub, *, fresh: bool
) -> None:
    """After a crash the worker would take what is asked for again for another task: it was made at another time."""
    store = HeldStore()
    ann = MemoryNode(hub, "requester", [], store=store)
    ben = MemoryNode(hub, "worker", [executor := ScriptedExecutor()])
    async with ann.running(), ben.running():
        await ann.connect(ben)
        store.hold()
        task = Task.new("a prompt", ann.peer_id, timestamp=ann.clock.now(), kind=executor.kind)
        ann.manager.submit(task, requester=ann.peer_id, target=ben.peer_id, fresh=fresh)
        await wait_all_tasks_blocked()
        assert len(executor.seen) == fresh
        assert ann.manager.find_task(task.id) is None
        store.release()
        assert (await ann.wait(task.id)).status is TaskStatus.COMPLETE
        assert len(executor.seen) == 1


async def test_a_cancel_comes_through_although_the_worker_is_still_saving_the_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A task that nobody has been told of yet can be stopped, although it has begun."""
    store = HeldStore()
    async with pair_on(hub, store=store) as pair:
        pair.executor.then(Hang())
        store.hold()
        task_id = pair.submit()
        await pair.executor.wait_until_begun(1)
        assert pair.ann.manager.get_task(task_id).status is TaskStatus.CLAIMED
        held = len(store.held)
        pair.ann.manager.cancel_task(task_id)
        await until(lambda: len(store.held) > held)
        store.release()
        assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
        await until(lambda: not pair.executor.running)


async def test_a_worker_that_does_not_stop_is_not_waited_for_without_end(autojump_clock: MockClock, pair: Pair) -> None:
    """After ten seconds the task is cancelled for its requester, whatever the worker does."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    pair.hub.pause(pair.ben.peer_id)
    pair.ann.manager.cancel_task(task_id)
    begin = trio.current_time()
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    assert trio.current_time() - begin == pytest.approx(10, abs=0.1)
    pair.hub.resume(pair.ben.peer_id)
    await until(lambda: not pair.executor.running)


@pytest.mark.parametrize("moment", ["before the loss", "after the loss"])
async def test_a_cancel_that_could_not_be_delivered_is_when_the_peer_is_back(
    autojump_clock: MockClock, pair: Pair, moment: str
) -> None:
    """For its requester the task is cancelled at once; the worker stops it as soon as it hears of it."""
    pair.executor.then(Hang())
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    if moment == "after the loss":
        pair.cut()
    pair.ann.manager.cancel_task(task_id)
    if moment == "before the loss":  # and the frame is on its way when the link breaks
        pair.cut()
    assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
    await trio.sleep(5)
    assert pair.executor.running == 1
    pair.heal()
    await until(lambda: not pair.executor.running)
    assert pair.ben.manager.get_task(task_id).status in {TaskStatus.CANCELLED, TaskStatus.CANCELLING}
