"""Peers that refuse a task, are busy with others, or answer what cannot be."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.interfaces import Change
from node.retention import Capacity
from node.testing import (
    Delay,
    MemoryHub,
    Return,
    ScriptedExecutor,
)
from protocol import (
    DEFAULT_LIMITS,
    ErrorCode,
    Limits,
    Released,
    RetryPolicy,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode
from tests.node.remote.pairs import Pair, code_of, pair_on, until


async def test_a_kind_that_the_worker_does_not_have_is_refused_naming_its_kinds(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """NO_EXECUTOR at once, and nothing is recorded there."""
    record = await pair.run(kind="dance")
    assert code_of(record) is ErrorCode.NO_EXECUTOR
    assert record.failure is not None
    assert "echo, scripted" in record.failure.message
    assert "ben" in record.failure.message
    assert pair.ben.tasks_of(pair.ann) == []


async def test_a_closed_kind_is_refused_until_the_operator_allows_it(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """FORBIDDEN names the peer and what the operator can do."""
    async with pair_on(hub, ScriptedExecutor("private", safe=False)) as pair:
        record = await pair.run()
        assert code_of(record) is ErrorCode.FORBIDDEN
        assert record.failure is not None
        assert "--allow ann" in record.failure.message
        assert pair.ben.tasks_of(pair.ann) == []
        pair.ben.allow["private"] = (pair.ann.peer_id,)
        assert (await pair.run()).status is TaskStatus.COMPLETE


async def test_a_task_that_this_node_has_from_another_peer_conflicts(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A UUID that two requesters use names two tasks: the second one is told."""
    async with pair_on(hub) as pair, MemoryNode(hub, "eve").running() as eve:
        await eve.connect(pair.ben)
        first = await pair.run("first")
        stolen = eve.submit("second", to=pair.ben, kind="scripted", id=first.id)
        assert code_of(await eve.wait(stolen)) is ErrorCode.CONFLICT
        assert pair.ben.manager.get_task(first.id).requester == pair.ann.peer_id


async def test_a_task_that_is_too_large_for_the_worker_fails_before_it_is_sent(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The error names the limit; small tasks go on."""
    async with pair_on(hub, limits=Limits(payload=2_000)) as pair:
        record = await pair.run("x" * 3_000)
        assert code_of(record) is ErrorCode.TOO_LARGE
        assert record.failure is not None
        assert "2,000" in record.failure.message or "2000" in record.failure.message
        assert (await pair.run()).status is TaskStatus.COMPLETE


async def test_a_result_that_is_too_large_for_the_requester_is_a_failure(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The worker did the work, and says why its result cannot come; the session goes on."""
    executor = ScriptedExecutor()
    ann = MemoryNode(hub, "ann", limits=Limits(payload=2_000))
    ben = MemoryNode(hub, "ben", [executor])
    executor.on("large", Return("x" * 3_000))
    async with ann.running(), ben.running():
        await ann.connect(ben)
        assert code_of(await ann.run("large", to=ben, kind="scripted")) is ErrorCode.TOO_LARGE
        assert (await ann.run("small", to=ben, kind="scripted")).status is TaskStatus.COMPLETE
        assert len(executor.seen) == 2


async def test_a_busy_worker_is_asked_again_until_it_has_room(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """BUSY costs no retry: more tasks than the worker holds all complete, each executed once."""
    async with pair_on(hub, capacity=Capacity(open_tasks=3)) as pair:
        tasks = []
        for number in range(40):
            pair.executor.on(f"prompt {number}", Delay(30))
            tasks.append(pair.submit(f"prompt {number}", retry=RetryPolicy(attempts=1)))
        for task_id in tasks:
            record = await pair.ann.wait(task_id)
            assert (record.status, record.failures, record.lost_leases) == (TaskStatus.COMPLETE, 0, 0)
        assert len(pair.executor.seen) == 40
        assert {fact.reason for fact in pair.facts(Released)} == {ErrorCode.BUSY}


async def test_two_nodes_that_are_full_of_tasks_for_each_other_do_them(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """What a node waits for takes no room from what it is asked for, else both would be BUSY for ever."""
    capacity = Capacity(open_tasks=2)
    ann, ben = (MemoryNode(hub, name, capacity=capacity) for name in ("ann", "ben"))
    async with ann.running(), ben.running():
        await ann.connect(ben)
        asked = [(one, one.submit(to=other)) for one, other in ((ann, ben), (ben, ann)) for _ in range(2)]
        with trio.fail_after(60):
            for node, task_id in asked:
                assert (await node.wait(task_id)).status is TaskStatus.COMPLETE


@pytest.mark.slow
async def test_ten_thousand_tasks_at_a_worker_with_room_for_256_all_complete(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The requester keeps to what the worker announces: nothing is refused, and no more is under way than fits."""
    async with pair_on(hub) as pair:
        most = 0

        def measure(_change: Change) -> None:
            nonlocal most
            most = max(most, pair.ben.manager.open_tasks, pair.ann.dispatcher.executing)

        pair.ben.feed.listen(measure)
        tasks = [pair.submit(kind="echo") for _ in range(10_000)]
        await until(lambda: not pair.ann.manager.open_tasks)
        assert {pair.ann.manager.get_task(task_id).status for task_id in tasks} == {TaskStatus.COMPLETE}
        assert most <= DEFAULT_LIMITS.in_flight
        assert [record.attempt for record in pair.ben.tasks_of(pair.ann)] == [1] * 10_000
        assert pair.facts(Released) == []


async def test_a_worker_that_is_stopping_is_asked_again(autojump_clock: MockClock, pair: Pair) -> None:
    """DRAINING costs no retry; the task completes when the worker takes tasks again."""
    pair.ben.manager.draining = True
    task_id = pair.submit(retry=RetryPolicy(attempts=1))
    await trio.sleep(5)
    assert pair.ann.manager.get_task(task_id).status is not TaskStatus.FAILED
    pair.ben.manager.draining = False
    assert (await pair.ann.wait(task_id)).status is TaskStatus.COMPLETE
