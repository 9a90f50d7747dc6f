"""Requests about tasks, over a real socket and a real manager; every answer is checked against the description."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from node.coordination.explain import Candidate, Explanation, Trial, Verdict
from node.coordination.hindrances import Reason, Wait
from node.gateways.http.client import ControlClient
from node.gateways.http.errors import STATUS_OF
from node.gateways.http.limits import ENVELOPE_BYTES
from node.gateways.http.response_models import ExplanationView
from node.testing import HeldStore
from protocol import ErrorCode, TaskId, TaskStatus, new_task_id
from tests.node.gateways.http_node import OWN_ID, PEER_ADDRESS, PEER_ID, connected, serving
from tests.protocol.samples import RECEIPT


async def _submit(client: httpx.AsyncClient, **body: object) -> dict[str, object]:
    response = await client.post("/v1/tasks", json={"prompt": "hello", **body})
    assert response.status_code == 202, response.text
    task: dict[str, object] = response.json()
    return task


async def test_a_submitted_task_is_recorded_with_what_was_asked(tmp_path: Path) -> None:
    """The answer and the node agree about every field that the client gave."""
    async with serving(tmp_path) as served, connected(served) as client:
        task = await _submit(
            client,
            kind="echo",
            priority=9,
            project="docs",
            params={"a": [1, None]},
            retry={"attempts": 5},
            timeout_s=1.5,
        )
        record = served.manager.get_task(TaskId(str(task["id"])))
        assert (record.task.kind, record.task.priority, record.task.params) == ("echo", 9, {"a": [1, None]})
        assert record.task.retry.attempts == 5
        assert (record.requester, record.target, record.task.sender) == (OWN_ID, None, OWN_ID)
        assert record.deadline == served.clock.now() + 1500
        assert task["reference"] == f"task-docs-{record.id}"
        assert (task["status"], task["created_at"]) == ("pending", served.clock.now())
        assert task["created_at_iso"] == "2027-01-15T08:00:00.000Z"


async def test_the_result_of_a_complete_task_has_exactly_three_fields(tmp_path: Path) -> None:
    """The result by itself, and within the task, is the JSON that a TaskResult is."""
    # covers CORE-7
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = str((await _submit(client))["id"])
        served.start(task_id)
        served.complete(task_id, "Mock result for: hello")
        expected = {"task_id": task_id, "result": "Mock result for: hello", "duration_ms": 12}
        assert (await client.get(f"/v1/tasks/{task_id}/result")).json() == expected
        assert (await client.get(f"/v1/tasks/{task_id}")).json()["result"] == expected


async def test_a_request_that_waits_is_answered_when_the_task_ends(tmp_path: Path) -> None:
    """Long polling gives the ended task with status 200."""
    async with serving(tmp_path) as served, connected(served) as client, trio.open_nursery() as nursery:
        task_id = new_task_id()

        async def work() -> None:
            async with served.manager.watch() as changes:
                nursery.start_soon(wait)
                await anext(changes)
            served.start(task_id)
            served.complete(task_id)

        async def wait() -> None:
            response = await client.post("/v1/tasks?wait=60", json={"prompt": "hello", "id": task_id})
            assert (response.status_code, response.json()["status"]) == (200, "complete")

        nursery.start_soon(work)


async def test_a_request_that_waits_too_shortly_gets_the_task_as_it_is(tmp_path: Path) -> None:
    """The time to wait is a bound, not a deadline of the task."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = (await _submit(client))["id"]
        assert (await client.get(f"/v1/tasks/{task_id}?wait=0.01")).json()["status"] == "pending"
        response = await client.get(f"/v1/tasks/{task_id}/result?wait=0.01")
        assert (response.status_code, response.json()["status"]) == (202, "pending")


async def test_the_same_request_again_is_the_same_task(tmp_path: Path) -> None:
    """The id makes a request repeatable, although the node stamps the time and the trace."""
    async with serving(tmp_path) as served, connected(served) as client:
        body = {"prompt": "hello", "id": new_task_id(), "metadata": {"page": 3}}
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        first = await client.post("/v1/tasks", json=body, headers={"traceparent": trace})
        served.clock.advance(5_000)
        again = await client.post("/v1/tasks", json=body, headers={"traceparent": trace.replace("b7", "c8")})
        assert first.json() == again.json()
        assert first.json()["metadata"] == {"page": 3, "traceparent": trace}
        other = await client.post("/v1/tasks", json={**body, "prompt": "other"})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "CONFLICT")


