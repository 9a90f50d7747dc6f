"""Nodes that find each other on a local network, and a doctor that says why one does not see another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.namespaces import HostStage, Network, needs_namespaces, open_network
from tests.acceptance.processes import wait_until

pytestmark = [*needs_namespaces, pytest.mark.slow]

HERE, THERE, ELSEWHERE = "10.77.0.1", "10.77.0.2", "10.99.0.1"


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[tuple[Network, HostStage, HostStage]]:
    """Two hosts on one network."""
    with open_network() as network:
        network.add_host("here", HERE)
        network.add_host("there", THERE)
        here, there = (HostStage(tmp_path, network, host) for host in ("here", "there"))
        yield network, here, there
        here.close()
        there.close()


def test_nodes_of_a_local_network_find_each_other_and_the_doctor_tells_trouble_apart(
    lan: tuple[Network, HostStage, HostStage],
) -> None:
    """Nobody is told an address; then a firewall drops what comes, and another address is in no network."""
    network, here, there = lan
    mine, theirs = (
        stage.start_node(name, "--mdns", "--listen", f"/ip4/{host}/tcp/4001")
        for stage, name, host in ((here, "mine", HERE), (there, "theirs", THERE))
    )

    def symptom(address: str) -> str:
        diagnosis = here.start("doctor", "--data", "mine", "--json", address).wait(90)
        seen = str(next(finding["symptom"] for finding in diagnosis.json() if finding["symptom"]))
        assert diagnosis.code == (0 if seen == "reached" else 1)
        return seen

    def found() -> bool:
        return any(peer.peer_id == theirs.peer_id for peer in mine.ask(lambda client: client.peers()))

    wait_until(found, "a node on the local network")
    (peer,) = mine.ask(lambda client: client.peers())
    assert (peer.source, peer.hearsay, peer.addresses) == ("mdns", True, (theirs.address,))
    sent = here.start("send", "--data", "mine", "--to", theirs.peer_id, "--kind", "echo", "hello").wait(90)
    assert (sent.code, sent.out) == (0, "hello\n")
    assert symptom(theirs.address) == "reached"
    network.cut("there")
    assert symptom(theirs.address) == "timed out"
    assert symptom(theirs.address.replace(THERE, ELSEWHERE)) == "no route"
