"""What all tests share."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep reports in what UTF-8 can carry.

    Hostile text is logged by the tests that send it, what is logged stands in the report of a test, and pytest-xdist
    ends the whole run when a report holds a lone surrogate.
    """
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
