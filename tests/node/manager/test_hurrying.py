"""When a store is told that somebody cannot wait."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from node.testing import HeldStore
from protocol import TaskRecord
from tests.node.manager.bench import running


class HurriedStore(HeldStore):
    """Counts how often somebody could not wait."""

    hurries = 0

    def hurry(self) -> None:
        """Count."""
        self.hurries += 1


async def test_the_store_hurries_for_a_task_that_waits_its_turn_and_not_for_one_that_has_begun() -> None:
    """Its turn may come at any moment, and it has one when it is saved."""
    store = HurriedStore()
    async with running(store) as bench:

        def begin(record: TaskRecord, _fresh: bool) -> None:  # noqa: FBT001 - as the manager calls it
            bench.begin(record.id)

        store.hold()
        bench.submit()
        assert store.hurries == 1
        bench.manager.on_unsaved(begin)
        bench.submit()
        assert store.hurries == 1
        bench.manager.on_unsaved(lambda _record, _fresh: None)
        bench.submit()
        assert store.hurries == 2
        store.release()


async def test_the_store_hurries_for_who_waits_until_a_task_is_saved() -> None:
    """Whoever enqueues it, watches it, or stops the node; not for who waits until it has ended."""
    store = HurriedStore()
    async with running(store) as bench, trio.open_nursery() as nursery:
        store.hold()
        task_id = bench.submit()
        store.hurries = 0

        async def watch() -> None:
            async with bench.manager.watch(task_id) as changes:
                async for _ in changes:
                    return

        for waits, hurried in ((bench.manager.wait, 0), (bench.manager.wait_saved, 1)):
            nursery.start_soon(waits, task_id)
            await wait_all_tasks_blocked()
            assert store.hurries == hurried
        for wait, hurried in ((watch, 2), (bench.manager.settle, 3)):
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert store.hurries == hurried
        store.release()
        bench.begin(task_id)
        bench.complete(task_id, "done")