async def test_a_request_may_be_repeated_while_the_first_is_being_saved(tmp_path: Path) -> None:
    """Whoever had no answer because the disk takes long gets the same task, and both are answered when it is saved."""
    store = HeldStore()
    async with serving(tmp_path, store=store) as served, connected(served) as client:
        store.hold()
        body = {"prompt": "hello", "id": new_task_id()}
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await client.post("/v1/tasks", json=body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not store.held:
                await trio.testing.wait_all_tasks_blocked(0.001)
            served.clock.advance(5_000)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert answers == []
            assert len(store.held) == 1
            store.release()
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json() == answers[1].json()


async def test_a_task_can_be_sent_to_an_address_or_a_known_peer(tmp_path: Path) -> None:
    """An address is connected first; the id of a peer that is known is taken as it is, also this node's own."""
    async with serving(tmp_path) as served, connected(served) as client:
        assert (await _submit(client, to=PEER_ADDRESS))["target"] == PEER_ID
        assert (await _submit(client, to=PEER_ID))["target"] == PEER_ID
        assert (await _submit(client, to=OWN_ID))["target"] == OWN_ID
        away = await client.post("/v1/tasks", json={"prompt": "hello", "to": "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWAway"})
        assert (away.status_code, away.json()["error"]["code"]) == (502, "PEER_UNREACHABLE")
        assert len(served.manager.list_tasks()) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"prompt": "x", "priority": 256},
            "field priority of the body: input should be less than or equal to 255, but got 256",
        ),
        ({"prompt": "x", "kind": "no spaces"}, "field kind of the body"),
        ({"prompt": "x", "id": "nonsense"}, "field id"),
        ({"prompt": 5}, "field prompt of the body"),
        ({}, "field prompt of the body: field required"),
        ({"prompt": "x", "prio": 1}, "the body has the unknown field prio"),
        ({"prompt": "x", "retry": {"tries": 1}}, "the body has the unknown field retry.tries"),
        ({"prompt": "x", "timeout_s": 0}, "field timeout_s of the body"),
        ({"prompt": "x", "params": {"a": "\ud800"}}, "the body: invalid JSON"),
        ({"prompt": "x", "sender": "somebody"}, "the body has the unknown field sender"),
    ],
)
async def test_a_malformed_task_is_refused_in_words(tmp_path: Path, body: dict[str, object], message: str) -> None:
    """The error names the field, what is allowed, and what came instead; nothing is recorded."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.post("/v1/tasks", content=json.dumps(body))
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "INVALID_TASK")
        assert error["message"].startswith(message), error
        assert served.manager.list_tasks() == []


async def test_a_body_that_is_not_json_is_refused_in_words(tmp_path: Path) -> None:
    """Garbage is the client's fault, and no reason for a traceback."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.post("/v1/tasks", content=b"\xff{{")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_TASK")


@pytest.mark.parametrize("announced", [True, False], ids=["with its length", "in chunks"])
async def test_a_body_that_is_too_large_is_refused_with_the_limit(tmp_path: Path, *, announced: bool) -> None:
    """A node does not take in more than one task may have, whether the client says how much comes or not."""
    async with serving(tmp_path, payload_bytes=1024) as served, connected(served) as client:
        body = b" " * (ENVELOPE_BYTES + 1025)

        async def parts() -> AsyncIterator[bytes]:
            for first in range(0, len(body), 65_536):
                yield body[first : first + 65_536]

        response = await client.post("/v1/tasks", content=body if announced else parts())
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (413, "TOO_LARGE")
        assert error["message"] == "the body is larger than 1,049,600 bytes"


async def test_a_body_without_end_is_cut_off(tmp_path: Path) -> None:
    """A client that goes on writing after twice the limit is answered and left."""
    async with (
        serving(tmp_path, payload_bytes=1024) as served,
        await trio.open_unix_socket(served.address.socket) as stream,
        trio.open_nursery() as nursery,
    ):

        async def write() -> None:
            await stream.send_all(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"10000\r\n" + b" " * 65_536 + b"\r\n")

        nursery.start_soon(write)
        assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 413")


async def test_a_full_node_says_when_to_ask_again(tmp_path: Path) -> None:
    """BUSY has a status, a header and a number that a client can act on."""
    async with serving(tmp_path, open_tasks=1) as served, connected(served) as client:
        await _submit(client)
        response = await client.post("/v1/tasks", json={"prompt": "one more"})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["retry_after_ms"]) == (429, "BUSY", 100)
        assert response.headers["retry-after"] == "1"


async def test_a_batch_accepts_and_refuses_each_task_on_its_own(tmp_path: Path) -> None:
    """One bad task does not spoil the others, and the order is kept."""
    async with serving(tmp_path, open_tasks=2) as served, connected(served) as client:
        tasks = [{"prompt": "a"}, {"prompt": "b", "id": "12345"}, {"prompt": "c"}, {"prompt": "d"}]
        results = (await client.post("/v1/tasks:batch", json={"tasks": tasks})).json()["results"]
        assert [one["task"] and one["task"]["prompt"] for one in results] == ["a", None, "c", None]
        assert [one["error"] and one["error"]["code"] for one in results] == [None, "INVALID_TASK", None, "BUSY"]


