"""What a node knows: `peertask list`, `show`, `watch`, `cancel`, `peers`, `id`."""

from __future__ import annotations

import json
import signal
from functools import partial

import pytest
import trio

from node.gateways.http.work_client import WorkClient
from tests.acceptance.processes import NodeProcess, Stage, wait_until

# The tests of this module share two nodes, so one process of pytest-xdist runs them all.
pytestmark = pytest.mark.xdist_group("acceptance of tasks and peers")

UNKNOWN = "3f2b6c1e-8d4a-4f0b-9a63-0c5d7e1f2a3b"


@pytest.fixture(scope="module")
def done_task(shared_stage: Stage, local: NodeProcess, worker: NodeProcess) -> str:
    """The id of a task that the worker has done for the local node."""
    sent = shared_stage.run(
        "send",
        "--data",
        "local",
        "--to",
        worker.peer_id,
        "--kind",
        "echo",
        "--project",
        "shown",
        "--json",
        "two\nlines",
    )
    return str(sent.json()[0]["task_id"])


@pytest.fixture(scope="module")
def failed_task(shared_stage: Stage, local: NodeProcess) -> str:
    """The id of a task that has run out of time."""
    failed = shared_stage.run("send", "--data", "local", "--json", "--execution-timeout", "0.02", "too slow")
    return str(failed.error()["task_id"])


def test_list_is_a_table_for_people_and_pipes(shared_stage: Stage, done_task: str, failed_task: str) -> None:
    """Not on a terminal the cells have tabs between them, one task a line, the newest first."""
    lines = [line.split("\t") for line in shared_stage.run("list", "--data", "local").lines]
    assert lines[0] == ["TASK", "STATUS", "KIND", "ASKED BY", "DONE BY", "TOOK", "PROMPT"]
    assert [line[0] for line in lines[1:]] == [failed_task, done_task]
    assert (lines[2][1], lines[2][2], lines[2][6]) == ("complete", "echo", "two lines")


def test_list_as_json_has_an_object_for_each_task_that_the_filters_let_through(
    shared_stage: Stage, done_task: str, failed_task: str
) -> None:
    """Filters by status and project, and a limit."""
    failed = shared_stage.run("list", "--data", "local", "--json", "--status", "failed", "--status", "cancelled")
    assert [task["id"] for task in failed.json()] == [failed_task]
    shown = shared_stage.run("list", "--data", "local", "--json", "--project", "shown", "--limit", "1")
    assert [(task["id"], task["status"]) for task in shown.json()] == [(done_task, "complete")]


def test_list_says_when_there_is_nothing(shared_stage: Stage, local: NodeProcess) -> None:
    """An empty list is no error, and leaves standard output empty."""
    nothing = shared_stage.run("list", "--data", "local", "--project", "nobody")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No tasks.\n")


def test_show_tells_everything_about_a_task(
    shared_stage: Stage, worker: NodeProcess, done_task: str, failed_task: str
) -> None:
    """For people: who asked, who did it, the prompt and the result, or why there is none."""
    shown = shared_stage.run("show", "--data", "local", done_task).lines
    assert "status     complete, 100%" in shown
    assert f"done by    {worker.peer_id}" in shown
    assert shown[-2:] == ["  two", "  lines"]
    failed = shared_stage.run("show", "--data", "local", failed_task)
    assert "failure TIMEOUT" in failed.lines


