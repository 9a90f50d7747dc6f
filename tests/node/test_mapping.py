"""Many prompts at a time: how many are open, when results come, and what a closed map leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.mapping import MappedTask, map_prompts
from node.retention import Capacity
from node.testing import Delay, Hang, Raise, ScriptedExecutor, open_memory_hub
from protocol import ErrorCode, InvalidTask, TaskId, TaskRejected, TaskStatus
from tests.node.memory_node import MemoryNode


class Mapper:
    """A node that maps prompts over its own scripted executor."""

    def __init__(self, node: MemoryNode, executor: ScriptedExecutor) -> None:
        self.node = node
        self.executor = executor

    async def enqueue(self, prompt: str) -> TaskId:
        """Take a prompt in, waiting for room as `Node.enqueue` does."""
        while True:
            try:
                return self.node.submit(prompt, to=self.node, kind=self.executor.kind)
            except TaskRejected as error:
                if error.code is not ErrorCode.BUSY:
                    raise
                await self.node.manager.wait_for_room()

    def map(self, prompts: Iterable[str], concurrency: int = 4) -> Any:
        """Map prompts."""
        return map_prompts(prompts, self.enqueue, self.node.manager, self.node.feed, concurrency=concurrency)

    @property
    def statuses(self) -> list[TaskStatus]:
        """Of all tasks."""
        return [record.status for record in self.node.manager.list_tasks()]


@asynccontextmanager
async def mapping(**capacity: int) -> AsyncIterator[Mapper]:
    """A mapper that runs."""
    executor = ScriptedExecutor(slots=100)
    async with (
        open_memory_hub() as hub,
        MemoryNode(hub, "node", [executor], capacity=Capacity(**capacity)).running() as node,
    ):
        yield Mapper(node, executor)


async def all_of(mapped: AsyncIterator[MappedTask]) -> list[MappedTask]:
    """Everything that a map yields."""
    return [one async for one in mapped]


async def test_every_prompt_gets_its_result_in_the_order_of_ending(autojump_clock: MockClock) -> None:
    """With its place in the input."""
    async with mapping() as mapper:
        for number in range(10):
            mapper.executor.on(f"prompt {number}", Delay(1_000 - 100 * number))
        mapped = await all_of(mapper.map((f"prompt {number}" for number in range(10)), concurrency=10))
    assert [one.index for one in mapped] == [*reversed(range(10))]
    assert all(one.prompt == f"prompt {one.index}" and one.failure is None for one in mapped)
    assert all(one.result is not None and one.result.result == one.prompt for one in mapped)


async def test_nothing_comes_of_no_prompts(autojump_clock: MockClock) -> None:
    """The map ends at once."""
    async with mapping() as mapper:
        assert await all_of(mapper.map([])) == []


@pytest.mark.parametrize("concurrency", [1, 3, 50])
async def test_so_many_tasks_are_open_and_no_more(autojump_clock: MockClock, concurrency: int) -> None:
    """Prompts are taken from the input only as there is room, so it may be endless."""
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        for number in range(30):
            taken += 1
            yield f"prompt {number}"

    async with mapping() as mapper:
        done = 0
        for number in range(30):
            mapper.executor.on(f"prompt {number}", Delay(10 + number))
        async for _ in mapper.map(prompts(), concurrency):
            done += 1
            assert taken - done <= concurrency
        assert (done, taken) == (30, 30)
        assert mapper.executor.most_at_once == min(concurrency, 30)


async def test_a_failure_is_yielded_and_ends_nothing(autojump_clock: MockClock) -> None:
    """Who maps a thousand prompts does not lose 999 results to one."""
    async with mapping() as mapper:
        mapper.executor.on("bad", Raise(ValueError("no")))
        mapped = await all_of(mapper.map(["good", "bad", "good"]))
    by_index = {one.index: one for one in mapped}
    assert [by_index[index].result is not None for index in range(3)] == [True, False, True]
    failure = by_index[1].failure
    assert failure is not None
    assert "no" in failure.message


async def test_results_come_although_the_node_has_less_room_than_the_map_wants(autojump_clock: MockClock) -> None:
    """A result is yielded as it comes, not when the last prompt has found room."""
    async with mapping(open_tasks=2) as mapper:
        for number in range(10):
            mapper.executor.on(f"prompt {number}", Delay(1_000))
        mapped = mapper.map((f"prompt {number}" for number in range(10)), concurrency=100)
        times = [round(trio.current_time()) async for _ in mapped]
        assert times[0] == 1
        assert sorted(times) == times
        assert times[-1] == 5


@pytest.mark.parametrize("finished_records", [0, 100])
async def test_closing_a_map_cancels_what_is_open(autojump_clock: MockClock, finished_records: int) -> None:
    """Also when tasks of it have ended, unread, and are forgotten already."""
    async with mapping(finished_records=finished_records) as mapper:
        mapper.executor.on("slow", Hang())
        async with aclosing(mapper.map(["quick", "quick", "slow", "slow"])) as mapped:
            assert (await anext(mapped)).prompt == "quick"
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert mapper.node.manager.open_tasks == 0
        assert mapper.executor.running == 0
        if finished_records:
            assert sorted(mapper.statuses) == [*[TaskStatus.CANCELLED] * 2, *[TaskStatus.COMPLETE] * 2]


async def test_an_error_of_the_input_or_of_a_prompt_ends_the_map_and_cancels_what_is_open(
    autojump_clock: MockClock,
) -> None:
    """It comes out of the map as it is."""

    def broken() -> Iterator[str]:
        yield "slow"
        raise OSError("the file is gone")

    async with mapping() as mapper:
        mapper.executor.on("slow", Hang())
        with pytest.raises(OSError, match="the file is gone"):
            await all_of(mapper.map(broken()))
        with pytest.raises(InvalidTask, match="prompt"):
            await all_of(mapper.map(["slow", 5]))  # type: ignore[list-item]
        await wait_all_tasks_blocked()
        assert mapper.statuses == [TaskStatus.CANCELLED] * 2


async def test_cancelling_whoever_reads_a_map_cancels_its_tasks(autojump_clock: MockClock) -> None:
    """A timeout around the loop leaves nothing running."""
    async with mapping() as mapper:
        mapper.executor.on("slow", Hang())
        with trio.move_on_after(5):
            async with aclosing(mapper.map(["slow"] * 3)) as mapped:
                await all_of(mapped)
        await wait_all_tasks_blocked()
        assert mapper.statuses == [TaskStatus.CANCELLED] * 3