async def test_a_list_has_summaries_of_the_tasks_that_match(tmp_path: Path) -> None:
    """Filters narrow the list down, the limit cuts it, and a long prompt does not make it long."""
    async with serving(tmp_path) as served, connected(served) as client:
        for number in range(3):
            await _submit(client, project="docs", prompt=str(number) * 300, session_id=f"s{number}")
        started = str((await _submit(client, project="code"))["id"])
        served.start(started)

        async def listed(query: str) -> list[str]:
            tasks = (await client.get(f"/v1/tasks?{query}")).json()["tasks"]
            return [task["prompt"] for task in tasks]

        assert await listed("project=docs&limit=2") == ["2" * 200 + "…", "1" * 200 + "…"]
        assert await listed("status=executing,complete") == ["hello"]
        assert await listed("session_id=s0") == ["0" * 200 + "…"]
        assert await listed(f"requester={PEER_ID}") == []
        for query in ("limit=0", "limit=many", "status=ready", "colour=red"):
            response = await client.get(f"/v1/tasks?{query}")
            assert (response.status_code, response.json()["error"]["code"]) == (400, "PROTOCOL")


async def test_a_task_that_was_not_claimed_is_cancelled_at_once(tmp_path: Path) -> None:
    """Cancelling what nobody does ends it; the result of a cancelled task is an error."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = (await _submit(client))["id"]
        response = await client.post(f"/v1/tasks/{task_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        gone = await client.get(f"/v1/tasks/{task_id}/result")
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "CANCELLED")


async def test_a_task_that_is_executing_is_asked_to_stop(tmp_path: Path) -> None:
    """The answer does not wait for the executor, and says so."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = str((await _submit(client))["id"])
        served.start(task_id)
        response = await client.post(f"/v1/tasks/{task_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "cancelling")


async def test_the_failure_of_a_task_is_the_error_of_its_result(tmp_path: Path) -> None:
    """The task says why it failed, and whoever asks for its result gets the same as an error."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = str((await _submit(client))["id"])
        served.start(task_id)
        served.fail(task_id)
        task = (await client.get(f"/v1/tasks/{task_id}")).json()
        assert (task["status"], task["failure"]["message"]) == ("failed", "it went wrong")
        failed = await client.get(f"/v1/tasks/{task_id}/result")
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "EXECUTION_FAILED")


@pytest.mark.parametrize("rest", ["", "/result", "/events"])
async def test_an_unknown_task_is_not_found(tmp_path: Path, rest: str) -> None:
    """The error says so in words; an id that is none is the client's fault."""
    async with serving(tmp_path) as served, connected(served) as client:
        unknown = await client.get(f"/v1/tasks/{new_task_id()}{rest}")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "NOT_FOUND")
        malformed = await client.get(f"/v1/tasks/7{rest}")
        assert (malformed.status_code, malformed.json()["error"]["code"]) == (400, "INVALID_TASK")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/tasks", 405),
        ("GET", "/v1/tasks/a/b/c", 404),
        ("POST", "/metrics", 405),
    ],
)
async def test_what_is_not_there_is_an_error_of_the_same_shape(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    """Also paths and methods that nobody described answer with the one shape of errors, and say where to look."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.request(method, path)
        assert response.status_code == status
        assert "/v1/openapi.json" in response.json()["error"]["remedy"]


async def test_a_defect_is_answered_without_its_traceback(tmp_path: Path) -> None:
    """A client learns that the node has a defect, and nothing about its insides."""

    class Broken(Exception):
        pass

    def fail(*_: object) -> None:
        raise Broken("secret")

    async with serving(tmp_path) as served, connected(served) as client:
        served.node.peers = fail  # type: ignore[method-assign, assignment]
        response = await client.get("/v1/peers")
        assert (response.status_code, response.json()["error"]["code"]) == (500, "INTERNAL")
        assert "secret" not in response.text


def test_every_error_code_has_a_status() -> None:
    """A code that is added to the protocol cannot be forgotten here."""
    assert STATUS_OF.keys() == set(ErrorCode)
    assert all(400 <= status <= 599 for status in STATUS_OF.values())


async def test_the_receipt_of_a_task_is_shown_when_it_is_complete(tmp_path: Path) -> None:
    """Its fields are those that `peertask verify` reads; before the end there is none."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = str((await _submit(client))["id"])
        refused = await client.get(f"/v1/tasks/{task_id}/receipt")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "ILLEGAL_TRANSITION")
        served.node.receipts[task_id] = RECEIPT
        answer = await client.get(f"/v1/tasks/{task_id}/receipt")
        assert (answer.status_code, answer.json()) == (200, RECEIPT.to_dict())