def test_a_task_is_proven_by_its_receipt_and_by_the_logs_of_both_nodes(
    shared_stage: Stage, worker: NodeProcess, done_task: str
) -> None:
    """The receipt of a quick task is fetched and checked offline; its hash stands in both logs, which are whole."""
    # covers COORD-5, COORD-8
    for name, options in (("receipt.json", ("--receipt",)), ("task.json", ())):
        shown = shared_stage.run("show", "--data", "local", done_task, "--json", *options)
        (shared_stage.folder / name).write_text(shown.out)
    valid = shared_stage.run("verify", "receipt.json", "--task", "task.json", "--by", worker.peer_id)
    assert (valid.code, "checked    signature, executor, task, result" in valid.lines) == (0, True)
    result = json.loads((shared_stage.folder / "receipt.json").read_text())["result_hash"]
    assert f"result     sha256 {result}" in shared_stage.run("show", "--data", "local", done_task, "--receipt").lines
    for folder in ("local", "worker"):
        look = partial(shared_stage.run, "audit", done_task, "--data", folder)
        wait_until(lambda look=look: f"result_hash={result}" in look().out, "the end of the task in the log")  # type: ignore[misc]
        assert shared_stage.run("audit", "--verify", "--data", folder).code == 0


def test_explain_tells_what_a_task_waits_for_and_who_could_do_it(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess, failed_task: str
) -> None:
    """For people a line for each; as JSON the same for programs."""
    sent = shared_stage.run("send", "--data", "local", "--kind", "nobody-has-it", "--detach", "x")
    lines = shared_stage.run("explain", "--data", "local", sent.lines[0]).lines
    assert lines[2].startswith("waits for  a worker that does tasks of kind 'nobody-has-it'")
    assert lines[3].endswith("let somebody run a worker that does 'nobody-has-it'")
    assert lines[5] == "who could do it"
    assert {line.split()[2] for line in lines[6:8]} == {local.peer_id, worker.peer_id}
    (explained,) = shared_stage.run("explain", "--data", "local", "--json", failed_task).json()
    assert (explained["status"], explained["waits_for"], explained["trials"][0]["code"]) == ("failed", [], "TIMEOUT")
    assert explained["outcome"].startswith("TIMEOUT: ")
    shared_stage.run("cancel", "--data", "local", sent.lines[0])


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "explain"])
def test_an_unknown_task_has_an_exit_code_of_its_own(shared_stage: Stage, local: NodeProcess, command: str) -> None:
    """6 and NOT_FOUND, so that a script can tell it from a task that failed; an id that is none is a usage error."""
    unknown = shared_stage.run(command, "--data", "local", "--json", UNKNOWN)
    assert (unknown.code, unknown.error()["code"]) == (6, "NOT_FOUND")
    malformed = shared_stage.run(command, "--data", "local", "--json", "42")
    assert (malformed.code, malformed.error()["code"]) == (2, "INVALID_TASK")


def test_watch_ends_with_the_task_and_exits_as_it_ended(shared_stage: Stage, done_task: str, failed_task: str) -> None:
    """The last fact is printed also for a task that has ended long ago."""
    watched = shared_stage.run("watch", "--data", "local", "--json", done_task)
    assert (watched.code, watched.json()[-1]["fact"]) == (0, "Completed")
    failed = shared_stage.run("watch", "--data", "local", failed_task)
    assert failed.code == 5
    assert "TIMEOUT" in failed.lines[-1]
    assert shared_stage.run("watch", "--data", "local", "--after", "3").code == 2


def test_watch_without_a_task_tells_of_all_until_ctrl_c(shared_stage: Stage, local: NodeProcess) -> None:
    """Facts of tasks that begin later are printed as they happen."""
    watching = shared_stage.start("watch", "--data", "local", "--json")
    sent: list[str] = []

    def seen() -> bool:
        if not watching.lines():
            sent.append(shared_stage.run("send", "--data", "local", "--detach", "--kind", "echo", "x").out.strip())
        return bool(watching.lines())

    wait_until(seen, "facts")
    assert json.loads(watching.lines()[0])["task_id"] in sent
    watching.signal(signal.SIGINT)
    assert watching.wait().code == 130


