"""Who may do a task that names a persona."""

# covers COORD-2

from __future__ import annotations

import pytest

from node.coordination.personas import fits

REVIEWER = frozenset({"reviewer"})


@pytest.mark.parametrize(
    ("wanted", "declared", "may"),
    [
        (None, frozenset(), True),
        (None, REVIEWER, True),
        ("reviewer", REVIEWER, True),
        ("reviewer", frozenset({"writer", "reviewer"}), True),
        ("reviewer", frozenset(), False),
        ("reviewer", frozenset({"writer"}), False),
        ("Reviewer", REVIEWER, False),
        ("reviewer", None, True),
    ],
)
def test_a_task_goes_to_whoever_declares_its_persona(
    wanted: str | None, declared: frozenset[str] | None, *, may: bool
) -> None:
    """A task without one goes to anyone, and a worker that does not look at personas takes any."""
    assert fits(wanted, declared) is may
