"""How many tasks complete where executions fail and workers die, on a clock that jumps."""

# covers COORD-61

from __future__ import annotations

import random
from collections import Counter

import trio
from trio.testing import MockClock

from node.background import open_background
from node.interfaces import Change, Execution, Executor, Output
from node.retrying import submit_again
from node.testing import MemoryHub, open_memory_hub
from protocol import Completed, ErrorCode, PeertaskError, RetryPolicy, TaskId, TaskStatus
from tests.node.memory_node import TEST_S, MemoryNode

SEED = 61
TASKS, WORKERS, SLOTS = 5_000, 5, 64
# One of five executions fails, so one of fifteen thousand tasks fails six times.
FAILING, POLICY = 0.2, RetryPolicy(attempts=6, retry_on=(ErrorCode.EXECUTION_FAILED,))
# Each worker dies about as often as it has done its share of a hundred tasks.
LIFE_S, AWAY_S = (0.2, 2.0), (0.05, 0.5)


class Unreliable(Executor):
    """Takes 50 to 500 ms, and fails as often as it is told.

    Attributes:
        executions: how many have ended by themselves.
        failures: how many of them failed.
    """

    kind, slots, safe = "unreliable", SLOTS, True

    def __init__(self, rng: random.Random, failing: float) -> None:
        self.executions = self.failures = 0
        self._rng = rng
        self._failing = failing

    async def execute(self, execution: Execution) -> Output:
        """Return the prompt, or fail."""
        await trio.sleep(self._rng.uniform(0.05, 0.5))
        self.executions += 1
        if self._rng.random() < self._failing:
            self.failures += 1
            raise PeertaskError("it failed, as it sometimes does", code=ErrorCode.EXECUTION_FAILED)
        return Output(execution.task.prompt)


class MortalWorker:
    """A worker that dies at random, with all that it knows, and starts again.

    Attributes:
        deaths: how often it has died.
    """

    def __init__(self, hub: MemoryHub, name: str, executor: Unreliable, rng: random.Random) -> None:
        self.node = MemoryNode(hub, name, [executor])
        self.deaths = 0
        self._hub = hub
        self._executor = executor
        self._rng = rng

    async def live(self, requester: MemoryNode) -> None:
        """Live and die, until cancelled."""
        while True:
            with trio.move_on_after(self._rng.uniform(*LIFE_S)):
                async with self.node.running():
                    try:
                        await trio.sleep_forever()
                    finally:
                        self._hub.cut(self.node.peer_id, requester.peer_id)  # whoever is killed says no Bye
            self.deaths += 1
            await trio.sleep(self._rng.uniform(*AWAY_S))
            self.node = MemoryNode(self._hub, self.node.peer_id, [self._executor], former=self.node)
            self._hub.heal(self.node.peer_id, requester.peer_id)


async def end(requester: MemoryNode, task_ids: list[TaskId]) -> Counter[TaskStatus]:
    """Wait for the end of tasks, and count how they ended."""
    return Counter([(await requester.wait(task_id)).status for task_id in task_ids])


async def test_nearly_all_tasks_complete_and_a_retry_brings_the_rest(autojump_clock: MockClock) -> None:
    """Of 5,000 tasks 99.9 %, each recorded once; those that had bad luck six times in a row are not lost either."""
    rng = random.Random(SEED)
    completions: Counter[TaskId] = Counter()

    def count(change: Change) -> None:
        completions[change.record.id] += isinstance(change.fact, Completed)

    executor = Unreliable(rng, FAILING)
    async with open_memory_hub() as hub:
        requester = MemoryNode(hub, "requester")
        requester.feed.listen(count)
        workers = [MortalWorker(hub, f"worker-{number}", executor, rng) for number in range(WORKERS)]
        async with requester.running(), open_background() as nursery:
            for worker in workers:
                nursery.start_soon(worker.live, requester)
                requester.network.keep(worker.node.network.addresses[0])
            task_ids = [requester.submit(str(number), kind="unreliable", retry=POLICY) for number in range(TASKS)]
            with trio.fail_after(TEST_S):
                first = await end(requester, task_ids)
                failed = [task_id for task_id in task_ids if requester.manager.get_task(task_id).failure]
                again = submit_again(requester.manager, failed, own_id=requester.peer_id, now=requester.clock.now())
                second = await end(requester, [record.id for record in again if not isinstance(record, PeertaskError)])
    assert first.total() == TASKS
    assert first[TaskStatus.COMPLETE] >= 0.999 * TASKS
    assert second[TaskStatus.COMPLETE] == len(failed) == first[TaskStatus.FAILED]
    assert max(completions.values()) == 1
    assert executor.failures > 0.18 * executor.executions
    assert sum(worker.deaths for worker in workers) > WORKERS
