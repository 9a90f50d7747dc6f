"""What all tests share."""

from __future__ import annotations

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run have more of what is left to chance."""
    crashes = parser.getgroup("crashes", "tests that kill nodes (tests/acceptance/test_crash_rounds.py)")
    crashes.addoption("--rounds", type=int, default=200, help="how many rounds to play in all (200)")
    crashes.addoption("--crash-seed", default="1", metavar="TEXT", help="what the rounds are drawn from (1)")
    seeds = parser.getgroup("simulation", "simulated nodes (tests/node/testing/simulation/test_seeds.py)")
    seeds.addoption("--seeds", type=int, default=1000, help="how many seeds to run in all (1000)")
    seeds.addoption("--first-seed", type=int, default=0, metavar="N", help="the first of them (0)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep reports in what UTF-8 can carry.

    Hostile text is logged by the tests that send it, what is logged stands in the report of a test, and pytest-xdist
    ends the whole run when a report holds a lone surrogate.
    """
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
