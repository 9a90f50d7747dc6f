"""Callers that wait until the map has room for their tasks."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.testing import wait_all_tasks_blocked

from node.interfaces import Change
from node.stores.memory import MemoryStore
from node.testing import make_task
from protocol import (
    ErrorCode,
    PeertaskError,
    Task,
    TaskId,
)
from tests.node.manager.bench import Bench, running


class Queue:
    """Callers that wait for room and then submit, as `Node.enqueue` does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.events: list[str] = []

    async def call(self, name: str, task: Task | None = None) -> None:
        """Submit a task as soon as there is room."""
        task = task or make_task()
        while True:
            try:
                self._bench.submit(task)
            except PeertaskError as error:
                if error.code is not ErrorCode.BUSY:
                    self.events.append(f"{name} {error.code}")
                    return
                await self._bench.manager.wait_for_room()
            else:
                self.events.append(name)
                return

    async def let(self, nursery: trio.Nursery, *names: str) -> None:
        """Let callers of these names wait, in this order."""
        for name in names:
            nursery.start_soon(self.call, name)
            await wait_all_tasks_blocked()


async def test_callers_wait_for_room_in_turn() -> None:
    """Each task that ends lets the next one in."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        await queue.let(nursery, "first", "second", "third")
        for expected in (["first"], ["first", "second"], ["first", "second", "third"]):
            assert queue.events == expected
            bench.manager.cancel_task(bench.told[-1].record.id)
            await wait_all_tasks_blocked()


async def test_there_is_no_waiting_while_there_is_room(bench: Bench) -> None:
    """The call returns at once."""
    await bench.manager.wait_for_room()


async def test_room_that_one_caller_has_no_use_for_goes_to_the_next() -> None:
    """A task that became known, or was refused, meanwhile: those behind are not left to wait for nothing."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        task = make_task("known before its turn")
        blocker = bench.submit(task)
        conflict = make_task("another", id=task.id)
        nursery.start_soon(queue.call, "conflict", conflict)
        await wait_all_tasks_blocked()
        assert queue.events == ["conflict CONFLICT"]
        late = make_task("late")
        for name in ("late", "late again"):
            nursery.start_soon(queue.call, name, late)
            await wait_all_tasks_blocked()
        await queue.let(nursery, "last")
        bench.manager.cancel_task(blocker)
        await wait_all_tasks_blocked()
        bench.manager.cancel_task(late.id)
        await wait_all_tasks_blocked()
        assert queue.events == ["conflict CONFLICT", "late", "late again", "last"]


async def test_room_for_a_task_that_the_store_refuses_goes_to_the_next() -> None:
    """What another program has there already takes no place in this node."""

    class ConflictingStore(MemoryStore):
        taken: TaskId | None = None

        def append(self, changes: Sequence[Change]) -> None:
            if changes[0].record.id == self.taken:
                raise PeertaskError("it is there already", code=ErrorCode.CONFLICT)
            super().append(changes)

    store, task = ConflictingStore(), make_task("taken")
    async with running(store, open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        blocker, store.taken = bench.submit(), task.id
        nursery.start_soon(queue.call, "taken", task)
        await wait_all_tasks_blocked()
        await queue.let(nursery, "next")
        bench.manager.cancel_task(blocker)
        await wait_all_tasks_blocked()
        assert queue.events == ["taken CONFLICT", "next"]


async def test_those_who_wait_for_room_learn_that_the_node_stops() -> None:
    """A node whose queue does not move any more does not keep its callers."""
    async with running(open_tasks=1) as bench, trio.open_nursery() as nursery:
        queue = Queue(bench)
        await queue.let(nursery, "first", "second", "third")
        bench.manager.draining = True
        await wait_all_tasks_blocked()
        assert sorted(queue.events) == ["first", "second DRAINING", "third DRAINING"]
