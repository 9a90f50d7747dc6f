"""The feed: order, removal, bounds, and what is left when a task has ended."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.feed import Feed, Subscription
from node.interfaces import Change, Lagged
from node.testing import START_MS, TEST_PEER, make_task
from protocol import (
    Claimed,
    Completed,
    Progressed,
    Started,
    Submitted,
    Task,
    TaskResult,
    Transition,
    advance,
    begin,
)


def life(task: Task, reports: int = 0) -> list[Change]:
    """The changes of a task that completes, with some progress."""
    submitted = Submitted(task, START_MS, TEST_PEER)
    changes = [Change(begin(submitted), submitted)]
    facts: list[Transition] = [
        Claimed(task.id, START_MS, 1, TEST_PEER, START_MS + 30_000),
        Started(task.id, START_MS, 1),
        *[Progressed(task.id, START_MS, 1, 0.5, f"step {n}", START_MS + 30_000) for n in range(reports)],
        Completed(task.id, START_MS, 1, TaskResult(task.id, "done", 1)),
    ]
    for fact in facts:
        changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes


def publish(feed: Feed, *changes: Change) -> None:
    """Publish these, in order."""
    for change in changes:
        feed.publish((change,))


async def read_all(subscription: Subscription) -> list[Change | Lagged]:
    """Read until nothing more comes."""
    read: list[Change | Lagged] = []

    async def reader() -> None:
        async for change in subscription:
            read.append(change)  # noqa: PERF401 - an extend would add nothing when it is cancelled

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return read


def test_every_listener_hears_every_change_in_order() -> None:
    """The order of publishing is the order of hearing, for all tasks together."""
    feed = Feed()
    heard: list[list[Change]] = [[], []]
    for ears in heard:
        feed.listen(ears.append)
    one, other = life(make_task()), life(make_task())
    mixed = [change for pair in zip(one, other, strict=True) for change in pair]
    publish(feed, *mixed)
    assert heard == [mixed, mixed]


def test_a_change_that_a_listener_causes_comes_after_the_one_that_caused_it() -> None:
    """Also for listeners that are told later, and for those of the task alone."""
    feed = Feed()
    changes = life(make_task(), reports=3)
    heard: list[Change] = []
    heard_of_task: list[Change] = []

    def cause_next(change: Change) -> None:
        following = changes.index(change) + 1
        if following < len(changes):
            feed.publish((changes[following],))

    feed.listen(cause_next)
    feed.listen(heard.append)
    feed.listen_to(changes[0].record.id, heard_of_task.append)
    feed.publish((changes[0],))
    assert heard == changes
    assert heard_of_task == changes


def test_a_listener_that_was_removed_hears_nothing_more() -> None:
    """Removing one leaves the others; removing one that is not there changes nothing."""
    feed = Feed()
    changes = life(make_task())
    task_id = changes[0].record.id
    stays: list[Change] = []
    goes: list[Change] = []
    for listener in (stays.append, goes.append):
        feed.listen(listener)
        feed.listen_to(task_id, listener)
    feed.unlisten(goes.append)
    feed.unlisten_to(task_id, goes.append)
    feed.unlisten_to(task_id, goes.append)
    feed.unlisten_to(make_task().id, goes.append)
    publish(feed, *changes)
    assert goes == []
    assert stays == [change for change in changes for _ in range(2)]


def test_a_listener_may_remove_itself_while_it_is_told() -> None:
    """The others still hear the change."""
    feed = Feed()
    first, second, *_ = life(make_task())
    once: list[Change] = []
    always: list[Change] = []

    def hear_once(change: Change) -> None:
        once.append(change)
        feed.unlisten_to(change.record.id, hear_once)

    feed.listen_to(first.record.id, hear_once)
    feed.listen_to(first.record.id, always.append)
    publish(feed, first, second)
    assert (once, always) == ([first], [first, second])


def test_the_listeners_of_a_task_are_dropped_after_its_last_change() -> None:
    """Whoever waits for a result need not clean up, and the feed holds on to nobody."""
    feed = Feed()
    changes, others = life(make_task()), life(make_task())
    heard: list[Change] = []
    feed.listen_to(changes[0].record.id, heard.append)
    feed.listen_to(others[0].record.id, heard.append)
    publish(feed, *changes, *changes, others[0])
    assert heard == [*changes, others[0]]


async def test_a_subscriber_gets_the_changes_of_its_task_or_of_all() -> None:
    """From when it subscribed until it leaves."""
    feed = Feed()
    one, other = life(make_task()), life(make_task())
    with feed.subscribe(one[0].record.id) as mine, feed.subscribe() as everything:
        publish(feed, *one, *other)
        assert await read_all(mine) == one
        assert await read_all(everything) == [*one, *other]
    publish(feed, *life(make_task()))
    assert await read_all(everything) == []


async def test_a_subscriber_that_left_is_not_kept() -> None:
    """Neither for one task that goes on nor for all."""
    feed = Feed()
    first, second, *_ = life(make_task())
    with feed.subscribe(first.record.id) as mine, feed.subscribe() as everything:
        feed.publish((first,))
        await read_all(mine)
        await read_all(everything)
    feed.publish((second,))
    assert await read_all(mine) == []
    assert await read_all(everything) == []


@pytest.mark.parametrize("missed", [1, 5, 1_000])
async def test_a_slow_subscriber_is_told_how_many_changes_it_missed(missed: int) -> None:
    """The buffer is bounded, the newest stay, and the gap stands where the changes were."""
    feed = Feed()
    buffer = 4
    changes = life(make_task(), reports=missed)
    with feed.subscribe(buffer=buffer) as subscription:
        publish(feed, *changes)
        assert await read_all(subscription) == [Lagged(len(changes) - buffer), *changes[-buffer:]]
        again = life(make_task())
        publish(feed, again[0])
        assert await read_all(subscription) == [again[0]]


async def test_a_subscriber_that_waits_is_woken() -> None:
    """A change reaches a reader that was there first, and a cancelled reader loses none."""
    feed = Feed()
    first, second, *_ = life(make_task())
    with feed.subscribe() as subscription:
        with trio.move_on_after(0):
            await anext(aiter(subscription))
        got: list[Change | Lagged] = []

        async def reader() -> None:
            got.append(await anext(aiter(subscription)))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await wait_all_tasks_blocked()
                publish(feed, first, second)
        assert got == [first]
        assert await read_all(subscription) == [second]