async def test_an_explanation_is_told_in_full(tmp_path: Path) -> None:
    """What the node says of a task, and 404 of one that it does not know."""
    task_id = new_task_id()
    async with serving(tmp_path) as served, connected(served) as client:
        assert (await client.get(f"/v1/tasks/{task_id}/explanation")).status_code == 404
        served.node.explanations[task_id] = Explanation(
            task_id=task_id,
            status=TaskStatus.PENDING,
            blocked=False,
            outcome="",
            waits_for=(Reason(Wait.BACKOFF, "a while", 5_000),),
            candidates=(Candidate(peer_id=PEER_ID, verdict=Verdict.FULL, text="1 of 1", busy=1, slots=1, load=3),),
            trials=(Trial(1, PEER_ID, 1_000, 2_000, ErrorCode.BUSY, "full"),),
        )
        assert (await client.get(f"/v1/tasks/{task_id}/explanation")).json() == {
            "task_id": task_id,
            "status": "pending",
            "blocked": False,
            "outcome": "",
            "waits_for": [{"wait": "backoff", "text": "a while", "until": 5_000, "remedy": ""}],
            "candidates": [{"peer_id": PEER_ID, "verdict": "full", "text": "1 of 1", "busy": 1, "slots": 1, "load": 3}],
            "trials": [
                {
                    "attempt": 1,
                    "holder": PEER_ID,
                    "begun_at": 1_000,
                    "ended_at": 2_000,
                    "code": "BUSY",
                    "text": "full",
                }
            ],
        }
        shown = await ControlClient(tmp_path).explain(task_id)
        assert shown == ExplanationView.of(served.node.explanations[task_id])


async def test_a_graph_is_taken_in_as_a_whole_or_refused_as_a_whole(tmp_path: Path) -> None:
    """Its ids come back in their order; a cycle, an unknown id and a field that is wrong leave nothing behind."""
    # covers COORD-3, COORD-18, COORD-20
    first, last = new_task_id(), new_task_id()
    graph = [
        {"id": last, "prompt": "b", "depends_on": [first], "timeout_s": 9, "to": PEER_ADDRESS},
        {"id": first, "prompt": "a", "parent_id": last},
    ]
    async with serving(tmp_path) as served, connected(served) as client:
        for wrong in (
            [{"id": first, "prompt": "a", "depends_on": [last]}, {"id": last, "prompt": "b", "depends_on": [first]}],
            [graph[1], {"id": last, "prompt": "b", "depends_on": [str(new_task_id())]}],
            [{"id": first, "prompt": "a"}, {"id": last, "prompt": "b", "priority": 256}],
            [],
        ):
            response = await client.post("/v1/tasks:graph", json={"tasks": wrong})
            assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_TASK")
        assert served.manager.list_tasks() == []
        for _ in range(2):  # a repeated request is the same graph
            response = await client.post("/v1/tasks:graph", json={"tasks": graph})
            assert (response.status_code, response.json()) == (202, {"task_ids": [last, first]})
        record = served.manager.get_task(last)
        assert (record.deadline, record.target) == (served.clock.now() + 9000, PEER_ID)
        response = await client.post("/v1/tasks:graph", json={"tasks": [*graph, {"prompt": "c"}]})
        assert response.status_code == 409


async def test_a_blocked_task_shows_what_it_waits_for_and_a_parent_its_children(tmp_path: Path) -> None:
    """Computed when somebody asks: blocked is no status."""
    # covers COORD-1, COORD-19
    async with serving(tmp_path) as served, connected(served) as client:
        first = await _submit(client, metadata={"title": "The first"})
        goal = await _submit(client)
        parts = [await _submit(client, depends_on=[first["id"]], parent_id=goal["id"]) for _ in range(2)]
        shown = (await client.get(f"/v1/tasks/{parts[0]['id']}")).json()
        assert (shown["status"], shown["blocked"], shown["parent_id"]) == ("pending", True, goal["id"])
        assert shown["waits_for"] == [{"id": first["id"], "title": "The first", "status": "pending"}]
        listed = (await client.get("/v1/tasks")).json()["tasks"]
        assert [task["blocked"] for task in listed] == [True, True, False, False]
        served.start(str(first["id"]))
        served.complete(str(first["id"]))
        served.start(str(parts[0]["id"]))
        served.complete(str(parts[0]["id"]))
        shown = (await client.get(f"/v1/tasks/{parts[1]['id']}")).json()
        assert (shown["blocked"], shown["waits_for"]) == (False, [])
        children = (await client.get(f"/v1/tasks/{goal['id']}")).json()["children"]
        assert children == {"total": 2, "complete": 1, "failed": 0, "cancelled": 0, "progress": 0.5}
        cancelled = (await client.post(f"/v1/tasks/{goal['id']}/cancel")).json()
        assert (cancelled["status"], cancelled["children"]["cancelled"]) == ("cancelled", 1)
