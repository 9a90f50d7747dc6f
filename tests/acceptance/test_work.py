"""`peertask work`: a node that dials the one it works for, and asks it for tasks."""

from __future__ import annotations

import json
import signal

from tests.acceptance.processes import Stage

# What the owner cannot do itself, its worker has to.
ONLY_ECHO = {"PEERTASK_KINDS": "echo"}


def test_a_worker_does_what_its_node_cannot_and_a_stranger_is_declined(stage: Stage) -> None:
    """The node names its worker, which listens nowhere; nobody else gets its tasks, and is told so."""
    worker_id = stage.run("id", "--data", "worker").lines[0]
    owner = stage.start_node("owner", "--worker", worker_id, settings=ONLY_ECHO)
    offer = ("--for", owner.address, "--kind", "mock", "--persona", "poet", "--slots", "2", "--json")
    worker = stage.start("work", "--data", "worker", *offer)
    ready = json.loads(worker.wait_for_lines(1)[0])
    assert (ready["event"], ready["addresses"], ready["works_for"]) == ("ready", [], owner.peer_id)
    assert (ready["slots"], ready["kinds"], ready["personas"]) == (2, ["mock"], ["poet"])

    (sent,) = stage.run("send", "--data", "owner", "--json", "Hello").json()
    explained = stage.run("explain", "--data", "owner", sent["task_id"])
    assert f"status     complete, {worker_id} has done it" in explained.lines
    assert f"  attempt 1  {worker_id}  brought the result" in explained.out

    stranger = stage.start("work", "--data", "stranger", "--for", owner.address, "--json").wait()
    assert stranger.code == 4
    assert [event["event"] for event in stranger.json()] == ["ready", "draining", "stopped"]
    assert stranger.error()["code"] == "FORBIDDEN"
    assert "peertask node --worker 12D3KooW" in stranger.error()["message"]

    worker.signal(signal.SIGTERM)
    done = worker.wait()
    assert (done.code, [event["event"] for event in done.json()]) == (0, ["ready", "draining", "stopped"])


def test_a_worker_that_cannot_do_what_it_is_to_offer_does_not_start(stage: Stage) -> None:
    """A misspelt kind is a wrong setting."""
    address = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H"
    refused = stage.run("work", "--data", "worker", "--for", address, "--kind", "mook")
    assert (refused.code, refused.out) == (2, "")
    assert "no executor for kind 'mook'" in refused.err
