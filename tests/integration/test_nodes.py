"""Whole nodes over real hosts: tasks both ways, and what goes wrong with them."""

from __future__ import annotations

import os
import re
import time

import pytest
import trio

from node import Node, NodeConfig, open_node
from node.interfaces import Change, Execution
from node.testing import Hang, Raise, Report, Return, ScriptedExecutor, Until
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    PeertaskError,
    Progressed,
    Started,
    Submitted,
    TaskFailed,
    TaskId,
    TaskNotFound,
    TaskStatus,
)
from tests.integration.hosts import becomes_true
from tests.integration.node_functions import square
from tests.integration.nodes import cut, has_ended, two_nodes

FIVE_MEGABYTES = "0123456789" * 500_000


# --- Tasks -----------------------------------------------------------------------------------------------------------


async def test_tasks_go_both_ways_between_two_nodes() -> None:
    """One connects; afterwards each may ask the other, and both remember the task."""
    with trio.fail_after(30):
        async with two_nodes() as (one, other):
            for asks, works in ((one, other), (other, one)):
                task_id = await asks.enqueue("hello", to=works.peer_id, kind="echo")
                result = await asks.result(task_id)
                assert (result.task_id, result.result) == (task_id, "hello")
                for node in (asks, works):
                    record = await has_ended(node, task_id)
                    assert record.status is TaskStatus.COMPLETE
                    assert (record.requester, record.holder) == (asks.peer_id, works.peer_id)


async def test_an_address_as_the_target_is_dialled_first() -> None:
    """The peer need not be connected, nor known."""
    with trio.fail_after(30):
        async with open_node() as works, open_node() as asks:
            assert (await asks.submit("hi", to=works.addresses[0], kind="echo")).result == "hi"
            assert asks.peers()[0].connected


async def test_a_target_that_nobody_knows_is_unreachable_in_words() -> None:
    """Before a task is recorded."""
    with trio.fail_after(30):
        async with open_node() as works:
            gone, address = works.peer_id, works.addresses[0]
        async with open_node() as asks:
            for target in (gone, address):
                with pytest.raises(PeertaskError) as caught:
                    await asks.submit("hi", to=target)
                assert caught.value.code is ErrorCode.PEER_UNREACHABLE
            assert asks.list_tasks() == []


async def test_a_map_yields_each_result_once_as_they_come() -> None:
    """With bounded concurrency at the worker, whatever the order."""
    executor = ScriptedExecutor("work", slots=4)
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            prompts = [str(number) for number in range(100)]
            ended = [item async for item in asks.map(prompts, to=works.peer_id, kind="work", concurrency=10)]
            assert sorted(item.index for item in ended) == list(range(100))
            assert all(item.result is not None and item.result.result == item.prompt for item in ended)
            assert executor.most_at_once <= 4
            assert len(executor.seen) == 100


async def test_a_watch_sees_every_fact_of_a_remote_task_up_to_its_last() -> None:
    """In order, with the progress that the executor at the other node reports."""
    go_on = trio.Event()
    executor = ScriptedExecutor("work").on("x", Report(0.5, "half"), Until(go_on), Return("done"))
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            task_id = await asks.enqueue("x", to=works.peer_id, kind="work")
            facts = []
            async with asks.watch(task_id) as changes:
                async for change in changes:
                    assert isinstance(change, Change)
                    facts.append(change.fact)
                    if isinstance(change.fact, Progressed):
                        go_on.set()
            assert [type(fact) for fact in facts] == [Submitted, Claimed, Started, Progressed, Completed]
            progressed = facts[3]
            assert isinstance(progressed, Progressed)
            assert (progressed.fraction, progressed.message) == (0.5, "half")


async def test_cancelling_stops_the_execution_at_the_other_node() -> None:
    """Both records end as cancelled, and whoever waits for the result is told so."""
    executor = ScriptedExecutor("work").on("x", Hang())
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            task_id = await asks.enqueue("x", to=works.peer_id, kind="work")
            await executor.wait_until_begun(1)
            asks.cancel(task_id)
            with pytest.raises(TaskFailed) as caught:
                await asks.result(task_id)
            assert caught.value.failure.code is ErrorCode.CANCELLED
            await executor.wait_until_ended(1)
            assert executor.seen[0].ended == "cancelled"
            assert (await has_ended(works, task_id)).status is TaskStatus.CANCELLED
            assert asks.get_task(task_id).status is TaskStatus.CANCELLED