def test_cancel_stops_a_task_and_leaves_one_that_has_ended_as_it_is(
    shared_stage: Stage, local: NodeProcess, done_task: str
) -> None:
    """One line for each task, with its status."""
    frozen = shared_stage.start_node("frozen")
    local.connect(frozen)
    frozen.process.signal(signal.SIGSTOP)
    send = ("send", "--data", "local", "--to", frozen.peer_id, "--detach", "never done")
    task_id = shared_stage.run(*send).out.strip()
    cancelled = shared_stage.run("cancel", "--data", "local", task_id, done_task)
    assert cancelled.code == 0
    assert cancelled.lines[0].split()[0] == task_id
    assert cancelled.lines[0].split()[1] in {"cancelling", "cancelled"}
    assert cancelled.lines[1].split() == [done_task, "complete"]
    frozen.process.signal(signal.SIGCONT)
    watched = shared_stage.run("watch", "--data", "local", "--json", task_id)
    assert (watched.code, watched.json()[-1]["status"]) == (1, "cancelled")


def test_peers_are_connected_listed_and_disconnected(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """What each offers, and whether it is there."""
    row = next(line for line in peers(shared_stage) if line[0] == worker.peer_id)
    assert (row[1], row[3]) == ("connected", "echo, mock")
    gone = shared_stage.run("peers", "--data", "local", "--json", "--disconnect", worker.peer_id)
    assert [peer["connected"] for peer in gone.json() if peer["peer_id"] == worker.peer_id] == [False]
    back = shared_stage.run("peers", "--data", "local", "--json", "--connect", worker.address)
    assert [peer["connected"] for peer in back.json() if peer["peer_id"] == worker.peer_id] == [True]


def test_peers_of_a_peer_are_listed_and_can_be_asked_by_id(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """The worker tells of whom it knows; an id is enough to have a task done there."""
    third = shared_stage.start_node("third", "--peer", worker.address)

    def told_of() -> list[str]:
        return next((line for line in peers(shared_stage) if line[0] == third.peer_id), [])

    wait_until(lambda: bool(told_of()), "word of a third node")
    assert (told_of()[1], told_of()[6]) == ("told of", f"peer …{worker.peer_id[-8:]}")
    sent = shared_stage.run("send", "--data", "local", "--to", third.peer_id, "--kind", "echo", "hello")
    assert (sent.code, sent.out) == (0, "hello\n")
    assert (told_of()[1], told_of()[6]) == ("connected", f"peer …{worker.peer_id[-8:]}")


def test_the_doctor_dials_all_peers_of_a_running_node_and_those_that_are_named(
    shared_stage: Stage, local: NodeProcess, worker: NodeProcess
) -> None:
    """What it finds is in words, and a problem is in the exit code."""
    well = shared_stage.run("doctor", "--data", "local", worker.peer_id)
    assert (well.code, well.err) == (0, "")
    assert "for this machine only" in well.out
    assert f"ok  {worker.address}\n    reached in " in well.out
    assert worker.address in shared_stage.run("doctor", "--data", "local", "--json").out
    wrong = worker.address.replace(worker.peer_id, local.peer_id)
    ill = shared_stage.run("doctor", "--data", "local", "--json", wrong)
    assert ill.code == 1
    assert [finding["symptom"] for finding in ill.json() if finding["symptom"]] == ["wrong peer"]


def test_the_doctor_needs_no_running_node(shared_stage: Stage, worker: NodeProcess) -> None:
    """It asks as the node of the data folder, so it knows what that one may use."""
    asked = ("doctor", "--data", "elsewhere", "--kind", "summarise", worker.address)
    refused = shared_stage.run(*asked)
    assert refused.code == 1
    assert f"--allow summarise={shared_stage.run('id', '--data', 'elsewhere').lines[0]}" in refused.out
    alone = shared_stage.run("doctor", "--data", "elsewhere")
    assert (alone.code, "no peer is known" in alone.out) == (1, True)


def test_id_is_the_same_whether_or_not_the_node_runs(shared_stage: Stage, local: NodeProcess) -> None:
    """A new folder gets an identity; a running node also tells its addresses."""
    running = shared_stage.run("id", "--data", "local")
    assert running.lines == [local.peer_id, local.address]
    (new,) = shared_stage.run("id", "--data", "new", "--json").json()
    assert (new["running"], new["addresses"]) == (False, None)
    assert shared_stage.run("id", "--data", "new").lines == [new["peer_id"]]


def test_without_a_running_node_the_message_says_how_to_start_one(shared_stage: Stage) -> None:
    """Exit code 3, and the command to type."""
    refused = shared_stage.run("list", "--data", "nowhere")
    assert refused.code == 3
    assert "peertask node --data" in refused.err


def test_what_failed_is_listed_and_retried(shared_stage: Stage, local: NodeProcess, failed_task: str) -> None:
    """A new task for each, which `show` tells of both; then the list of what failed has only what fails again."""
    # covers COORD-29
    where = ("--data", "local")
    lines = [line.split("\t") for line in shared_stage.run("list", *where, "--failed", "--code", "TIMEOUT").lines]
    assert [(line[0], line[1], line[5]) for line in lines] == [
        ("TASK", "CODE", "ATTEMPTS"),
        (failed_task, "TIMEOUT", "1"),
    ]
    (retry,) = shared_stage.run("retry", *where, "--all-failed", "--code", "TIMEOUT", "--json").json()
    assert retry["retry_of"] == failed_task
    assert f"retry of   {failed_task}" in shared_stage.run("show", *where, retry["id"]).lines
    assert any(
        line.startswith(f"retried as {retry['id']}") for line in shared_stage.run("show", *where, failed_task).lines
    )
    again = shared_stage.run("retry", *where, failed_task, UNKNOWN)
    assert again.code == 6
    assert f"retried already, as {retry['id']}" in again.err
    assert shared_stage.run("watch", *where, retry["id"]).code == 5
    assert [task["id"] for task in shared_stage.run("list", *where, "--failed", "--json").json()] == [retry["id"]]
    assert retry["id"] in shared_stage.run("retry", *where, retry["id"]).out
    nothing = shared_stage.run("retry", *where, "--all-failed", "--project", "nobody")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No failed tasks.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("retry",),
        ("retry", UNKNOWN, "--all-failed"),
        ("retry", UNKNOWN, "--code", "BUSY"),
        ("list", "--failed", "--status", "failed"),
        ("list", "--code", "NO_SUCH_CODE"),
    ],
)
def test_options_that_do_not_go_together_are_refused(shared_stage: Stage, arguments: tuple[str, ...]) -> None:
    """Before any node is asked."""
    assert shared_stage.run(*arguments, "--data", "nowhere").code == 2


