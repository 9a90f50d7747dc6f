"""`peertask node`: ready, draining, stopped."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.acceptance.processes import Stage, wait_until


@pytest.mark.wheel
def test_the_first_line_says_where_the_node_answers_and_sigterm_ends_it_well(program_stage: Stage) -> None:
    """A program that starts a node reads one line of JSON, and ends the node with exit code 0."""
    node = program_stage.start_node("data", "--http", "127.0.0.1:0")
    assert node.ready["peer_id"].startswith("12D3KooW")
    assert node.address.startswith("/ip4/127.0.0.1/tcp/")
    assert node.address.endswith(f"/p2p/{node.peer_id}")
    assert node.ready["http"].startswith("http://127.0.0.1:")
    assert Path(node.ready["control"]).is_socket()
    assert mode(Path(node.ready["control"])) == 0o600
    assert mode(node.folder) == 0o700
    assert mode(node.folder / "identity.key") == 0o600
    node.process.signal(signal.SIGTERM)
    done = node.process.wait()
    assert done.code == 0
    assert [event["event"] for event in done.json()] == ["ready", "draining", "stopped"]
    assert done.json()[1]["reason"] == "SIGTERM"
    assert not Path(node.ready["control"]).exists()


def test_a_node_tells_a_person_how_to_send_it_a_task(stage: Stage) -> None:
    """Without --json the first lines are for people, and Ctrl-C ends the node with exit code 0."""
    process = stage.start("node", "--data", "data")
    introduction = process.wait_for_lines(7)
    assert introduction[0].startswith("peer id   12D3KooW")
    assert introduction[-1].startswith("  peertask send --to /ip4/127.0.0.1/tcp/")
    process.signal(signal.SIGINT)
    assert process.wait().code == 0


def test_a_second_node_in_the_same_folder_is_refused_and_told_who_has_it(stage: Stage) -> None:
    """Two nodes must not share an identity: the second names the process of the first, and leaves it alone."""
    first = stage.start_node("data")
    refused = stage.run("node", "--data", "data", "--listen", first.listen)
    assert refused.code == 2
    assert f"process {first.process.pid}" in refused.err
    assert stage.run("id", "--data", "data").lines[0] == first.peer_id


def test_a_node_keeps_its_identity_after_kill_9(stage: Stage) -> None:
    """What a killed node leaves in its folder does not keep the next one from starting, as the same peer."""
    first = stage.start_node("data")
    first.process.signal(signal.SIGKILL)
    assert first.process.wait().code == -signal.SIGKILL
    assert stage.run("list", "--data", "data").code == 3
    again = stage.start_again(first)
    assert (again.peer_id, again.address) == (first.peer_id, first.address)


def test_a_node_that_drains_delivers_what_it_executes(stage: Stage) -> None:
    """SIGTERM while a task runs: the requester gets its result, the node takes no new task, and exits with 0."""
    node = stage.start_node("data")
    prompts = stage.write_lines("prompts", 60)
    tasks = stage.start("map", "--to", node.address, "--data", "asker", "--concurrency", "6", "--json", prompts)
    wait_until(lambda: node.tasks("executing"), "task that runs")
    running = {task.id for task in node.tasks("executing")}
    node.process.signal(signal.SIGTERM)
    assert node.process.wait().code == 0
    finished = {json.loads(line)["task_id"] for line in tasks.wait_for_lines(len(running))}
    assert running <= finished


def test_a_second_signal_ends_a_draining_node_at_once(stage: Stage) -> None:
    """Whoever is in a hurry sends the signal twice: the node does not wait for its peers then."""
    worker, node = stage.start_nodes("worker", "data")
    node.connect(worker)
    worker.process.signal(signal.SIGSTOP)
    assert stage.run("send", "--data", "data", "--detach", "--to", worker.peer_id, "never done").code == 0
    node.process.signal(signal.SIGTERM)
    assert json.loads(node.process.wait_for_lines(2)[1])["event"] == "draining"
    node.process.signal(signal.SIGTERM)
    assert node.process.wait(3).code == 128 + signal.SIGTERM


def test_a_temporary_node_ends_with_its_input_and_leaves_nothing(stage: Stage) -> None:
    """A program that starts a node and dies takes the node and its folder with it."""
    read_end, write_end = os.pipe()
    node = stage.folder / "data"
    process = stage.start("node", "--json", "--data", str(node), "--temporary", "--until-eof", stdin=read_end)
    os.close(read_end)
    process.wait_for_lines(1)
    assert node.is_dir()
    os.close(write_end)
    done = process.wait()
    assert (done.code, done.json()[1]["reason"]) == (0, "end of input")
    assert not node.exists()


def test_a_temporary_node_does_not_take_a_folder_that_is_there(stage: Stage) -> None:
    """A folder that the node did not make is never removed."""
    (stage.folder / "mine").mkdir()
    refused = stage.run("node", "--data", "mine", "--temporary")
    assert refused.code == 2
    assert (stage.folder / "mine").is_dir()


@pytest.mark.parametrize(
    ("options", "settings", "named"),
    [
        (["--listen", "localhost:4001"], {}, ["listen", "/ip4/0.0.0.0/tcp/4001"]),
        (["--listen", "/ip4/127.0.0.1/udp/4001"], {}, ["udp", "TCP"]),
        (["--peer", "/ip4/127.0.0.1/tcp/4001"], {}, ["peers", "/p2p/"]),
        (["--http", "0.0.0.0:80"], {}, ["http", "loopback"]),
        (["--config", "nowhere.toml"], {}, ["nowhere.toml"]),
        ([], {"PEERTASK_LISTN": "/ip4/0.0.0.0/tcp/1"}, ["PEERTASK_LISTN", "PEERTASK_LISTEN"]),
        ([], {"PEERTASK_DRAIN_S": "-1"}, ["drain_s", "PEERTASK_DRAIN_S"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(
    stage: Stage, options: list[str], settings: dict[str, str], named: list[str]
) -> None:
    """The node does not start, and says which setting is wrong, where it came from, and what is allowed."""
    refused = stage.run("node", "--json", "--data", "data", *options, settings=settings)
    assert refused.code == 2
    assert refused.out == ""
    for word in named:
        assert word in refused.err


def mode(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)