async def test_cancelling_a_submit_cancels_its_task_at_the_other_node() -> None:
    """A program that gives up leaves no work behind."""
    executor = ScriptedExecutor("work").on("x", Hang())
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: asks.submit("x", to=works.peer_id, kind="work"))
                await executor.wait_until_begun(1)
                nursery.cancel_scope.cancel()
            await executor.wait_until_ended(1)
            assert executor.seen[0].ended == "cancelled"


async def test_without_a_target_the_least_loaded_node_is_picked() -> None:
    """Its own executor while that is free, a peer with the kind when it is not; a kind of a peer goes there."""
    here, there = ScriptedExecutor("work", slots=1), ScriptedExecutor("work", slots=1)
    only_there = ScriptedExecutor("special")
    done = trio.Event()
    for executor in (here, there):
        executor.on("long", Until(done))
    with trio.fail_after(30):
        async with open_node(NodeConfig(), [there, only_there]) as peer, open_node(NodeConfig(), [here]) as node:
            await node.connect(peer.addresses[0])
            first = await node.enqueue("long", kind="work")
            await here.wait_until_begun(1)
            second = await node.enqueue("long", kind="work")
            await there.wait_until_begun(1)
            assert (await node.submit("x", kind="special")).result == "x"
            done.set()
            await node.result(first)
            await node.result(second)
            assert node.get_task(first).holder == node.peer_id
            assert node.get_task(second).holder == peer.peer_id


async def test_a_stranger_that_dialled_in_is_not_picked() -> None:
    """Whoever reaches the port may say that it does anything; it gets what names it, and no more."""
    lure = ScriptedExecutor("work", slots=100).on("x", Return("forged"))
    with trio.fail_after(30):
        async with open_node(NodeConfig(), [lure]) as stranger, open_node() as node:
            await stranger.connect(node.addresses[0])
            await becomes_true(lambda: node.peers()[0].connected)
            with pytest.raises(TaskFailed) as nobody:
                await node.submit("x", kind="work", timeout=0.3)
            assert nobody.value.code is ErrorCode.DEADLINE_EXCEEDED
            assert lure.seen == []
            assert (await node.submit("x", kind="work", to=stranger.peer_id)).result == "forged"


async def test_the_trace_context_travels_with_a_task() -> None:
    """In its metadata, unchanged."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    executor = ScriptedExecutor("work")
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            metadata = {"traceparent": traceparent, "tenant": "blue"}
            await asks.submit("x", to=works.peer_id, kind="work", metadata=metadata)
            assert executor.seen[0].task.metadata == metadata


# --- Functions -------------------------------------------------------------------------------------------------------


def register_functions(node: Node) -> None:
    """Register a function of each sort."""

    @node.task("shout")
    async def shout(prompt: str, execution: Execution) -> str:
        execution.progress(0.5, "taking a breath")
        await trio.sleep(0)
        return prompt.upper()

    @node.task("reverse")
    def reverse(prompt: str) -> str:
        return prompt[::-1]

    node.task("square", run_in="process")(square)


def kinds_told_to(node: Node) -> tuple[str, ...]:
    """What the one peer of a node has said that it offers."""
    (info,) = node.peers()
    assert info.advert is not None
    return info.advert.kinds


async def test_functions_are_used_by_peers_that_are_allowed_and_refused_to_others() -> None:
    """Async, in a thread and in a process; the refusal says who may change it, and nothing is recorded there."""
    with trio.fail_after(60):
        async with open_node() as friend, open_node() as stranger:
            config = NodeConfig(allow={"*": (friend.peer_id,)})
            async with open_node(config) as works:
                register_functions(works)
                address = works.addresses[0]
                assert (await friend.submit("hey", to=address, kind="shout")).result == "HEY"
                assert (await friend.submit("abc", to=address, kind="reverse")).result == "cba"
                computed = (await friend.submit("12", to=address, kind="square")).result
                assert re.fullmatch(r"144 from \d+", computed)
                assert not computed.endswith(f" {os.getpid()}")
                kept = len(works.list_tasks())
                for kind in ("shout", "reverse", "square"):
                    with pytest.raises(TaskFailed) as caught:
                        await stranger.submit("x", to=address, kind=kind)
                    assert caught.value.failure.code is ErrorCode.FORBIDDEN
                    assert f"--allow {stranger.peer_id}" in caught.value.failure.message
                with pytest.raises(TaskFailed) as caught:
                    await stranger.submit("x", to=address, kind="unheard-of")
                assert caught.value.failure.code is ErrorCode.NO_EXECUTOR
                assert "are: echo, mock" in caught.value.failure.message
                assert len(works.list_tasks()) == kept
                assert kinds_told_to(friend) == ("echo", "mock", "reverse", "shout", "square")
                assert kinds_told_to(stranger) == ("echo", "mock")


async def test_the_progress_of_a_function_reaches_the_watch_of_the_requester() -> None:
    """Over the session, as it happens."""
    with trio.fail_after(30):
        async with open_node() as asks, open_node(NodeConfig(allow={"*": (asks.peer_id,)})) as works:
            register_functions(works)
            await asks.connect(works.addresses[0])
            task_id = await asks.enqueue("x", to=works.peer_id, kind="shout")
            async with asks.watch(task_id) as changes:
                seen = [change async for change in changes]
            reports = [c.fact.message for c in seen if isinstance(c, Change) and isinstance(c.fact, Progressed)]
            assert reports == ["taking a breath"]


async def test_what_a_function_raises_fails_the_task_without_the_traceback() -> None:
    """The message and the type travel, the node's own files do not."""
    executor = ScriptedExecutor("work").on("x", Raise(ZeroDivisionError("by zero")))
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            with pytest.raises(TaskFailed) as caught:
                await asks.submit("x", to=works.peer_id, kind="work")
            assert caught.value.failure.code is ErrorCode.EXECUTION_FAILED
            assert "ZeroDivisionError: by zero" in caught.value.failure.message
            assert ".py" not in caught.value.failure.message
            assert len(executor.seen) == 1