def peers(stage: Stage) -> list[list[str]]:
    """The cells of `peertask peers` at the local node."""
    return [line.split("\t") for line in stage.run("peers", "--data", "local").lines]


GRAPH = """
[defaults]
kind = "echo"

[tasks.report]
prompt = "the report"
depends_on = ["summary", "title"]

[tasks.text]
prompt = "the text"

[tasks.summary]
prompt = "a summary"
depends_on = ["text"]
parent_id = "report"

[tasks.title]
prompt = "a title"
depends_on = ["text"]
parent_id = "report"
"""


def test_submit_has_a_graph_done_and_tells_how_each_task_ended(shared_stage: Stage, local: NodeProcess) -> None:
    """Names in the file, lines as they end, and the same as JSON; without --wait the ids, at once."""
    # covers COORD-1, COORD-3
    (shared_stage.folder / "graph.toml").write_text(GRAPH)
    submit = ("submit", "--data", "local", str(shared_stage.folder / "graph.toml"))
    done = shared_stage.run(*submit, "--wait")
    assert (done.code, done.err) == (0, "")
    lines = [line.split("\t") for line in done.lines]
    assert sorted(name for name, _, _ in lines[1:3]) == ["summary", "title"]
    assert (lines[0], lines[3]) == (["text", "complete", "the text"], ["report", "complete", "the report"])
    told = shared_stage.run(*submit, "--wait", "--json").json()
    assert {task["name"]: task["result"] for task in told}["report"] == "the report"
    ids = {task["name"]: task["task_id"] for task in shared_stage.run(*submit, "--json").json()}
    assert list(ids) == ["report", "text", "summary", "title"]
    ended = {task["name"]: task["task_id"] for task in told}
    shown = shared_stage.run("show", "--data", "local", ended["report"])
    assert "children   2 of 2 complete, 0 failed, 0 cancelled, 100% done" in shown.out


