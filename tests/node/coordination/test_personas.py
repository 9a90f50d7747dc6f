"""Who may do a task that names a persona."""

# covers COORD-2

from __future__ import annotations

import pytest

from node.coordination.personas import declared_by, fits
from node.coordination.plan import Backlog
from node.coordination.roster import Roster, Worker
from node.testing import START_MS, make_task
from protocol import PeerId, RetryPolicy, Submitted, begin

OWN, PEER, OTHER, AWAY = PeerId("own"), PeerId("peer"), PeerId("other"), PeerId("away")
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
    """A task without one goes to anyone, and a node that does not coordinate takes any."""
    assert fits(wanted, declared) is may


@pytest.mark.parametrize(("persona", "declared"), [(None, frozenset()), ("reviewer", REVIEWER)])
def test_a_worker_declares_one_persona_or_none(persona: str | None, declared: frozenset[str]) -> None:
    """One that declares none only gets tasks that name none."""
    assert declared_by(persona) == declared
    assert not fits("writer", declared)


@pytest.mark.parametrize(
    ("target", "elsewhere", "persona", "chosen"),
    [
        (None, False, None, [OWN, PEER, OTHER]),
        (None, False, "reviewer", [PEER]),
        (None, False, "nobody", []),
        (OWN, False, None, [OWN]),
        (OWN, False, "writer", [OWN]),
        (OWN, False, "reviewer", []),
        (OTHER, False, "reviewer", [OTHER]),
        (AWAY, False, "reviewer", []),
        (AWAY, True, "reviewer", [PEER]),
    ],
)
def test_only_those_who_act_as_the_persona_may_have_a_task(
    target: PeerId | None, persona: str | None, chosen: list[PeerId], *, elsewhere: bool
) -> None:
    """A peer that was named decides for itself, as it does about the kind."""
    workers = [
        Worker(OWN, frozenset({"echo"}), 1, personas=frozenset({"writer"})),
        Worker(PEER, frozenset({"echo"}), 1, personas=frozenset({"writer", "reviewer"})),
        Worker(OTHER, frozenset({"echo"}), 1, personas=frozenset()),
    ]
    task = make_task(kind="echo", persona=persona, retry=RetryPolicy(elsewhere=elsewhere))
    place = Backlog(OWN).place(begin(Submitted(task, START_MS, OWN, target, None)))
    assert [worker.peer_id for worker in Roster(workers, OWN).able(place)] == chosen
