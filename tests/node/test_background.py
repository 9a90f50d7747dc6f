"""Tasks beside a block of code: they end with it, and its errors come out as they are."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.background import open_background


async def test_what_still_runs_at_the_end_of_the_block_is_cancelled() -> None:
    """Cleaning up is waited for."""
    events: list[str] = []

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append("cleaned up")

    with trio.fail_after(5):
        async with open_background() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            events.append("end of the block")
    assert events == ["end of the block", "cleaned up"]


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """Not in a group, so that the block's caller can catch it by its type."""

    async def use_a_block() -> None:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("from the block")

    with pytest.raises(ValueError, match="from the block"):
        await use_a_block()


async def test_a_task_that_fails_ends_the_block_and_its_error_comes_out_in_a_group() -> None:
    """The block is cancelled where it waits."""

    async def fail() -> None:
        raise ValueError("from a task")

    with trio.fail_after(5), pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="from a task")):
        async with open_background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


async def test_the_cancellation_of_the_caller_passes_through() -> None:
    """A timeout around the block works as around any other."""
    with trio.move_on_after(0.01) as scope:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught
