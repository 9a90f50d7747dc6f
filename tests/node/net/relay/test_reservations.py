"""Who gets a reservation or a circuit, and when that is over."""

from __future__ import annotations

import pytest

from node.net.allowance import Rate
from node.net.relay.reservations import RelayLimits, Reservations
from protocol import PeerId

A, B, C, D = (PeerId(f"12D3KooW{name}") for name in "ABCD")
LIMITS = RelayLimits(
    reservations=3,
    reservations_per_address=2,
    circuits=3,
    circuits_per_peer=2,
    reservation_s=100.0,
    requests=Rate(per_second=1.0, burst=5),
)


def reservations(*gone: str) -> Reservations[str]:
    """An empty table of lines that are names; some have ended."""
    return Reservations(LIMITS, lambda line: line in gone)


def test_a_reservation_holds_until_its_end_unless_it_is_renewed() -> None:
    """On the line over which it was asked for last."""
    table = reservations()
    assert table.reserve(B, "first", "", 0.0) == ""
    assert table.line(B, 99.0) == "first"
    assert table.reserve(B, "second", "", 99.0) == ""
    assert (table.line(B, 198.0), table.line(B, 199.0), table.line(A, 0.0)) == ("second", None, None)
    assert (table.held(198.0), table.held(199.0)) == (1, 0)


def test_a_reservation_ends_with_its_line() -> None:
    """And its place is free for the next one."""
    table = reservations("cut")
    for peer_id in (A, B, C):
        assert table.reserve(peer_id, "cut", "", 0.0) == ""
    assert table.line(A, 1.0) is None
    assert table.reserve(D, "good", "", 1.0) == ""
    assert table.held(1.0) == 1


def test_there_are_so_many_reservations_and_no_more() -> None:
    """A renewal takes no place; when one has ended there is room."""
    table = reservations()
    for number, peer_id in enumerate((A, B, C)):
        assert table.reserve(peer_id, "line", "", float(number)) == ""
    assert "already 3 peers" in table.reserve(D, "line", "", 3.0)
    assert table.reserve(B, "line", "", 3.0) == ""
    assert table.reserve(D, "line", "", 100.0) == ""


def test_one_network_address_gets_some_of_the_places_only() -> None:
    """Except this machine, whose programs have it anyway."""
    table = reservations()
    assert [table.reserve(peer_id, "line", "192.0.2.7", 0.0) for peer_id in (A, B, B)] == ["", "", ""]
    assert "already 2 peers from 192.0.2.7" in table.reserve(C, "line", "192.0.2.7", 0.0)
    assert table.reserve(C, "line", "192.0.2.8", 0.0) == ""
    local = reservations()
    assert [local.reserve(peer_id, "line", "", 0.0) for peer_id in (A, B, C)] == ["", "", ""]


def test_both_ends_of_a_circuit_count_and_get_it_back() -> None:
    """Nobody has more than his share, and all together no more than there are."""
    table = reservations()
    assert table.open_circuit(A, B)
    assert table.open_circuit(C, B)
    assert not table.open_circuit(D, B)
    assert not table.open_circuit(B, D)
    assert table.open_circuit(A, C)
    assert not table.open_circuit(D, PeerId("12D3KooWE"))
    assert table.circuits == 3
    table.close_circuit(C, B)
    assert table.open_circuit(D, B)
    for pair in ((A, B), (A, C), (D, B)):
        table.close_circuit(*pair)
    assert table.circuits == 0


@pytest.mark.parametrize(("now", "granted"), [(0.0, 0), (1.0, 1), (3.5, 3), (100.0, 5)])
def test_whoever_asks_a_million_times_is_heard_a_few_times(now: float, granted: int) -> None:
    """And nothing is kept of it once he has been quiet."""
    table = reservations()
    assert sum(table.may_ask(A, 0.0) for _ in range(1_000)) == 5
    assert sum(table.may_ask(A, now) for _ in range(1_000)) == granted
    assert table.may_ask(B, 0.0)
