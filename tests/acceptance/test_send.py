"""`peertask send`: one task, its result, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.acceptance.processes import NodeProcess, Stage, wait_until

# The tests of this module share two nodes, so one process of pytest-xdist runs them all.
pytestmark = pytest.mark.xdist_group("acceptance of send")

NOBODY = "12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA"
STRANGER = "12D3KooWCbLi5XhKdNZVCHtxAoYmWXn848S78kYeQ2r6FwwkCePH"
TASK_ID = "3f2b6c1e-8d4a-4f0b-9a63-0c5d7e1f2a3b"


@pytest.mark.wheel
def test_a_task_goes_to_the_address_of_a_node_and_its_result_comes_back(
    shared_stage: Stage, worker: NodeProcess
) -> None:
    """Two processes, one task: standard output is the result and nothing else."""
    # covers CORE-6
    done = shared_stage.run("send", "--to", worker.address, "--data", "asker", "What is a monad?")
    assert (done.code, done.out, done.err) == (0, "Mock result for: What is a monad?\n", "")


def test_json_is_the_task_result_and_nothing_else(shared_stage: Stage, local: NodeProcess, worker: NodeProcess) -> None:
    """Programs get exactly the three fields of a TaskResult."""
    # covers CORE-7
    send = ("send", "--data", "local", "--to", worker.peer_id, "--kind", "echo", "--json")
    (result,) = shared_stage.run(*send, "--id", TASK_ID, "hello").json()
    assert result.keys() == {"task_id", "result", "duration_ms"}
    assert (result["task_id"], result["result"]) == (TASK_ID, "hello")
    (again,) = shared_stage.run(*send, "--id", TASK_ID, "hello").json()
    assert again == result
    assert [task.requester for task in worker.tasks() if task.id == TASK_ID] == [local.peer_id]


def test_every_option_of_a_task_arrives_at_the_worker(shared_stage: Stage, local: NodeProcess) -> None:
    """What the command line says about a task is what the node knows about it."""
    options = [
        "--kind",
        "echo",
        "--priority",
        "9",
        "--project",
        "trial",
        "--session",
        "talk",
        "--execution-timeout",
        "2",
        "--attempts",
        "5",
        "--retry-on",
        "TIMEOUT",
    ]
    done = shared_stage.run(
        "send", "--data", "local", *options, "--param", "words=50", "--param", "tone=dry", "--json", "-", stdin="a text"
    )
    (shown,) = shared_stage.run("show", "--data", "local", "--json", done.json()[0]["task_id"]).json()
    assert shown["result"]["result"] == shown["prompt"] == "a text"
    assert (shown["priority"], shown["project"], shown["session_id"], shown["timeout_ms"]) == (9, "trial", "talk", 2000)
    assert shown["params"] == {"words": 50, "tone": "dry"}
    assert (shown["retry"]["attempts"], shown["retry"]["retry_on"]) == (5, ["TIMEOUT"])


def test_a_task_that_nobody_can_do_says_what_it_waits_for(shared_stage: Stage, local: NodeProcess) -> None:
    """While it waits, once; and when its time is over. A program hears it at the end, as an error."""
    # covers COORD-2
    send = ("send", "--data", "local", "--persona", "critic", "--timeout", "2.5")
    late = shared_stage.run(*send, "look")
    waits, help_, error = late.err.splitlines()
    assert (late.code, late.out) == (5, "")
    assert waits.startswith("waits for a worker that does tasks of kind 'mock' and acts as 'critic'")
    assert "nobody acts as 'critic'" in waits
    assert "--persona critic" in help_
    waited = waits.replace("waits", "waited", 1)
    assert f"could not be started before its deadline: it {waited}. Let somebody run " in error
    (told,) = shared_stage.run(*send[:-1], "0.1", "--json", "look").err.splitlines()
    assert json.loads(told)["error"]["code"] == "DEADLINE_EXCEEDED"


def test_without_an_address_the_local_node_chooses(shared_stage: Stage, local: NodeProcess) -> None:
    """`--to` may be left out: the task is done by the node or by one of its peers."""
    assert shared_stage.run("send", "--data", "local", "--kind", "echo", "hi").out == "hi\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--priority", "256", "x"], ["--priority", "255", "256"]),
        (["--kind", "two words", "x"], ["--kind", "'two words'"]),
        (["--project", "a/b", "x"], ["--project", "'a/b'"]),
        (["--id", "42", "x"], ["id", "'42'", "UUID"]),
        (["--attempts", "0", "x"], ["--attempts", "0"]),
        (["--retry-on", "TIME_OUT", "x"], ["--retry-on", "'TIMEOUT'"]),
        (["--param", "words", "x"], ["--param", "'words'", "NAME=VALUE"]),
        (["--execution-timeout", "90000", "x"], ["--execution-timeout", "86400000"]),
        (["--timeout", "-1", "x"], ["--timeout"]),
        ([], ["PROMPT"]),
    ],
)
def test_a_wrong_field_is_refused_before_anything_is_sent(stage: Stage, arguments: list[str], named: list[str]) -> None:
    """The message names the option, what was given and what is allowed; no node is started for it."""
    refused = stage.run("send", *arguments)
    assert (refused.code, refused.out) == (2, "")
    for word in named:
        assert word in refused.err


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (b"x" * (16 * 1024 * 1024 + 1), ["standard input", "prompt", "16777216"]),
        (b"caf\xe9", ["standard input", "UTF-8", "byte 3"]),
    ],
)
def test_a_prompt_that_no_node_would_take_is_refused_before_it_is_sent(
    stage: Stage, prompt: bytes, named: list[str]
) -> None:
    """A prompt that is too large or not text is named with its place and limit."""
    refused = stage.run("send", "-", stdin=prompt)
    assert (refused.code, refused.out) == (2, "")
    for word in named:
        assert word in refused.err
    assert len(refused.err) < 1000


@pytest.mark.parametrize(
    ("destination", "code", "error_code", "named"),
    [
        ("/ip4/127.0.0.1/tcp/1/p2p/" + NOBODY, 3, "PEER_UNREACHABLE", ["/ip4/127.0.0.1/tcp/1"]),
        ("{listen}/p2p/" + NOBODY, 3, "WRONG_PEER", [NOBODY, "{peer_id}"]),
        (STRANGER, 3, "PEER_UNREACHABLE", [STRANGER, "no address"]),
        ("{own}", 2, "INVALID_ADDRESS", ["this node itself"]),
        ("/ip4/127.0.0.1/tcp/4001", 2, "INVALID_ADDRESS", ["which peer"]),
        ("/ip4/300.0.0.1/tcp/4001/p2p/" + NOBODY, 2, "INVALID_ADDRESS", ["300.0.0.1"]),
        ("nobody", 2, "INVALID_ADDRESS", ["'nobody'"]),
    ],
)
def test_a_peer_that_cannot_be_reached_is_explained(
    shared_stage: Stage,
    local: NodeProcess,
    worker: NodeProcess,
    destination: str,
    code: int,
    error_code: str,
    named: list[str],
) -> None:
    """Unreachable, another peer, oneself, nonsense: each has its words, its code and its exit code."""
    known = {"listen": worker.listen, "peer_id": worker.peer_id, "own": local.address}
    refused = shared_stage.run("send", "--data", "local", "--json", "--to", destination.format(**known), "x")
    assert (refused.code, refused.out) == (code, "")
    error = refused.error()
    assert (error["code"], error["exit_code"]) == (error_code, code)
    for word in named:
        assert word.format(**known) in error["message"]


def test_an_own_node_explains_an_unreachable_peer_too(stage: Stage) -> None:
    """Without a running node the words and the exit code are the same."""
    refused = stage.run("send", "--json", "--to", "/ip4/127.0.0.1/tcp/1/p2p/" + NOBODY, "x")
    assert (refused.code, refused.error()["code"]) == (3, "PEER_UNREACHABLE")


def test_a_kind_that_the_worker_does_not_have_is_refused_with_those_it_has(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """NO_EXECUTOR names the kinds that are there."""
    refused = shared_stage.run("send", "--data", "local", "--json", "--to", worker.peer_id, "--kind", "summarise", "x")
    assert refused.code == 4
    assert refused.error()["code"] == "NO_EXECUTOR"
    assert "echo, mock" in refused.error()["message"]


@pytest.mark.parametrize(
    ("option", "error_code"), [("--timeout", "DEADLINE_EXCEEDED"), ("--execution-timeout", "TIMEOUT")]
)
def test_a_task_whose_time_runs_out_fails_in_time(
    shared_stage: Stage, local: NodeProcess, option: str, error_code: str
) -> None:
    """The time for all, and the time for one execution, both end a task that takes at least 100 ms."""
    failed = shared_stage.run("send", "--data", "local", "--json", option, "0.02", "x")
    assert (failed.code, failed.error()["code"]) == (5, error_code)
    assert failed.error()["task_id"]


def test_a_detached_task_goes_on_without_its_command(shared_stage: Stage, local: NodeProcess) -> None:
    """`--detach` prints the id and leaves; `watch` waits for the end, and its exit code tells how that was."""
    task_id = shared_stage.run("send", "--data", "local", "--detach", "hello").out.strip()
    watched = shared_stage.run("watch", "--data", "local", "--json", task_id)
    assert watched.code == 0
    assert watched.json()[-1]["fact"] == "Completed"


def test_a_detached_task_needs_a_running_node(stage: Stage) -> None:
    """A task cannot outlive the only node that knows it, and the message says how to start one."""
    refused = stage.run("send", "--data", "nowhere", "--detach", "hello")
    assert refused.code == 3
    assert "peertask node --data" in refused.err


def test_ctrl_c_cancels_the_task(shared_stage: Stage, local: NodeProcess) -> None:
    """Whoever gives up waiting does not want the result: the task ends as cancelled, and the exit code is 130."""
    frozen = shared_stage.start_node("frozen")
    local.connect(frozen)
    os.kill(frozen.process.pid, signal.SIGSTOP)
    sending = shared_stage.start("send", "--data", "local", "--to", frozen.peer_id, "--json", "never mind")
    wait_until(lambda: any(task.holder == frozen.peer_id for task in local.tasks("claimed")), "task at the frozen peer")
    (task,) = local.tasks("claimed")
    sending.signal(signal.SIGINT)
    assert sending.wait().code == 130
    os.kill(frozen.process.pid, signal.SIGCONT)
    wait_until(lambda: [one for one in local.tasks("cancelled") if one.id == task.id], "cancelled task")


def test_two_commands_without_a_node_do_not_get_in_each_others_way(shared_stage: Stage, worker: NodeProcess) -> None:
    """Both tasks are done, though only one of the two can be the peer of the data folder at a time."""
    both = [shared_stage.start("send", "--data", "twice", "--to", worker.address, word) for word in ("one", "two")]
    done = [process.wait() for process in both]
    assert [one.code for one in done] == [0, 0]
    assert [one.out for one in done] == ["Mock result for: one\n", "Mock result for: two\n"]


def test_two_commands_through_one_node_at_once_each_get_their_own_result(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """Commands share a node without mixing anything up."""
    words = [f"word {number}" for number in range(4)]
    sending = [shared_stage.start("send", "--data", "local", "--to", worker.peer_id, "--json", word) for word in words]
    results = [json.loads(process.wait().out)["result"] for process in sending]
    assert results == [f"Mock result for: {word}" for word in words]
