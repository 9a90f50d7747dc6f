"""What the doctor says about each symptom: a table, and what follows from several of them."""

from __future__ import annotations

import pytest

from node.coordination.diagnosis import (
    CLOCK_TOLERANCE_MS,
    Introduction,
    Level,
    Need,
    Probe,
    Symptom,
    explain_listening,
    explain_probe,
    explain_relay,
    explain_state,
    explain_unreachable,
)
from node.coordination.reach import Reach
from protocol import Limits, PeerId

ADDRESS = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWPeer"
ME = PeerId("12D3KooWMe")
NEED = Need(ME)

# What each must say of the meaning, and of what to do.
SAYINGS = {
    Symptom.MALFORMED: ("not an address that a node can dial", "peertask id"),
    Symptom.NAME_UNKNOWN: ("DNS", "getent hosts"),
    Symptom.NO_ROUTE: ("no way to that network", "VPN"),
    Symptom.REFUSED: ("nothing listens on that port", "--listen"),
    Symptom.TIMED_OUT: ("firewall or a router drops", "port forward"),
    Symptom.CLOSED: ("closes it at once", "forward leads to"),
    Symptom.NOT_LIBP2P: ("another program has the port", "/ws"),
    Symptom.WRONG_PEER: ("another peer answers there", "do not use the address"),
    Symptom.ITSELF: ("leads back to the node that asked", "other machine"),
    Symptom.INCOMPATIBLE: ("does not speak this version", "Update the older"),
    Symptom.NO_SESSION: ("no session came about", "see the log"),
    Symptom.RELAY_UNREACHABLE: ("the relay cannot be reached", "before /p2p-circuit"),
    Symptom.NO_RELAY: ("does not serve as a relay", "--relay-service"),
    Symptom.NO_RESERVATION: ("is it running with --relay?", "start it with --relay"),
    Symptom.RELAY_REFUSES: ("certain peers only", "--relay-for"),
    Symptom.RELAY_FULL: ("no room for more", "another relay"),
    Symptom.PEER_SILENT: ("does not get through to it", "within a minute"),
    Symptom.RELAY_BROKEN: ("ended the conversation", "another relay"),
}


def probe(symptom: Symptom = Symptom.TIMED_OUT, reach: Reach = Reach.PRIVATE, detail: str = "") -> Probe:
    """A dial that failed."""
    return Probe(address=ADDRESS, symptom=symptom, reach=reach, detail=detail)


def reached(**said: object) -> Probe:
    """A dial that worked, and what the peer said."""
    introduction = Introduction(agent="peertask/9", kinds=("echo",), **said)  # type: ignore[arg-type]
    return Probe(
        address=ADDRESS, symptom=Symptom.REACHED, reach=Reach.PRIVATE, elapsed_ms=12.4, introduction=introduction
    )


def test_every_symptom_but_success_has_its_words() -> None:
    """A new one cannot be forgotten here."""
    assert set(SAYINGS) == set(Symptom) - {Symptom.REACHED}


@pytest.mark.parametrize("symptom", SAYINGS)
def test_each_symptom_says_what_it_usually_means_and_what_to_do(symptom: Symptom) -> None:
    """With the address, and with what the system said."""
    (finding,) = explain_probe(probe(symptom, detail="so it said"), NEED)
    meaning, remedy = SAYINGS[symptom]
    assert (finding.level, finding.about) == (Level.PROBLEM, ADDRESS)
    assert finding.text.startswith(f"{symptom}: ")
    assert meaning in finding.text
    assert finding.text.endswith("(so it said)")
    assert remedy in finding.remedy


def test_a_peer_that_was_reached_is_described() -> None:
    """How long it took, its program and versions, and what it offers, to whom."""
    (finding,) = explain_probe(reached(), NEED)
    assert finding.level is Level.OK
    assert finding.text == "reached in 12 ms: peertask/9, protocol 1.0, offers echo"
    (finding,) = explain_probe(reached(), NEED._replace(known=False))
    assert finding.text.endswith("offers echo to strangers")


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (None, ""),
        (CLOCK_TOLERANCE_MS, ""),
        (-CLOCK_TOLERANCE_MS, ""),
        (90_000, "90 s ahead of"),
        (-7_200_000, "7,200 s behind"),
    ],
)
def test_clocks_that_differ_are_a_warning(offset: int | None, said: str) -> None:
    """Tasks run all the same, so it is no more than that."""
    _, *others = explain_probe(reached(clock_offset_ms=offset), NEED)
    assert [one.level for one in others] == [Level.WARNING] * bool(said)
    assert all(said in one.text for one in others)


