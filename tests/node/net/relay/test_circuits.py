"""What a relay passes on, when it stops, and when a node renews what it has there."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from node.net.errors import InvalidAddress
from node.net.relay.client import RENEW_S, SHORTEST_RENEWAL_S, relays_at, renewal_in_s
from node.net.relay.service import HALF_CLOSED_S, IDLE_S, Circuit

RELAY = "12D3KooWS2LpLCLmnx1uMHRymdbfKn1ER85eRPwmFVY9qcJ7gKxs"
OWN = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


class Ends:
    """A circuit, and what is at its two ends.

    Attributes:
        one, other: the ends.
        took_s: how long the circuit lasted, by the clock of the test; None before its end.
    """

    def __init__(self) -> None:
        self.one, near = memory_stream_pair()
        far, self.other = memory_stream_pair()
        self._circuit = Circuit(near, far)
        self.took_s: float | None = None

    async def run(self) -> None:
        """Run the circuit."""
        since = trio.current_time()
        await self._circuit.run()
        self.took_s = trio.current_time() - since


async def test_each_end_gets_what_the_other_sends(autojump_clock: MockClock) -> None:
    """Until both have ended; then the circuit is over at once."""
    ends = Ends()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        await ends.one.send_all(b"question")
        assert await ends.other.receive_some() == b"question"
        await ends.other.send_all(b"answer")
        assert await ends.one.receive_some() == b"answer"
        await ends.one.send_eof()
        assert await ends.other.receive_some() == b""
        await ends.other.send_all(b"last words")
        assert await ends.one.receive_some() == b"last words"
        await ends.other.send_eof()
    assert ends.took_s == 0


async def test_an_end_that_keeps_its_half_is_cut_off(autojump_clock: MockClock) -> None:
    """Also when it goes on sending."""
    ends = Ends()

    async def chatter() -> None:
        while ends.took_s is None:
            await ends.other.send_all(b"x")
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        nursery.start_soon(chatter)
        await ends.one.send_eof()
    assert ends.took_s == pytest.approx(HALF_CLOSED_S, abs=1.0)


async def test_a_circuit_over_which_nothing_goes_ends(autojump_clock: MockClock) -> None:
    """After a time in which every session has beaten many times; each byte starts that time anew."""
    ends = Ends()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        await trio.sleep(IDLE_S - 1)
        await ends.other.send_all(b"x")
    assert ends.took_s == pytest.approx(2 * IDLE_S - 1)


async def test_an_end_that_breaks_is_the_end_of_the_circuit(autojump_clock: MockClock) -> None:
    """What comes for it is refused, and the other side hears of it."""
    ends = Ends()
    with trio.fail_after(HALF_CLOSED_S / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.run)
            await ends.other.aclose()
            await ends.one.send_all(b"x")
    assert ends.took_s == 0


@pytest.mark.parametrize(
    ("expires_at", "wait_s"),
    [
        (None, RENEW_S),
        (1_000 + 3_600, RENEW_S),
        (1_000 + 40, 20.0),
        (1_000 + 2, SHORTEST_RENEWAL_S),
        (0, SHORTEST_RENEWAL_S),
    ],
)
def test_a_reservation_is_renewed_half_way_to_its_end_and_every_minute(expires_at: int | None, wait_s: float) -> None:
    """A relay whose clock is wrong is not asked all the time."""
    assert renewal_in_s(expires_at, 1_000.0) == wait_s


def test_a_relay_may_be_reached_at_several_addresses() -> None:
    """They are one relay: one reservation is all that it takes."""
    addresses = (f"/ip4/192.0.2.7/tcp/1/p2p/{RELAY}", f"/dns4/relay.example/tcp/2/ws/p2p/{RELAY}")
    ((relay_id, endpoints),) = relays_at(addresses, OWN).items()
    assert (relay_id, tuple(map(str, endpoints))) == (RELAY, addresses)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/ip4/192.0.2.7/tcp/1", "not the address of a relay"),
        (f"/ip4/192.0.2.7/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{OWN}", "not the address of a relay"),
        (f"/ip4/192.0.2.7/tcp/1/p2p/{OWN}", "this node itself"),
        ("nonsense", "not a multiaddress"),
    ],
)
def test_what_cannot_be_a_relay_of_this_node_is_refused(address: str, said: str) -> None:
    """Before anything is dialled."""
    with pytest.raises(InvalidAddress, match=said):
        relays_at((address,), OWN)
