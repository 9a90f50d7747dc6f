"""Clocks for tests."""

import pytest
import trio
from trio.testing import MockClock

from node.testing import START_MS, FakeClock, TrioClock


def test_a_fake_clock_stands_still_until_it_is_told_to_go_on() -> None:
    """A test decides what time it is, to the millisecond."""
    clock = FakeClock()
    assert [clock.now(), clock.now()] == [START_MS, START_MS]
    clock.advance(250)
    clock.advance(0)
    assert clock.now() == START_MS + 250
    assert FakeClock(7).now() == 7


def test_a_fake_clock_does_not_go_back() -> None:
    """A test cannot do to a node what no clock of a node does."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)
    assert clock.now() == START_MS


async def test_a_trio_clock_goes_with_trio(autojump_clock: MockClock) -> None:
    """Under a virtual clock, sleeping and the node's time are one."""
    clock = TrioClock()
    begun = clock.now()
    await trio.sleep(3600)
    assert clock.now() - begun == pytest.approx(3_600_000, abs=1)
