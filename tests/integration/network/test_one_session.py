"""One session for each pair of nodes, whoever dials and however often."""

from __future__ import annotations

import random

import trio

from node.net.network import PeerNetwork
from node.testing.network_sides import Side
from tests.integration.hosts import becomes_true
from tests.integration.network.sessions import exchange, has_session
from tests.integration.networks import side

DUELS = 20  # both dial at once


async def test_two_nodes_that_dial_each_other_at_once_keep_one_session() -> None:
    """However the dials interleave, both sides keep the same session, it works both ways, and it lasts."""
    rng = random.Random(7)
    with trio.fail_after(40):
        for _ in range(DUELS):
            async with side() as one, side() as other:
                head_start = rng.choice((0, 0, 0.001, 0.003, 0.01))

                async def dial_late(pause: float = head_start, one: Side = one, other: Side = other) -> None:
                    await trio.sleep(pause)
                    await other.network.connect(one.address)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one.network.connect, other.address)
                    nursery.start_soon(dial_late)
                await settle(one, other)
                openings = len(one.worker.openings), len(other.worker.openings)
                await exchange(one, other)
                for some_side in (one, other):
                    assert len(some_side.network.channels()) == 1
                    for handler in some_side.handlers:
                        assert len(handler.openings) - len(handler.endings) == 1
                        assert not [reason for _, reason in handler.endings if "another session" not in reason]
                assert (len(one.worker.openings), len(other.worker.openings)) == openings


async def settle(one: Side, other: Side) -> None:
    """Wait until each side has no stream but its session."""

    def streams(some_side: Side) -> int:
        assert isinstance(some_side.network, PeerNetwork)
        return int(repr(some_side.network).rpartition("streams=")[2].rstrip(">"))

    await becomes_true(lambda: streams(one) == streams(other) == 1)


async def test_two_sessions_on_one_connection_end_as_one() -> None:
    """A node that dials while the other's session comes up over the same connection does not lose both."""
    with trio.fail_after(40):
        for _ in range(DUELS):
            async with side() as one, side() as other:
                other.network.keep(one.address)
                await trio.lowlevel.checkpoint()
                await one.network.connect(other.address)
                await becomes_true(lambda one=one, other=other: has_session(other, one))  # type: ignore[misc]
                await settle(one, other)
                await exchange(one, other)
                assert not [reason for _, reason in one.worker.endings if "another session" not in reason]


async def test_many_connects_at_once_share_one_dial() -> None:
    """Whoever waits for a dial that is under way gets its session, or its error."""
    with trio.fail_after(20):
        async with side() as one, side() as other:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one.network.connect, other.address)
            await exchange(one, other)
            assert len(other.worker.openings) == 1


async def test_a_cancelled_connect_disturbs_nobody() -> None:
    """The dial goes on in the background, and the node with it."""
    with trio.fail_after(20):
        async with side() as one, side() as other:
            for steps in range(15):
                with trio.move_on_after(steps / 1000):
                    await one.network.connect(other.address)
            await one.network.connect(other.address)
            await exchange(one, other)
