"""Outside workers over HTTP: a real socket, a real node, and answers that fit the description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.gateways.http.client import ControlClient, Patience
from node.gateways.http.exchange import open_exchange
from node.gateways.http.folder import ControlAddress
from node.gateways.http.gateway import Gateway
from node.gateways.http.server import serve
from node.gateways.http.work_client import WorkClient
from node.interfaces import Store
from node.testing import HeldStore, open_memory_hub
from protocol import Artifact, ErrorCode, PeertaskError, TaskId, TaskStatus, new_task_id
from tests.node.gateways.http_node import OWN_ID, TEST_S, ScriptedNode, check_answer
from tests.node.memory_node import MemoryNode


@dataclass(frozen=True)
class Workplace:
    """A node that serves outside workers."""

    folder: Path
    node: MemoryNode
    address: ControlAddress
    stop: trio.Event

    async def submit(self, prompt: str = "a prompt", kind: str = "draw") -> TaskId:
        """Have a task taken in, as a person would."""
        return (await ControlClient(self.folder).submit(prompt, kind=kind)).id

    async def join(self, agent_id: str = "agent-1") -> WorkClient:
        """Register as an agent."""
        return await WorkClient.register(self.folder, ("draw",), agent_id=agent_id)


@asynccontextmanager
async def workplace(folder: Path, store: Store | None = None) -> AsyncIterator[Workplace]:
    """Run a node and serve it, for the length of the context."""
    stop = trio.Event()
    with trio.fail_after(TEST_S):
        async with open_memory_hub() as hub:
            node = MemoryNode(hub, OWN_ID, store=store)
            async with node.running(), trio.open_nursery() as nursery:

                async def run(*, task_status: trio.TaskStatus[ControlAddress]) -> None:
                    gateway = Gateway(node.manager, ScriptedNode(), node.clock, node.work)
                    await serve(gateway, folder, stop=stop, task_status=task_status)

                address = await nursery.start(run)
                yield Workplace(folder, node, address, stop)
                stop.set()


async def test_a_task_is_done_by_a_worker_of_another_program(tmp_path: Path) -> None:
    """Register, claim, start, report, deliver, leave: each answer says how the task stands."""
    # covers COORD-4, COORD-21, COORD-30, COORD-31
    async with workplace(tmp_path) as at:
        agent = await at.join()
        assert await agent.claim() is None
        task_id = await at.submit("the coast")
        claim = await agent.claim(wait_s=60)
        assert claim is not None
        assert (claim.task.id, claim.task.prompt, claim.attempt, claim.lease_ms) == (task_id, "the coast", 1, 30_000)
        assert (await agent.start(claim)).status is TaskStatus.EXECUTING
        assert (await agent.progress(claim, 0.5, "half")).progress == 0.5
        (shown,) = await agent.agents()
        assert (shown.id, shown.kinds, [held.task_id for held in shown.tasks]) == ("agent-1", ("draw",), [task_id])
        artifact = Artifact(name="coast.svg", content="<svg/>", media_type="image/svg+xml")
        done = await agent.complete(claim, "drawn", (artifact,))
        assert done.result is not None
        assert (done.status, done.result.result, done.result.artifacts) == (TaskStatus.COMPLETE, "drawn", (artifact,))
        assert (await agent.complete(claim, "drawn", (artifact,))).seq == done.seq
        assert (await agent.heartbeat()).tasks == ()
        await agent.deregister()
        assert await agent.agents() == ()


async def test_a_worker_fails_and_gives_back(tmp_path: Path) -> None:
    """A failure has the worker's words; what is given back is claimed by number of attempt two."""
    async with workplace(tmp_path) as at:
        agent = await at.join()
        failing = await at.submit()
        claim = await agent.claim_task(failing)
        failed = await agent.fail(claim, "no paper", code=ErrorCode.INVALID_TASK)
        assert failed.failure is not None
        assert (failed.status, failed.failure.code, failed.failure.message) == ("failed", "INVALID_TASK", "no paper")
        await at.submit()
        taken = await agent.claim(wait_s=10)
        assert taken is not None
        back = await agent.release(taken, "lunch")
        assert (back.status, back.failures, back.lost_leases) == (TaskStatus.PENDING, 0, 0)
        again = await agent.claim(wait_s=10)
        assert again is not None
        assert (again.attempt, again.task.id) == (2, taken.task.id)
        await ControlClient(tmp_path).cancel(again.task.id)
        assert [held.stop for held in (await agent.heartbeat()).tasks] == [True]
        assert (await agent.release(again)).status is TaskStatus.CANCELLED


