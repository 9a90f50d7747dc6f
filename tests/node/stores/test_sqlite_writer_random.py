"""Whatever comes in whatever order, on a disk that fails now and then: nothing is lost, or saved out of its order."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from node.interfaces import Change
from node.stores.sqlite.batch import Forgotten, Item, NewTasks
from node.stores.sqlite.held import HELD_S
from node.stores.sqlite.writer import GroupWriter
from protocol import TaskId
from tests.node.stores.lives import birth, life
from tests.node.stores.writers import Disk, full_disk, writing

steps = st.one_of(
    st.tuples(st.just("begin"), st.integers(1, 4)),
    st.tuples(st.just("go on"), st.integers(0, 20)),
    st.tuples(st.just("graph"), st.integers(1, 3)),
    st.tuples(st.just("forget"), st.integers(0, 20)),
    st.tuples(st.just("rest"), st.sampled_from([0.0, HELD_S / 2, 2 * HELD_S])),
    st.tuples(st.sampled_from(["hurry", "wait", "fail"]), st.none()),
)


class Run:
    """What was put in line, beside what the disk and the loop were given."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.told: list[Change] = []
        self.put: dict[TaskId, list[Change]] = {}
        self._left: list[list[Change]] = []
        self._forgotten: set[TaskId] = set()

    async def do(self, writer: GroupWriter, step: str, value: Any) -> None:
        """Take one step."""
        match step, value:
            case "begin", int(changes):
                self._left.append(life())
                self._put(writer, self._left[-1], changes)
            case "go on", int(number) if self._left:
                self._put(writer, self._left[number % len(self._left)], 1)
            case "graph", int(tasks):
                self._note(writer, NewTasks(birth() for _ in range(tasks)))
            case "forget", int(number) if self.put:
                self._forget(writer, list(self.put)[number % len(self.put)])
            case "rest", float(seconds):
                await trio.sleep(seconds)
            case "hurry", _:
                writer.hurry()
            case "fail", _:
                self.disk.errors.append(full_disk())
            case "wait", _:
                await writer.wait_saved()
                assert writer.failure is not None or len(self.told) == sum(map(len, self.put.values()))

    def _put(self, writer: GroupWriter, left: list[Change], changes: int) -> None:
        if left:
            self._note(writer, tuple(left[:changes]))
            del left[:changes]

    def _note(self, writer: GroupWriter, item: Item) -> None:
        for change in item:
            assert isinstance(change, Change)
            self.put.setdefault(change.record.id, []).append(change)
        writer.put(item)

    def _forget(self, writer: GroupWriter, task_id: TaskId) -> None:
        self._left = [left for left in self._left if left and left[0].record.id != task_id]
        self._forgotten.add(task_id)
        writer.put(Forgotten([task_id]))

    def check(self) -> None:
        """Compare all at the end."""
        told: dict[TaskId, list[Change]] = {}
        for change in self.told:
            told.setdefault(change.record.id, []).append(change)
        assert told == self.put
        assert self.told == self.disk.changes
        for task_id in self._forgotten:
            assert self._commit_of(Forgotten([task_id])) >= max(map(self._commit_of, self.put[task_id]))

    def _commit_of(self, item: Change | Forgotten) -> int:
        """Return the number of the commit that a change, or a forgetting of one task, was in first."""
        return next(
            number
            for number, batch in enumerate(self.disk.batches)
            if (batch.forgotten.issuperset(item) if isinstance(item, Forgotten) else item in batch.changes)
        )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=60))
def test_nothing_is_lost_or_saved_out_of_its_order(course: list[tuple[str, Any]]) -> None:
    """A task is forgotten after all of its changes; who waits is told when all is saved, and no sooner."""

    async def run_all() -> None:
        run = Run(Disk())
        async with writing(run.disk, lambda batch, _refusals: run.told.extend(batch.changes)) as writer:
            for step, value in course:
                await run.do(writer, step, value)
        run.check()

    trio.run(run_all, clock=MockClock(autojump_threshold=0))
