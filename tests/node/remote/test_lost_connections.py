"""Every way to lose the link to a peer that has a task, and what comes of the task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.interfaces import Store
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    Return,
    ScriptedExecutor,
    Until,
)
from protocol import (
    Accept,
    Cancel,
    Completed,
    ErrorCode,
    Limits,
    PeertaskError,
    Released,
    Result,
    RetryPolicy,
    TaskId,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode
from tests.node.remote.pairs import Pair, pair_on, until


async def check_recovery(pair: Pair, task_id: TaskId, *, executions: int = 1) -> None:
    """The task completes once at both ends, and the worker has executed it so many times."""
    record = await pair.ann.wait(task_id)
    assert record.result is not None
    assert record.failures == 0
    assert len(pair.facts(Completed)) == 1
    assert len(pair.executor.seen) == executions
    (theirs,) = pair.ben.tasks_of(pair.ann)
    assert theirs.result == record.result


async def test_a_connection_lost_before_the_task_arrives_costs_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    """It is submitted again on the next one."""
    pair.hub.pause(pair.ben.peer_id)
    task_id = pair.submit()
    await wait_all_tasks_blocked()
    pair.cut()
    pair.hub.resume(pair.ben.peer_id)
    await trio.sleep(1)
    assert pair.ben.tasks_of(pair.ann) == []
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_connection_lost_before_the_answer_arrives_costs_no_second_execution(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The worker has recorded the task; submitting it again attaches to it."""
    pair.executor.then((Delay(5_000), Return("done")))
    pair.hub.drop_next(pair.ben.peer_id, pair.ann.peer_id, Accept)
    task_id = pair.submit()
    await pair.executor.wait_until_begun(1)
    await wait_all_tasks_blocked()
    assert pair.ann.manager.get_task(task_id).status is TaskStatus.CLAIMED
    pair.cut()
    await trio.sleep(1)
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_connection_lost_during_the_execution_costs_no_second_one(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The result comes on the next session, however often the link breaks; the losses are counted apart."""
    pair.executor.then((Delay(30_000), Return("done")))
    task_id = pair.submit()
    for _ in range(5):
        await until(lambda: pair.ann.manager.get_task(task_id).status is TaskStatus.EXECUTING)
        pair.cut()
        await trio.sleep(1)
        pair.heal()
    await check_recovery(pair, task_id)
    assert pair.ann.manager.get_task(task_id).lost_leases == 5


async def test_a_connection_lost_between_the_result_and_its_arrival_costs_no_second_execution(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """The worker keeps the result and gives it to whoever asks again."""
    gate = trio.Event()
    pair.executor.then((Until(gate), Return("done")))
    task_id = pair.submit()
    await until(lambda: pair.ann.manager.get_task(task_id).status is TaskStatus.EXECUTING)
    pair.hub.pause(pair.ann.peer_id)
    gate.set()
    await pair.ben.wait(task_id)
    pair.cut()
    pair.hub.resume(pair.ann.peer_id)
    await trio.sleep(1)
    assert pair.facts(Completed) == []
    pair.heal()
    await check_recovery(pair, task_id)


async def test_a_task_for_a_peer_that_is_away_waits_for_it(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Submitted before the first session: it runs when there is one."""
    pair = Pair(hub, ScriptedExecutor())
    async with pair.ann.running():
        task_id = pair.submit()
        await trio.sleep(60)
        assert pair.ann.manager.get_task(task_id).attempt == 0
        async with pair.ben.running():
            pair.ann.network.keep(pair.ben.network.addresses[0])
            await check_recovery(pair, task_id)


async def test_a_worker_that_starts_again_without_memory_executes_the_task_again(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It knows nothing of it: no accepted task is lost, and the result is recorded once."""
    pair = Pair(hub, ScriptedExecutor())
    pair.executor.then(Hang(), Return("done"))
    async with pair.ann.running():
        pair.ann.network.keep(pair.ben.network.addresses[0])
        async with pair.ben.running():
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
        await trio.sleep(1)
        pair.ben = MemoryNode(hub, "ben", [pair.executor], former=pair.ben)
        async with pair.ben.running():
            await check_recovery(pair, task_id, executions=2)


async def test_a_worker_that_starts_again_with_its_store_keeps_what_it_had_done(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A result that was recorded before the crash is given to whoever asks again, and nothing is executed twice."""
    pair = Pair(hub, ScriptedExecutor())
    async with pair.ann.running():
        pair.ann.network.keep(pair.ben.network.addresses[0])
        async with pair.ben.running():
            pair.hub.drop_next(pair.ben.peer_id, pair.ann.peer_id, Result)
            task_id = pair.submit()
            await until(lambda: pair.ben.manager.get_result(task_id) is not None)
        await trio.sleep(1)
        pair.ben = MemoryNode(hub, "ben", [pair.executor], store=pair.ben.store, former=pair.ben)
        async with pair.ben.running():
            await check_recovery(pair, task_id)


async def test_a_requester_that_starts_again_gets_the_result_of_what_it_had_asked(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Its store tells what it asked whom; the worker, who survived, attaches the request to what it has."""
    pair = Pair(hub, ScriptedExecutor())
    pair.executor.then((Delay(30_000), Return("done")))
    async with pair.ben.running():
        async with pair.ann.running():
            await pair.ann.connect(pair.ben)
            task_id = pair.submit()
            await pair.executor.wait_until_begun(1)
        pair.ann = MemoryNode(hub, "ann", store=pair.ann.store, former=pair.ann)
        pair.ann.feed.listen(pair.told.append)
        async with pair.ann.running():
            await check_recovery(pair, task_id)


@asynccontextmanager
async def asker_of_what_hangs(pair: Pair, store: Store) -> AsyncIterator[TaskId]:
    """Let the pair have a requester with this store, whose task has begun at the worker and will not end by itself."""
    pair.executor.then(Hang())
    pair.ann = MemoryNode(pair.hub, "asker", store=store)
    async with pair.ann.running():
        await pair.ann.connect(pair.ben)
        task_id = pair.submit()
        await pair.executor.wait_until_begun(1)
        yield task_id


async def test_a_requester_that_crashed_while_it_cancelled_still_stops_the_worker(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """For its requester the task is cancelled at the start; the worker, who has not heard of it, is told."""
    pair, store = Pair(hub, ScriptedExecutor()), HeldStore()
    async with pair.ben.running():
        async with asker_of_what_hangs(pair, store) as task_id:
            store.hold()
            hub.drop_next(pair.ann.peer_id, pair.ben.peer_id, Cancel)
            pair.ann.manager.cancel_task(task_id)
            store.commit()
            store.lose()
        store.release()
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
            await until(lambda: not pair.executor.running)
            assert pair.ben.manager.get_task(task_id).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("crashed", [True, False])
async def test_a_cancel_is_owed_however_often_the_requester_has_ended_since(
    autojump_clock: MockClock, hub: MemoryHub, *, crashed: bool
) -> None:
    """What its store tells is enough: the worker is told when it is connected, whether anything was told before."""
    pair, store = Pair(hub, ScriptedExecutor()), HeldStore()
    async with pair.ben.running():
        async with asker_of_what_hangs(pair, store) as task_id:
            hub.drop_next(pair.ann.peer_id, pair.ben.peer_id, Cancel)
            pair.ann.manager.cancel_task(task_id)
            if crashed:
                store.lose()
        pair.cut()
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            assert (await pair.ann.wait(task_id)).status is TaskStatus.CANCELLED
            await trio.sleep(5)
            assert pair.executor.running == 1
        pair.ann = MemoryNode(hub, "asker", store=store, former=pair.ann)
        async with pair.ann.running():
            pair.heal()
            await until(lambda: not pair.executor.running)
            assert pair.ben.manager.get_task(task_id).status in {TaskStatus.CANCELLED, TaskStatus.CANCELLING}


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_task_moves_to_another_peer_only_when_its_policy_says_so(
    autojump_clock: MockClock, hub: MemoryHub, *, elsewhere: bool
) -> None:
    """When its worker is lost: after a second in which the worker might come back, or never."""
    async with pair_on(hub) as pair:
        spare = ScriptedExecutor()
        async with MemoryNode(hub, "cat", [spare]).running() as cat:
            await pair.ann.connect(cat)
            pair.executor.then((Delay(60_000), Return("from Ben")))
            spare.then(Return("from Cat"))
            task_id = pair.submit(retry=RetryPolicy(elsewhere=elsewhere))
            await pair.executor.wait_until_begun(1)
            pair.cut()
            await trio.sleep(0.5)
            assert spare.seen == []
            await trio.sleep(30)
            if not elsewhere:
                assert spare.seen == []
                pair.heal()
            record = await pair.ann.wait(task_id)
            assert record.result is not None
            assert record.result.result == ("from Cat" if elsewhere else "from Ben")


async def test_a_task_may_come_back_to_a_worker_that_was_lost_with_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It was not told to stop when another worker got the task, and is still at it."""
    async with pair_on(hub) as pair:
        gate = trio.Event()
        pair.executor.then((Until(gate), Return("from Ben")))
        cat = MemoryNode(hub, "cat", [other := ScriptedExecutor()])
        other.then(Hang())
        async with cat.running():
            await pair.ann.connect(cat)
            task_id = pair.submit(retry=RetryPolicy(elsewhere=True))
            await pair.executor.wait_until_begun(1)
            pair.cut()
            await other.wait_until_begun(1)
            pair.heal()
            await until(lambda: pair.ann.network.channel(pair.ben.peer_id) is not None)
            hub.cut(pair.ann.peer_id, cat.peer_id)
            await trio.sleep(30)
            gate.set()
            record = await pair.ann.wait(task_id)
            assert record.result is not None
            assert record.result.result == "from Ben"
            assert len(pair.executor.seen) == 1
            hub.heal(pair.ann.peer_id, cat.peer_id)
            await until(lambda: not other.running)


async def test_a_task_for_anybody_moves_on_when_its_worker_is_lost(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """Whoever is there does it; the requester itself if nobody else is."""
    async with pair_on(hub) as pair:
        pair.executor.on("a prompt", Hang())
        task_id = pair.ann.submit(kind="scripted")
        await pair.executor.wait_until_begun(1)
        own = ScriptedExecutor()
        pair.ann.executors[own.kind] = own
        pair.cut()
        record = await pair.ann.wait(task_id)
        assert record.result is not None
        assert record.holder == pair.ann.peer_id


async def test_a_worker_that_was_lost_is_told_when_another_one_has_its_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It stops when it is back, and works on what somebody waits for."""
    async with pair_on(hub) as pair:
        pair.executor.on("a prompt", Hang())
        task_id = pair.ann.submit(kind="scripted")
        await pair.executor.wait_until_begun(1)
        own = ScriptedExecutor()
        pair.ann.executors[own.kind] = own
        pair.cut()
        await pair.ann.wait(task_id)
        assert pair.executor.running == 1
        pair.heal()
        assert (await pair.ben.wait(task_id)).status is TaskStatus.CANCELLED
        assert pair.executor.running == 0


async def test_a_worker_that_cannot_save_is_busy_and_costs_nobody_a_task(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Its disk is not the requester's trouble: a named task waits for it, and others go to whoever has room."""
    store = HeldStore()
    async with pair_on(hub, store=store) as pair:
        cat = MemoryNode(hub, "cat", [ScriptedExecutor()])
        async with cat.running():
            await pair.ann.connect(cat)
            store.failure = PeertaskError("no room is left on /home/ben", code=ErrorCode.STORE_FAILED)
            anywhere = [pair.ann.submit(f"prompt {number}", kind="scripted") for number in range(20)]
            named = pair.submit("named")
            for task_id in anywhere:
                record = await pair.ann.wait(task_id)
                assert (record.status, record.holder) == (TaskStatus.COMPLETE, cat.peer_id)
            await trio.sleep(10)
            assert not pair.ann.manager.get_task(named).terminal
            assert not any("/home/ben" in fact.message for fact in pair.facts(Released))
            store.failure = None
            assert (await pair.ann.wait(named)).status is TaskStatus.COMPLETE


async def test_slots_at_a_peer_are_right_after_reconnections(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """However often the link breaks, the requester has as many tasks under way as the worker takes, and never more."""
    async with pair_on(hub, limits=Limits(in_flight=4)) as pair:
        for number in range(60):
            pair.executor.on(f"prompt {number}", Delay(400))
        tasks = [pair.submit(f"prompt {number}") for number in range(60)]
        most = 0
        for _ in range(8):
            await trio.sleep(0.3)
            most = max(most, pair.ann.dispatcher.executing)
            pair.cut()
            await trio.sleep(0.05)
            pair.heal()
        for task_id in tasks:
            assert (await pair.ann.wait(task_id)).status is TaskStatus.COMPLETE
        assert most == 4
        assert len(pair.executor.seen) == 60
