"""Nodes on a network that loses packets, falls apart and heals: what was asked for is done, and recorded once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.namespaces import HostStage, Network, needs_namespaces, open_network
from tests.acceptance.processes import QUICK_PULSE, NodeProcess, Process, wait_until

pytestmark = [*needs_namespaces, pytest.mark.slow]

ASKER, WORKER = "10.77.0.1", "10.77.0.2"
TASKS = 30
# A bad wireless link: TCP sends again what is lost, and a heartbeat may take a second or two.
LOST_PERCENT = 5
PATIENT_PULSE = {"PEERTASK_HEARTBEAT_MS": "1000", "PEERTASK_SILENCE_MS": "10000"}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Two hosts on one network.

    Attributes:
        network: between them.
        asker: the processes of one.
        worker: the processes of the other.
    """

    network: Network
    asker: HostStage
    worker: HostStage


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Two hosts that reach each other."""
    with open_network() as network:
        network.add_host("asker", ASKER)
        network.add_host("worker", WORKER)
        both = Hosts(network, HostStage(tmp_path, network, "asker"), HostStage(tmp_path, network, "worker"))
        yield both
        for stage in (both.asker, both.worker):
            stage.close()


def start_pair(hosts: Hosts, settings: dict[str, str]) -> tuple[NodeProcess, NodeProcess]:
    """A node at each host, connected."""
    worker = hosts.worker.start_node("worker", "--listen", f"/ip4/{WORKER}/tcp/4001", settings=settings)
    asker = hosts.asker.start_node("asker", "--listen", f"/ip4/{ASKER}/tcp/4001", settings=settings)
    asker.connect(worker)
    return asker, worker


def start_tasks(hosts: Hosts, worker: NodeProcess, kind: str = "mock") -> Process:
    """A command that has tasks done by the worker, a few at a time."""
    prompts = hosts.asker.write_lines("prompts", TASKS)
    options = ("--to", worker.peer_id, "--data", "asker", "--kind", kind, "--concurrency", "6", "--json")
    return hosts.asker.start("map", *options, prompts)


def assert_each_has_one_result(mapping: Process, asker: NodeProcess, worker: NodeProcess) -> None:
    """Every line has its result, and each node has recorded each task once, as complete."""
    done = mapping.wait(90)
    assert done.code == 0, done.err
    results = [json.loads(line) for line in done.lines]
    assert len({result["task_id"] for result in results}) == len(results) == TASKS
    for node in (asker, worker):
        assert Counter(task.status for task in node.tasks()) == {"complete": TASKS}


def test_a_partition_that_heals_costs_time_only(hosts: Hosts) -> None:
    """Both sides notice that the other is gone; when it is back, the requester attaches to what the worker has done."""
    asker, worker = start_pair(hosts, QUICK_PULSE)
    mapping = start_tasks(hosts, worker)
    wait_until(lambda: worker.tasks("executing"), "task that runs")
    hosts.network.cut("worker")
    asker.wait_for_peer(worker, connected=False)
    worker.wait_for_peer(asker, connected=False)
    assert len(mapping.lines()) < TASKS
    hosts.network.heal("worker")
    assert_each_has_one_result(mapping, asker, worker)
    # What the worker had under way when the network fell apart was done once, and not again.
    assert {task.attempt for task in worker.tasks()} == {1}


def test_a_link_that_loses_packets_is_a_slow_link(hosts: Hosts) -> None:
    """Nothing is lost, and no session either, when one packet in twenty is, in each direction."""
    asker, worker = start_pair(hosts, PATIENT_PULSE)
    for host in ("asker", "worker"):
        hosts.network.lose(host, LOST_PERCENT)
    assert_each_has_one_result(start_tasks(hosts, worker), asker, worker)
    (peer,) = asker.ask(lambda client: client.peers())
    assert peer.connected
    assert not peer.last_error


def test_a_worker_behind_nat_that_nobody_can_dial_does_tasks(tmp_path: Path) -> None:
    """It dials, asks for work and gets it over the session that it opened; also after its router has forgotten it."""
    with open_network() as network:
        network.add_host("owner", ASKER)
        network.add_hidden_host("laptop", "10.78.0.2", "router", inside="10.78.0.1", outside=WORKER)
        owner_stage, laptop = (HostStage(tmp_path, network, host) for host in ("owner", "laptop"))
        worker_id = laptop.run("id", "--data", "laptop").lines[0]
        listen = ("--listen", f"/ip4/{ASKER}/tcp/4001")
        settings = {**QUICK_PULSE, "PEERTASK_KINDS": "echo"}
        owner = owner_stage.start_node("owner", *listen, "--worker", worker_id, settings=settings)
        offer = ("--for", owner.address, "--kind", "mock", "--slots", "2", "--json")
        laptop.start("work", "--data", "laptop", *offer, settings=QUICK_PULSE).wait_for_lines(1)
        assert "unreachable" in network.run_in("owner", "sh", "-c", "ip route get 10.78.0.2 2>&1 || true")

        def send() -> None:
            (sent,) = owner_stage.run("send", "--data", "owner", "--json", "Hello").json()
            assert sent["result"] == "Mock result for: Hello"

        send()
        assert {task.holder for task in owner.tasks()} == {worker_id}
        network.cut("owner")
        wait_until(lambda: not connected(owner), "end of the session")
        network.heal("owner")
        send()
        for stage in (owner_stage, laptop):
            stage.close()


@pytest.fixture
def separated(tmp_path: Path) -> Iterator[dict[str, HostStage]]:
    """A host that two others reach, each of which is behind a router of its own; by name, each in its own folder."""
    with open_network() as network:
        network.add_host("relay", ASKER)
        network.add_hidden_host("laptop", "10.78.0.2", "router", inside="10.78.0.1", outside=WORKER)
        network.add_hidden_host("desktop", "10.79.0.2", "gateway", inside="10.79.0.1", outside="10.77.0.3")
        assert network.reaches("desktop", ASKER)
        assert not network.reaches("desktop", "10.78.0.2")
        assert not network.reaches("laptop", "10.79.0.2")
        stages = {}
        for host in ("relay", "laptop", "desktop"):
            (tmp_path / host).mkdir()
            stages[host] = HostStage(tmp_path / host, network, host)
        yield stages
        for stage in stages.values():
            stage.close()


def test_two_nodes_that_cannot_reach_each_other_meet_at_a_relay(separated: dict[str, HostStage]) -> None:
    """Neither can be dialled: tasks go both ways through a node that both reach, also after that was gone."""
    nowhere = {**QUICK_PULSE, "PEERTASK_LISTEN": "[]"}
    asks = separated["desktop"].launch_node("asks", settings=nowhere)
    as_relay = ("--listen", f"/ip4/{ASKER}/tcp/4001", "--relay-service")
    relay = separated["relay"].start_node("relay", *as_relay)
    works = separated["laptop"].start_node("works", "--relay", relay.address, settings=nowhere)
    separated["desktop"].ready(asks)
    assert works.address == f"{relay.address}/p2p-circuit/p2p/{works.peer_id}"

    def send(stage: HostStage, data: str, to: str) -> None:
        sent = stage.start("send", "--data", data, "--to", to, "--kind", "echo", "hello").wait(60)
        assert (sent.code, sent.out) == (0, "hello\n"), sent.err

    send(separated["desktop"], "asks", works.address)
    send(separated["laptop"], "works", asks.peer_id)
    (peer,) = asks.ask(lambda client: client.peers())
    assert peer.relay == relay.peer_id
    relay.process.kill()
    wait_until(lambda: not connected(asks), "end of the session")
    separated["relay"].start_node("relay", *as_relay)
    send(separated["desktop"], "asks", works.peer_id)


def connected(node: NodeProcess) -> bool:
    """Whether a node has a session with anybody."""
    return any(peer.connected for peer in node.ask(lambda client: client.peers()))


def test_an_address_that_nobody_answers_at_is_told_as_such(hosts: Hosts) -> None:
    """A firewall that drops what comes looks like nobody: the command says so, with the address, and ends."""
    worker = hosts.worker.start_node("worker", "--listen", f"/ip4/{WORKER}/tcp/4001")
    hosts.network.cut("worker")
    refused = hosts.asker.start("send", "--json", "--to", worker.address, "--data", "nobody", "x").wait(90)
    assert refused.code != 0
    error = refused.error()
    assert error["code"] == "PEER_UNREACHABLE"
    assert WORKER in error["message"]
