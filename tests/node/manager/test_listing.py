"""Which tasks are listed, and in which order."""

from __future__ import annotations

from typing import Any

from node.interfaces import TaskFilter
from node.testing import HeldStore
from protocol import (
    TaskId,
    TaskStatus,
)
from tests.node.manager.bench import PEER, Bench, running


async def test_tasks_are_listed_the_newest_first(bench: Bench) -> None:
    """Filters narrow, and the limit counts what is left."""
    # covers CORE-12, CORE-27
    first = bench.submit(project="alpha", session_id="talk")
    second = bench.submit(requester=PEER, project="alpha")
    third = bench.finish(project="beta")
    assert [record.id for record in bench.manager.list_tasks()] == [third, second, first]

    def listed(**wanted: Any) -> list[TaskId]:
        return [record.id for record in bench.manager.list_tasks(TaskFilter(**wanted))]

    assert listed(limit=2) == [third, second]
    assert listed(limit=0) == []
    assert listed(project="alpha") == [second, first]
    assert listed(project="alpha", limit=1) == [second]
    assert listed(requester=PEER) == [second]
    assert listed(session_id="talk") == [first]
    assert listed(statuses=frozenset({TaskStatus.COMPLETE})) == [third]
    assert listed(statuses=frozenset({"pending", "complete"})) == [third, second, first]
    assert listed(statuses=frozenset()) == []


async def test_the_order_is_that_of_coming_however_they_are_saved() -> None:
    """What is not saved is not listed, and has its place when it is."""
    store = HeldStore()
    async with running(store) as bench:
        store.hold()
        first, second, third = (bench.submit() for _ in range(3))
        store.held.rotate(-1)  # a store that saves another task first
        store.commit()
        assert [record.id for record in bench.manager.list_tasks()] == [second]
        store.release()
        assert [record.id for record in bench.manager.list_tasks()] == [third, second, first]
