"""What peertask promises holds, whatever goes wrong: a thousand simulations of five nodes and fifty tasks each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.testing import Scenario, simulate

# Some three seconds each, which processes that share the tests can even out.
PARTS = 25
SHOWN = 3


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure no coverage for the length of the context: it triples the time, and other tests run the same lines."""
    coverage = sys.modules.get("coverage")
    measurement = coverage.Coverage.current() if coverage is not None else None
    if measurement is None:
        yield
        return
    measurement.stop()
    try:
        yield
    finally:
        measurement.start()


def test_a_seed_is_as_large_as_is_said() -> None:
    """Fewer nodes or tasks would be found faster, and find less."""
    assert Scenario().nodes >= 5
    assert Scenario().tasks >= 50


@pytest.mark.parametrize("part", range(PARTS))
def test_no_promise_is_broken_by_any_seed(part: int, request: pytest.FixtureRequest) -> None:
    """Nothing is lost, recorded twice, or told before it is saved; every task ends, every queue is bounded."""
    first = request.config.getoption("--first-seed")
    last = first + request.config.getoption("--seeds")
    with unmeasured():
        reports = [simulate(seed=seed) for seed in range(first + part, last, PARTS)]
    broken = [report.describe() for report in reports if report.violations]
    assert not broken, "\n\n".join([f"{len(broken)} seeds break promises", *broken[:SHOWN]])
