"""The limits on inbound connections, with a clock that the test owns."""

import pytest

from node.net.admission import STALE_HANDSHAKE_S, AddressLimits, InboundGate, InboundLimits, Refusal, Visit, address_key

ROOMY = AddressLimits(per_second=1_000, burst=1_000, connections=1_000)
FAR, ALSO_FAR, HERE = "192.0.2.1", "192.0.2.2", "127.0.0.1"


def gate(remote: AddressLimits = ROOMY, handshakes: int = 1_000, capacity: int = 1_000) -> InboundGate:
    """A gate that limits only what a test asks for."""
    return InboundGate(InboundLimits(remote=remote, loopback=ROOMY, handshakes=handshakes), capacity)


def admitted(outcome: Visit | Refusal) -> Visit:
    """The visit, which must not have been refused."""
    assert isinstance(outcome, Visit)
    return outcome


def refused(outcome: Visit | Refusal) -> str:
    """The reason of a refusal."""
    assert isinstance(outcome, Refusal)
    return outcome.reason


def test_an_address_may_open_its_burst_and_then_its_rate() -> None:
    """Allowance comes back with time, up to the burst and no further."""
    door = gate(AddressLimits(per_second=2, burst=3, connections=1_000))
    for _ in range(3):
        admitted(door.enter(FAR, 10.0))
    assert "2 connections a second" in refused(door.enter(FAR, 10.0))
    admitted(door.enter(FAR, 10.5))
    assert refused(door.enter(FAR, 10.6))
    for _ in range(3):
        admitted(door.enter(FAR, 1_000.0))
    assert refused(door.enter(FAR, 1_000.0))


def test_a_refusal_costs_nothing() -> None:
    """Behind the address of a flood, one connection in every interval still gets through."""
    door = gate(AddressLimits(per_second=1, burst=1, connections=1_000))
    outcomes = [door.enter(FAR, tenth / 10) for tenth in range(31)]
    assert sum(isinstance(outcome, Visit) for outcome in outcomes) == 4


def test_addresses_do_not_pay_for_each_other() -> None:
    """One address that has used up its allowance leaves the others theirs."""
    door = gate(AddressLimits(per_second=0.1, burst=1, connections=1_000))
    admitted(door.enter(FAR, 0.0))
    assert refused(door.enter(FAR, 0.0))
    admitted(door.enter(ALSO_FAR, 0.0))


def test_an_address_holds_a_limited_number_of_connections() -> None:
    """A connection that has ended makes room for the next."""
    door = gate(AddressLimits(per_second=1_000, burst=1_000, connections=2))
    first = admitted(door.enter(FAR, 0.0))
    admitted(door.enter(FAR, 0.0))
    assert "already 2 connections from one address" in refused(door.enter(FAR, 0.0))
    door.leave(first)
    admitted(door.enter(FAR, 0.0))


def test_the_node_has_a_limited_number_of_inbound_connections() -> None:
    """Whoever holds them, the capacity is the end of it."""
    door = gate(capacity=2)
    first = admitted(door.enter(FAR, 0.0))
    admitted(door.enter(HERE, 0.0))
    assert "all of its 2 inbound connections" in refused(door.enter(ALSO_FAR, 0.0))
    door.leave(first)
    admitted(door.enter(ALSO_FAR, 0.0))
    assert len(door) == 2


def test_handshakes_under_way_are_limited_and_finished_ones_do_not_count() -> None:
    """What has authenticated itself takes no room from those who have not."""
    door = gate(handshakes=2)
    first, second = admitted(door.enter(FAR, 0.0)), admitted(door.enter(FAR, 0.0))
    assert "already 2 handshakes under way" in refused(door.enter(FAR, 0.0))
    door.end_handshake(first)
    third = admitted(door.enter(FAR, 0.0))
    assert third.displaces is None
    door.leave(second)
    admitted(door.enter(FAR, 0.0))


def test_a_handshake_that_has_had_its_time_gives_way_to_the_next() -> None:
    """The oldest first, and each once only."""
    door = gate(handshakes=2)
    first, second = admitted(door.enter(FAR, 0.0)), admitted(door.enter(FAR, 0.1))
    assert refused(door.enter(FAR, STALE_HANDSHAKE_S - 0.1))
    assert admitted(door.enter(FAR, STALE_HANDSHAKE_S)).displaces is first
    assert refused(door.enter(FAR, STALE_HANDSHAKE_S))
    assert admitted(door.enter(FAR, STALE_HANDSHAKE_S + 0.2)).displaces is second


def test_this_machine_has_limits_of_its_own() -> None:
    """Loopback, in all its forms, is not another machine."""
    door = gate(AddressLimits(per_second=0.001, burst=1, connections=1))
    for host in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        admitted(door.enter(host, 0.0))
        admitted(door.enter(host, 0.0))
    admitted(door.enter("unknown", 0.0))
    assert refused(door.enter("unknown", 0.0))


def test_addresses_are_forgotten_when_they_have_their_allowance_back() -> None:
    """Memory follows the connections of the last seconds, not all addresses ever seen."""
    door = gate(AddressLimits(per_second=10, burst=1, connections=10))
    for number in range(1_000):
        door.leave(admitted(door.enter(f"10.0.{number // 250}.{number % 250}", number * 1.0)))
    assert len(door._accounts) <= 3  # noqa: SLF001 - the size of the table is the promise


def test_an_address_that_is_still_connected_is_not_forgotten() -> None:
    """However many others come and go."""
    door = gate(AddressLimits(per_second=10, burst=5, connections=1))
    admitted(door.enter(FAR, 0.0))
    for number in range(100):
        door.leave(admitted(door.enter(f"10.0.0.{number}", number * 1.0)))
    assert refused(door.enter(FAR, 100.0))


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_counted_under_what_its_owner_cannot_change(host: str, key: str) -> None:
    """IPv4 as it is, IPv6 by its /64."""
    assert address_key(host) == key