# --- Sizes -----------------------------------------------------------------------------------------------------------


async def test_small_tasks_are_not_held_up_by_large_ones() -> None:
    """5 MB there and back, several at once; a small one in between takes a fraction of their time."""
    with trio.fail_after(60):
        async with two_nodes() as (asks, works):
            large_took: list[float] = []
            small_took: list[float] = []

            async def submit_large() -> None:
                began = trio.current_time()
                assert (await asks.submit(FIVE_MEGABYTES, to=works.peer_id, kind="echo")).result == FIVE_MEGABYTES
                large_took.append(trio.current_time() - began)

            async def submit_small() -> None:
                while len(large_took) < 3:
                    began = trio.current_time()
                    assert (await asks.submit("small", to=works.peer_id, kind="echo")).result == "small"
                    small_took.append(trio.current_time() - began)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(submit_large)
                nursery.start_soon(submit_small)
            assert len(small_took) > 3
            assert sorted(small_took)[len(small_took) // 2] < max(large_took) / 4


async def test_what_is_too_large_for_the_peer_is_refused_before_sending() -> None:
    """Naming the limit that the peer has announced; the session and other tasks go on."""
    with trio.fail_after(30):
        async with two_nodes(worker=NodeConfig(payload_bytes=100_000)) as (asks, works):
            with pytest.raises(TaskFailed) as caught:
                await asks.submit("x" * 200_000, to=works.peer_id, kind="echo")
            assert caught.value.failure.code is ErrorCode.TOO_LARGE
            assert "100,000 bytes" in caught.value.failure.message
            assert works.list_tasks() == []
            assert (await asks.submit("x" * 90_000, to=works.peer_id, kind="echo")).result == "x" * 90_000


async def test_a_result_that_is_too_large_for_the_requester_fails_the_task_in_words() -> None:
    """The worker learns the limit from the requester's Hello, and says so instead of sending."""
    executor = ScriptedExecutor("work").on("x", Return("y" * 300_000))
    with trio.fail_after(30):
        async with two_nodes([executor], requester=NodeConfig(payload_bytes=100_000)) as (asks, works):
            with pytest.raises(TaskFailed) as caught:
                await asks.submit("x", to=works.peer_id, kind="work")
            assert caught.value.failure.code is ErrorCode.TOO_LARGE
            assert "100,000 bytes" in caught.value.failure.message


async def test_a_prompt_that_no_node_takes_is_refused_at_once() -> None:
    """Naming the field and the limit; no task is recorded."""
    with trio.fail_after(30):
        async with two_nodes() as (asks, works):
            with pytest.raises(PeertaskError) as caught:
                await asks.submit("x" * 20_000_000, to=works.peer_id, kind="echo")
            assert caught.value.code in {ErrorCode.INVALID_TASK, ErrorCode.TOO_LARGE}
            assert "prompt" in str(caught.value)
            assert asks.list_tasks() == []


# --- Exceptions and the end ------------------------------------------------------------------------------------------


async def test_exceptions_come_out_of_a_node_as_they_are() -> None:
    """A program catches TaskFailed round its whole block, not a group that holds it."""
    with trio.fail_after(60):
        with pytest.raises(TaskFailed):
            async with two_nodes() as (asks, works):
                await asks.submit("x", to=works.peer_id, kind="unheard-of")
        with pytest.raises(TaskNotFound):
            async with open_node() as node:
                node.get_task("6f1c1c5e-9a4b-4c58-8a53-0e7a3d1b2c3d")
        with pytest.raises(KeyError, match="mine"):
            async with two_nodes():
                raise KeyError("mine")


async def test_a_worker_that_stops_ends_its_executions_and_the_requester_keeps_the_task() -> None:
    """The task waits for the worker, and its failure is not made up."""
    executor = ScriptedExecutor("work").on("x", Hang())
    with trio.fail_after(30):
        async with open_node() as asks:
            async with open_node(NodeConfig(), [executor]) as works:
                await asks.connect(works.addresses[0])
                task_id = await asks.enqueue("x", to=works.peer_id, kind="work")
                await executor.wait_until_begun(1)
            assert executor.seen[0].ended == "cancelled"
            assert executor.running == 0
            await becomes_true(lambda: asks.get_task(task_id).status is TaskStatus.PENDING)
            asks.cancel(task_id)
            with pytest.raises(TaskFailed):
                await asks.result(task_id)


async def test_a_requester_that_stops_with_tasks_under_way_leaves_promptly() -> None:
    """Whoever waited for a result is cancelled with the block, and nothing hangs."""
    executor = ScriptedExecutor("work").on("x", Hang())
    with trio.fail_after(30):
        async with open_node(NodeConfig(), [executor]) as works:
            async with open_node() as asks:
                await asks.connect(works.addresses[0])
                for _ in range(20):
                    await asks.enqueue("x", to=works.peer_id, kind="work")
                await executor.wait_until_begun(16)
                began = time.monotonic()
            assert time.monotonic() - began < 3
            await becomes_true(lambda: not works.peers()[0].connected)


# --- Lost connections ------------------------------------------------------------------------------------------------


def all_execute(node: Node, attempt: int) -> bool:
    """Whether every task of a node executes, as far as it knows, in a certain attempt."""
    return all((task.status, task.attempt) == (TaskStatus.EXECUTING, attempt) for task in node.list_tasks())


async def test_a_connection_that_is_cut_mid_task_loses_nothing() -> None:
    """The requester attaches again and gets the result; the task is executed once, and recorded once at both ends."""
    done = trio.Event()
    executor = ScriptedExecutor("work", slots=50)
    for number in range(20):
        executor.on(str(number), Until(done))
    completions: dict[str, list[TaskId]] = {"asks": [], "works": []}
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            for name, node in (("asks", asks), ("works", works)):

                def note(change: Change, name: str = name) -> None:
                    if isinstance(change.fact, Completed):
                        completions[name].append(change.record.id)

                node.feed.listen(note)
            task_ids = [await asks.enqueue(str(number), to=works.peer_id, kind="work") for number in range(20)]
            await executor.wait_until_begun(20)
            for attempt, (node, peer) in enumerate(((asks, works), (works, asks)), 2):
                await cut(node, peer.peer_id)
                await becomes_true(lambda attempt=attempt: all_execute(asks, attempt))  # type: ignore[misc]
            done.set()
            results = [await asks.result(task_id) for task_id in task_ids]
            assert [result.result for result in results] == [str(number) for number in range(20)]
            assert len(executor.seen) == 20
            for completed in completions.values():
                assert sorted(completed) == sorted(task_ids)


async def test_a_result_that_came_while_the_requester_was_cut_off_is_fetched() -> None:
    """The worker finishes alone; the requester gets the same result when it is back, without another execution."""
    done = trio.Event()
    executor = ScriptedExecutor("work").on("x", Until(done), Return("result"))
    with trio.fail_after(30):
        async with two_nodes([executor]) as (asks, works):
            task_id = await asks.enqueue("x", to=works.peer_id, kind="work")
            await executor.wait_until_begun(1)
            await cut(works, asks.peer_id)
            done.set()
            await executor.wait_until_ended(1)
            assert (await asks.result(task_id)).result == "result"
            assert len(executor.seen) == 1


async def test_two_nodes_that_dial_each_other_at_once_lose_no_task() -> None:
    """Tasks that went out on the session that is given up are asked for again on the one that stays."""
    with trio.fail_after(60):
        for _ in range(5):
            async with open_node() as one, open_node() as other:
                results: list[str] = []

                async def ask(node: Node, peer: Node, results: list[str] = results) -> None:
                    for number in range(5):
                        text = f"{number}"
                        results.append((await node.submit(text, to=peer.addresses[0], kind="echo")).result)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, one, other)
                    nursery.start_soon(ask, other, one)
                assert sorted(results) == sorted([str(number) for number in range(5)] * 2)
                for node in (one, other):
                    assert all(record.terminal for record in node.list_tasks())
                    assert len(node.list_tasks()) == 10