async def test_a_kind_that_no_executor_has_waits_for_a_worker(tmp_path: Path) -> None:
    """Who claims first gets the higher priority; who waits gets what comes."""
    async with workplace(tmp_path) as at, trio.open_nursery() as nursery:
        agent = await at.join()
        claims = []

        async def wait() -> None:
            claims.append(await agent.claim(wait_s=60))

        nursery.start_soon(wait)
        while not at.node.offers.is_waiting("agent-1"):
            await wait_all_tasks_blocked(0.001)
        task_id = await at.submit()
        while not claims:
            await wait_all_tasks_blocked(0.001)
        assert [claim.task.id for claim in claims if claim] == [task_id]


async def test_nothing_is_given_to_a_client_that_has_gone(tmp_path: Path) -> None:
    """A worker that was killed while it waited for a task costs no lease: the next one gets the task."""
    # covers COORD-6
    async with workplace(tmp_path) as at:
        agent = await at.join()
        with trio.move_on_after(TEST_S) as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(agent.claim, 60)
                while not at.node.offers.is_waiting("agent-1"):
                    await wait_all_tasks_blocked(0.001)
                waiting.cancel()
        while at.node.offers.is_waiting("agent-1"):
            await wait_all_tasks_blocked(0.001)
        task_id = await at.submit()
        assert at.node.manager.get_task(task_id).status is TaskStatus.PENDING
        assert (await agent.claim_task(task_id)).attempt == 1


async def test_a_claim_ends_when_the_node_stops(tmp_path: Path) -> None:
    """Nobody waits for a node that is going away."""
    async with workplace(tmp_path) as at, trio.open_nursery() as nursery:
        agent = await at.join()
        answers = []

        async def wait() -> None:
            answers.append(await agent.claim(wait_s=60))

        nursery.start_soon(wait)
        while not at.node.offers.is_waiting("agent-1"):
            await wait_all_tasks_blocked(0.001)
        at.stop.set()
        while not answers:
            await wait_all_tasks_blocked(0.001)
        assert answers == [None]


async def test_a_node_that_drains_gives_no_more_work(tmp_path: Path) -> None:
    """It says so, for a claim of any task and of a given one."""
    async with workplace(tmp_path) as at:
        agent = await at.join()
        task_id = await at.submit()
        at.node.manager.draining = True
        for asked in (agent.claim(), agent.claim_task(task_id)):
            with pytest.raises(PeertaskError) as refused:
                await asked
            assert refused.value.code is ErrorCode.DRAINING


async def test_what_cannot_be_saved_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk does not answer, a result is taken in and the worker is told to repeat it; then it is complete."""
    monkeypatch.setattr("node.gateways.waiting.SAVE_PATIENCE_S", 0.05)
    store = HeldStore()
    async with workplace(tmp_path, store) as at:
        agent = await at.join()
        task_id = await at.submit()
        claim = await agent.claim_task(task_id)
        store.hold()
        with pytest.raises(PeertaskError, match="not saved yet") as refused:
            await agent.complete(claim, "drawn")
        assert refused.value.code is ErrorCode.STORE_FAILED
        assert at.node.manager.get_task(task_id).status is not TaskStatus.COMPLETE
        store.release()
        assert (await agent.complete(claim, "drawn")).status is TaskStatus.COMPLETE


async def test_a_claim_that_cannot_be_saved_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was told of it, so nobody works on it."""
    monkeypatch.setattr("node.gateways.http.work_handlers.SAVE_PATIENCE_S", 0.05)
    store = HeldStore()
    async with workplace(tmp_path, store) as at:
        agent = await at.join()
        task_id = await at.submit()
        store.hold()
        with pytest.raises(PeertaskError, match="not saved yet"):
            await agent.claim_task(task_id)
        store.release()
        record = at.node.manager.get_task(task_id)
        assert (record.status, record.lost_leases) == (TaskStatus.PENDING, 0)


