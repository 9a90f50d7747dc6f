"""The system clock."""

import time

from node.clock import SystemClock


def test_a_new_clock_says_what_the_wall_clock_says() -> None:
    """A fact's time is the time of day, in milliseconds since the epoch."""
    before = time.time_ns() // 1_000_000
    now = SystemClock().now()
    after = time.time_ns() // 1_000_000
    assert before - 1 <= now <= after + 1


def test_a_clock_never_goes_back() -> None:
    """A later answer is never less than an earlier one, however often it is asked."""
    clock = SystemClock()
    answers = [clock.now() for _ in range(10_000)]
    assert answers == sorted(answers)


def test_a_clock_goes_as_fast_as_time() -> None:
    """What lies between two answers is what lies between two readings of the monotonic clock."""
    clock = SystemClock()
    start, first, begun = time.monotonic_ns(), clock.now(), time.monotonic_ns()
    while time.monotonic_ns() - begun < 20_000_000:
        pass
    last, stop = clock.now(), time.monotonic_ns()
    assert 20 <= last - first <= (stop - start) // 1_000_000 + 1
