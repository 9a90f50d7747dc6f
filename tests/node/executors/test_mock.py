"""The mock executor: a random delay, and a result that tells what was asked."""

import pytest
import trio
from trio.testing import MockClock

from node.executors.mock import MockExecutor
from node.testing import FakeExecution, check_executor, make_task
from protocol import ErrorCode, PeertaskError


async def delays_ms(executor: MockExecutor, count: int) -> list[float]:
    """How long the executor took for each of so many tasks, one after the other, on trio's clock."""
    delays = []
    for _ in range(count):
        begun = trio.current_time()
        await executor.execute(FakeExecution())
        delays.append((trio.current_time() - begun) * 1000)
    return delays


async def test_the_result_names_the_prompt(autojump_clock: MockClock) -> None:
    """A mock result is the prompt after fixed words, and nothing else."""
    # covers CORE-5, CORE-7, CORE-30
    output = await MockExecutor().execute(FakeExecution("count to ten"))
    assert output.text == "Mock result for: count to ten"
    assert output.artifacts == ()


async def test_the_delay_is_spread_over_100_to_500_ms(autojump_clock: MockClock) -> None:
    """Delays keep to the range, reach both of its ends, and have its middle as their mean."""
    # covers CORE-6, CORE-34
    delays = await delays_ms(MockExecutor(seed=1), 2_000)
    assert 99.9 <= min(delays) <= 110
    assert 490 <= max(delays) <= 500.1
    assert 290 <= sum(delays) / len(delays) <= 310


async def test_the_same_seed_gives_the_same_delays(autojump_clock: MockClock) -> None:
    """A run with a seed can be repeated; another seed, and no seed, give other delays."""
    first, again, other, unseeded = [await delays_ms(MockExecutor(seed), 20) for seed in (7, 7, 8, None)]
    assert first == pytest.approx(again)
    assert first != pytest.approx(other)
    assert first != pytest.approx(unseeded)


async def test_the_range_can_be_chosen(autojump_clock: MockClock) -> None:
    """Equal limits give one delay, and 0 none."""
    assert await delays_ms(MockExecutor(min_ms=30, max_ms=30), 3) == pytest.approx([30, 30, 30])
    assert await delays_ms(MockExecutor(min_ms=0, max_ms=0), 2) == [0, 0]


@pytest.mark.parametrize(("min_ms", "max_ms"), [(-1, 5), (500, 100), (float("nan"), 5)])
def test_an_impossible_range_is_refused(min_ms: float, max_ms: float) -> None:
    """A range that is negative or the wrong way round is an error of the configuration, in words."""
    with pytest.raises(PeertaskError, match="cannot wait between") as refused:
        MockExecutor(min_ms=min_ms, max_ms=max_ms)
    assert refused.value.code is ErrorCode.INVALID_CONFIG


async def test_tasks_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    """As many tasks as there are slots take no longer than the longest of them."""
    # covers CORE-17, CORE-21
    executor = MockExecutor(seed=3)
    async with trio.open_nursery() as nursery:
        for number in range(executor.slots):
            nursery.start_soon(executor.execute, FakeExecution(f"prompt {number}"))
    assert trio.current_time() <= 0.51


async def test_it_keeps_the_contract_of_executors(autojump_clock: MockClock) -> None:
    """The mock executor passes the checker, cancellation included."""
    endless = 10 * 60 * 1000.0
    await check_executor(MockExecutor, make_task())
    with trio.move_on_after(1):
        await MockExecutor(min_ms=endless, max_ms=endless).execute(FakeExecution())
    assert trio.current_time() < endless