_CLAIMED = "/v1/agents/agent-1/tasks/{task}"
BAD = {
    "no kinds": ("/v1/agents", {"kinds": []}, 400, "PROTOCOL", "kinds"),
    "a thousand kinds": ("/v1/agents", {"kinds": ["k"] * 1_000}, 400, "PROTOCOL", "kinds"),
    "a kind that is no name": ("/v1/agents", {"kinds": ["a b"]}, 400, "PROTOCOL", "kinds"),
    "an id that is no name": ("/v1/agents", {"kinds": ["k"], "id": "../../x"}, 400, "PROTOCOL", "id"),
    "the id of the node": ("/v1/agents", {"kinds": ["k"], "id": OWN_ID}, 409, "CONFLICT", "this node itself"),
    "an unknown field": ("/v1/agents", {"kinds": ["k"], "slots": 9}, 400, "PROTOCOL", "unknown field slots"),
    "an agent that nobody knows": ("/v1/agents/nobody/heartbeat", None, 404, "NOT_FOUND", "has registered here"),
    "a claim by nobody": ("/v1/agents/nobody/claim", None, 404, "NOT_FOUND", "has registered here"),
    "a wait for ever": ("/v1/agents/agent-1/claim?wait=1e9", None, 400, "PROTOCOL", "wait"),
    "a claim of no task": ("/v1/agents/agent-1/claim?task=x", None, 400, "INVALID_TASK", "not a UUID"),
    "an unknown task": (f"/v1/agents/agent-1/claim?task={new_task_id()}", None, 404, "NOT_FOUND", "has no task"),
    "a kind that it did not name": ("/v1/agents/agent-2/claim?task={task}", None, 403, "FORBIDDEN", "may not claim"),
    "no attempt": (f"{_CLAIMED}/start", {}, 400, "PROTOCOL", "attempt"),
    "attempt zero": (f"{_CLAIMED}/start", {"attempt": 0}, 400, "PROTOCOL", "attempt"),
    "an attempt to come": (f"{_CLAIMED}/start", {"attempt": 7}, 409, "ILLEGAL_TRANSITION", "never claimed"),
    "another agent's task": (
        "/v1/agents/agent-2/tasks/{task}/complete",
        {"attempt": 1, "result": "mine"},
        403,
        "FORBIDDEN",
        "belongs to agent-1",
    ),
    "more than all": (f"{_CLAIMED}/progress", {"attempt": 1, "fraction": 1.5}, 400, "PROTOCOL", "fraction"),
    "less than nothing": (f"{_CLAIMED}/progress", {"attempt": 1, "fraction": -1}, 400, "PROTOCOL", "fraction"),
    "no result": (f"{_CLAIMED}/complete", {"attempt": 1}, 400, "PROTOCOL", "result"),
    "a result that is no text": (f"{_CLAIMED}/complete", {"attempt": 1, "result": 5}, 400, "PROTOCOL", "result"),
    "a code that it cannot know": (
        f"{_CLAIMED}/fail",
        {"attempt": 1, "message": "x", "code": "LEASE_LOST"},
        400,
        "PROTOCOL",
        "a worker knows only EXECUTION_FAILED",
    ),
    "an endless message": (f"{_CLAIMED}/fail", {"attempt": 1, "message": "x" * 9_999}, 400, "PROTOCOL", "message"),
}


async def test_bad_requests_are_refused_in_words_and_change_nothing(tmp_path: Path) -> None:
    """Each names what is wrong; the claim that they are about goes on."""
    async with workplace(tmp_path) as at:
        agent = await at.join()
        await WorkClient.register(tmp_path, ("other",), agent_id="agent-2")
        task_id = await at.submit()
        claim = await agent.claim_task(task_id)
        await agent.start(claim)
        before = at.node.manager.latest(task_id)
        transport = httpx.AsyncHTTPTransport(uds=at.address.socket)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", event_hooks={"response": [check_answer]}
        ) as client:
            for what, (path, body, status, code, words) in BAD.items():
                answer = await client.post(path.replace("{task}", task_id), json=body)
                assert answer.status_code == status, (what, answer.text)
                error = answer.json()["error"]
                assert (error["code"], words in error["message"]) == (code, True), (what, error)
        assert at.node.manager.latest(task_id) == before
        assert (await agent.complete(claim, "drawn")).status is TaskStatus.COMPLETE


async def test_a_client_is_told_when_no_node_answers(tmp_path: Path) -> None:
    """As for every other request."""
    with pytest.raises(PeertaskError) as refused:
        await WorkClient.register(tmp_path, ("draw",), patience=Patience(answer_s=1))
    assert refused.value.code is ErrorCode.NODE_UNAVAILABLE


async def test_the_end_of_a_client_is_seen_although_it_sent_more(tmp_path: Path) -> None:
    """A body where none is needed does not hide that the client has gone."""
    async with workplace(tmp_path) as at:
        await at.join()
        with trio.move_on_after(TEST_S) as waiting:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    target = "/v1/agents/agent-1/claim?wait=60"
                    async with open_exchange(at.address.socket, "POST", target, body=b"{}"):
                        pass

                nursery.start_soon(ask)
                while not at.node.offers.is_waiting("agent-1"):
                    await wait_all_tasks_blocked(0.001)
                waiting.cancel()
        while at.node.offers.is_waiting("agent-1"):
            await wait_all_tasks_blocked(0.001)
