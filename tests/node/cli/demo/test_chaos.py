"""What happens to the nodes of a demo, and to whom."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from node.cli.demo.chaos import Disturbance, choose
from node.cli.demo.fleet import Member, MemberState

RUNNING, PAUSED, CUT_OFF, KILLED = (
    MemberState.RUNNING,
    MemberState.PAUSED,
    MemberState.CUT_OFF,
    MemberState.KILLED,
)


def members(*states: MemberState) -> list[Member]:
    """Nodes that stand like this."""
    found = [Member(index, Path(f"/nowhere/{index}"), {}) for index in range(len(states))]
    for member, state in zip(found, states, strict=True):
        member.state = state
    return found


def test_every_kind_happens_before_one_happens_twice() -> None:
    """A demo of some seconds shows all three."""
    fleet, counts, rng = members(*[RUNNING] * 5), Counter[Disturbance](), random.Random(1)
    for _ in Disturbance:
        chosen = choose(fleet, counts, rng)
        assert chosen is not None
        counts[chosen[0]] += 1
    assert counts == dict.fromkeys(Disturbance, 1)


@pytest.mark.parametrize(
    ("states", "spared"),
    [
        ([RUNNING] * 3, True),
        ([RUNNING, RUNNING, PAUSED], False),
        ([RUNNING, RUNNING, KILLED], True),
        ([RUNNING, PAUSED, KILLED], False),
        ([RUNNING, RUNNING, RUNNING, CUT_OFF, KILLED], True),
        ([RUNNING, RUNNING, CUT_OFF, PAUSED, KILLED], False),
    ],
)
def test_at_least_half_of_those_that_are_left_are_in_peace(states: list[MemberState], *, spared: bool) -> None:
    """Otherwise nothing would get done, and nobody would see what goes on elsewhere."""
    fleet = members(*states)
    for seed in range(20):
        chosen = choose(fleet, Counter(), random.Random(seed))
        assert (chosen is not None) is spared
        assert chosen is None or chosen[1].state is RUNNING


@pytest.mark.parametrize(("nodes", "killed", "more"), [(3, 0, True), (3, 1, False), (5, 1, True), (5, 2, False)])
def test_fewer_than_half_of_the_nodes_are_killed(nodes: int, killed: int, *, more: bool) -> None:
    """Those that are killed do not come back."""
    fleet = members(*[RUNNING] * (nodes - killed), *[KILLED] * killed)
    counts = Counter({Disturbance.PAUSE: 1, Disturbance.CUT_OFF: 1, Disturbance.KILL: killed})
    kinds = {chosen[0] for seed in range(100) if (chosen := choose(fleet, counts, random.Random(seed)))}
    assert (Disturbance.KILL in kinds) is more