def test_a_graph_that_fails_says_so_and_a_blocked_task_shows_what_it_waits_for(
    shared_stage: Stage, local: NodeProcess
) -> None:
    """The exit code is that of a failed task; what is patient waits, and `list` and `show` say so."""
    # covers COORD-19
    graph = {
        "tasks": {
            "slow": {"prompt": "too slow", "timeout_ms": 20, "retry": {"attempts": 1}},
            "next": {"prompt": "next", "depends_on": ["slow"]},
        }
    }
    done = shared_stage.run("submit", "--data", "local", "--wait", "--json", "-", stdin=json.dumps(graph))
    assert done.code == 1
    slow, after = done.json()
    assert (slow["status"], slow["failure"]["code"]) == ("failed", "TIMEOUT")
    assert (after["status"], after["failure"]["code"]) == ("failed", "DEPENDENCY_FAILED")
    patient = {"tasks": {"late": {"prompt": "x", "depends_on": [slow["task_id"]], "on_failed_dependency": "wait"}}}
    (told,) = shared_stage.run("submit", "--data", "local", "--json", "-", stdin=json.dumps(patient)).json()
    (listed,) = shared_stage.run("list", "--data", "local", "--status", "pending").lines[1:]
    assert listed.split("\t")[:2] == [told["task_id"], "blocked"]
    shown = shared_stage.run("show", "--data", "local", told["task_id"]).out
    assert "status     blocked" in shown
    assert f"waits for  {slow['task_id']}  failed  slow" in shown
    explained = shared_stage.run("explain", "--data", "local", told["task_id"]).lines
    assert explained[1:] == ["status     blocked", f"waits for  {slow['task_id']} (failed), whose results it needs"]
    assert shared_stage.run("cancel", "--data", "local", told["task_id"]).code == 0


def test_a_graph_with_a_cycle_is_refused_with_its_path(shared_stage: Stage, local: NodeProcess) -> None:
    """By the names of the file, as a mistake of usage."""
    # covers COORD-20
    graph = {"tasks": {"a": {"prompt": "1", "depends_on": ["b"]}, "b": {"prompt": "2", "depends_on": ["a"]}}}
    refused = shared_stage.run("submit", "--data", "local", "-", stdin=json.dumps(graph))
    assert refused.code == 2
    assert "cycle: a → b → a" in refused.err or "cycle: b → a → b" in refused.err


def test_agents_come_and_go(shared_stage: Stage, local: NodeProcess) -> None:
    """A worker of another program is a row, or JSON with all that is known; then it is let go, and nobody is left."""
    # covers COORD-21
    trio.run(partial(WorkClient.register, local.folder, ("draw", "paint"), agent_id="agent-1", persona="painter"))
    lines = [line.split("\t") for line in shared_stage.run("agents", "--data", "local").lines]
    assert lines[0] == ["AGENT", "PERSONA", "KINDS", "TASKS", "HEARD OF", "GONE AT"]
    assert [line[:4] for line in lines[1:]] == [["agent-1", "painter", "draw, paint", "0"]]
    (agent,) = shared_stage.run("agents", "--data", "local", "--json").json()
    assert (agent["id"], agent["lapses_at"] - agent["heard_at"]) == ("agent-1", 30_000)
    nobody = shared_stage.run("agents", "--data", "local", "--remove", "agent-1")
    assert (nobody.code, nobody.out) == (0, "")
    assert nobody.err.startswith("No agents.")