@pytest.mark.parametrize(
    ("kind", "known", "level"),
    [
        (None, True, None),
        ("echo", True, None),
        ("summarise", True, Level.PROBLEM),
        ("summarise", False, Level.WARNING),
    ],
)
def test_a_kind_that_is_not_offered_is_a_problem_for_whoever_was_asked_for(
    kind: str | None, *, known: bool, level: Level | None
) -> None:
    """A stranger is not offered what is closed, and that says nothing about the node."""
    _, *others = explain_probe(reached(), Need(ME, kind, known=known))
    assert [one.level for one in others] == ([level] if level else [])
    if level is Level.PROBLEM:
        assert f"--allow summarise={ME}" in others[0].remedy


def test_a_peer_that_takes_less_than_may_be_sent_is_a_warning() -> None:
    """With both figures."""
    _, finding = explain_probe(reached(limits=Limits(payload=1_024)), Need(ME, payload_bytes=2_048))
    assert (finding.level, "1,024" in finding.text, "2,048" in finding.text) == (Level.WARNING, True, True)


UNREACHABLE = {
    "without an address": ([], "no address of it is known"),
    "whose addresses are local": ([probe(Symptom.REFUSED, Reach.LOCAL)], "addresses are of this machine"),
    "that is silent": ([probe(), probe(Symptom.REFUSED, Reach.LOCAL)], "behind a firewall or NAT"),
    "that refuses at one": ([probe(), probe(Symptom.REFUSED)], ""),
    "that was reached at one": ([probe(), reached()], ""),
}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_what_the_addresses_of_a_peer_have_in_common_is_said(name: str) -> None:
    """When it says more than each of them does."""
    probes, said = UNREACHABLE[name]
    findings = explain_unreachable("12D3KooWPeer", probes)
    assert [finding.level for finding in findings] == [Level.PROBLEM] * bool(said)
    assert all(said in finding.text and finding.remedy for finding in findings)


LISTENING = {
    (): (Level.WARNING, "nobody can dial it"),
    (Reach.LOCAL,): (Level.WARNING, "for this machine only"),
    (Reach.LOCAL, Reach.PRIVATE): (Level.OK, "same private network"),
    (Reach.PUBLIC, Reach.LOCAL): (Level.OK, "public address"),
}


@pytest.mark.parametrize(
    ("reaches", "relays", "said"),
    [
        ((), 1, "listens nowhere, and is reached from elsewhere through a relay"),
        ((Reach.LOCAL,), 2, "for this machine only, and is reached from elsewhere through 2 relays"),
        ((Reach.PRIVATE,), 1, "in a private network, and is reached from elsewhere through a relay"),
        ((Reach.PUBLIC,), 1, "public address"),
    ],
)
def test_a_node_that_is_reached_through_a_relay_needs_no_address_of_its_own(
    reaches: tuple[Reach, ...], relays: int, said: str
) -> None:
    """So that it listens nowhere is nothing to warn of."""
    (finding,) = explain_listening(reaches, relays)
    assert (finding.level, said in finding.text) == (Level.OK, True)


@pytest.mark.parametrize(
    ("reserved", "error", "level", "said"),
    [
        (True, "", Level.OK, "others reach it through that relay"),
        (False, "it is full", Level.PROBLEM, "nobody reaches it through that relay: it is full"),
        (False, "", Level.PROBLEM, "nobody reaches it through that relay yet"),
    ],
)
def test_a_relay_of_the_node_is_examined(*, reserved: bool, error: str, level: Level, said: str) -> None:
    """Whether it has a reservation, and why not."""
    finding = explain_relay(ME, reserved=reserved, error=error)
    assert (finding.level, said in finding.text) == (level, True)


def test_trouble_at_a_relay_says_nothing_about_the_network_of_the_peer() -> None:
    """Only what a dial of the peer itself met does."""
    assert explain_unreachable("P", [probe(Symptom.NO_RESERVATION, Reach.LOCAL)]) == []
    (finding,) = explain_unreachable("P", [probe(Symptom.NO_RESERVATION, Reach.LOCAL), probe(Symptom.TIMED_OUT)])
    assert "behind a firewall or NAT" in finding.text


@pytest.mark.parametrize("reaches", LISTENING)
def test_where_a_node_listens_says_who_can_dial_it(reaches: tuple[Reach, ...]) -> None:
    """Nothing of it keeps a node from dialling others, so nothing is a problem."""
    (finding,) = explain_listening(reaches)
    level, said = LISTENING[reaches]
    assert (finding.level, said in finding.text) == (level, True)


@pytest.mark.parametrize(
    ("connected", "works", "level"),
    [
        (True, True, None),
        (False, False, None),
        (True, False, Level.OK),
        (False, True, Level.WARNING),
    ],
)
def test_a_session_and_a_dial_that_disagree_are_explained(*, connected: bool, works: bool, level: Level | None) -> None:
    """A session that the peer opened needs no address; an address that works is tried again soon."""
    findings = explain_state("12D3KooWPeer", connected=connected, reached=works, last_error="it was away")
    assert [finding.level for finding in findings] == ([level] if level else [])
    if level is Level.WARNING:
        assert "it was away" in findings[0].text
