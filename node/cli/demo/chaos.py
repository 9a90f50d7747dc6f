"""Disturbs the nodes of a demo while they work: kills, freezes and cuts them off, at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import trio

from node.cli.demo.fleet import Fleet, Member, MemberState

# Soon enough for the first one to be seen, and slow enough for each to be.
FIRST_S: Final = 0.3
BETWEEN_S: Final = (0.4, 1.0)
# Shorter and longer than the silence after which the others give a node up; see `SETTINGS`.
DISTURBED_S: Final = (0.5, 2.5)
SETTINGS: Final = {"heartbeat_ms": "500", "silence_ms": "1500"}
"""What the nodes of such a demo have otherwise: they find a frozen peer in a tenth of the usual time."""


class Disturbance(StrEnum):
    """What happens to a node."""

    PAUSE = "paused"
    CUT_OFF = "cut off"
    KILL = "killed"


def choose(
    members: Sequence[Member], counts: Counter[Disturbance], rng: random.Random
) -> tuple[Disturbance, Member] | None:
    """Decide what happens next, and to whom; None when nobody can be spared at the moment.

    At least half of those that are left are in peace, and fewer than half of all are killed. Whatever has not happened
    yet comes first, in the order of the kinds.

    Args:
        members: the nodes.
        counts: how often each kind has happened.
        rng: decides.
    """
    in_peace = [member for member in members if member.state is MemberState.RUNNING]
    if 2 * (len(in_peace) - 1) < sum(member.is_alive for member in members):
        return None
    may_kill = counts[Disturbance.KILL] < (len(members) - 1) // 2
    kinds = [kind for kind in Disturbance if may_kill or kind is not Disturbance.KILL]
    kind = next((kind for kind in kinds if not counts[kind]), None) or rng.choice(kinds)
    return kind, rng.choice(in_peace)


class Chaos:
    """What happens to the nodes of one demo.

    Args:
        fleet: the nodes, connected to each other.
        rng: decides what happens, to whom, and for how long.

    Attributes:
        counts: how often each kind has happened.
    """

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.counts: Counter[Disturbance] = Counter()
        self._fleet = fleet
        self._rng = rng

    async def run(self) -> None:
        """Disturb nodes until cancelled; nobody is frozen any more then."""
        await trio.sleep(FIRST_S)
        async with trio.open_nursery() as nursery:
            while True:
                chosen = choose(self._fleet.members, self.counts, self._rng)
                if chosen is not None:
                    self._disturb(nursery, *chosen)
                await trio.sleep(self._rng.uniform(*BETWEEN_S))

    def _disturb(self, nursery: trio.Nursery, kind: Disturbance, member: Member) -> None:
        self.counts[kind] += 1
        match kind:
            case Disturbance.KILL:
                member.kill()
            case Disturbance.PAUSE:
                member.pause()
                nursery.start_soon(self._let_go_on, member)
            case Disturbance.CUT_OFF:
                member.state = MemberState.CUT_OFF
                nursery.start_soon(self._cut_off, member)

    async def _let_go_on(self, member: Member) -> None:
        try:
            await trio.sleep(self._rng.uniform(*DISTURBED_S))
        finally:
            member.go_on()

    async def _cut_off(self, member: Member) -> None:
        await self._fleet.cut_off(member)
        await trio.sleep(self._rng.uniform(*DISTURBED_S))
        await self._fleet.reconnect(member)
        member.state = MemberState.RUNNING
