"""A served gateway over a real manager and a scripted rest of the node, and clients that check every answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from node.config import LEASE_MS
from node.coordination.explain import Explanation
from node.coordination.roster import Worker
from node.feed import Feed
from node.gateways.http.events import KEEP_ALIVE_S
from node.gateways.http.folder import ControlAddress
from node.gateways.http.gateway import Gateway
from node.gateways.http.node_control import Health, NodeControl, NodeInfo
from node.gateways.http.openapi import openapi_document
from node.gateways.http.server import serve
from node.interfaces import Clock, PeerInfo, RelayInfo, Store
from node.manager import TaskManager
from node.retention import Capacity
from node.stores.memory import MemoryAgents, MemoryStore
from node.testing.clocks import FakeClock
from node.work import WorkDoor
from node.work.agents import AgentRegistry
from node.work.offers import Offers
from node.work_service import Assigner
from protocol import (
    MAX_PAYLOAD_BYTES,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    IllegalTransition,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Progressed,
    Receipt,
    Started,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskResult,
)

OWN_ID = PeerId("12D3KooWOwn")
PEER_ID = PeerId("12D3KooWPeer")
PEER_ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER_ID}"
# Bounds every wait of a test; nothing here takes a tenth of it.
TEST_S = 20.0


class ScriptedNode(NodeControl):
    """A node whose peers exist in name only; `PEER_ADDRESS` answers, every other address does not."""

    def __init__(self) -> None:
        self.known: dict[PeerId, PeerInfo] = {}
        self.status = Health("ok")
        self.receipts: dict[str, Receipt] = {}
        self.explanations: dict[str, Explanation] = {}

    def info(self) -> NodeInfo:
        """Return fixed facts."""
        advert = PeerAdvert(kinds=("echo", "mock"), slots=4, load=1)
        return NodeInfo(
            peer_id=OWN_ID,
            addresses=(f"/ip4/127.0.0.1/tcp/4000/p2p/{OWN_ID}",),
            agent="peertask/test",
            advert=advert,
            started_at=1_800_000_000_000,
            relays=(RelayInfo(PEER_ID, reserved=False, last_error="it is full"),),
        )

    def health(self) -> Health:
        """Return `status`."""
        return self.status

    def metrics(self) -> str:
        """Return one metric."""
        return "# TYPE peertask_open_tasks gauge\npeertask_open_tasks 3.0\n"

    async def explain(self, task_id: str) -> Explanation:
        """Return what `explanations` has."""
        if task_id not in self.explanations:
            raise TaskNotFound(f"there is no task {task_id}")
        return self.explanations[task_id]

    def peers(self) -> Sequence[PeerInfo]:
        """Return those that were connected."""
        return tuple(self.known.values())

    async def connect(self, address: str) -> PeerId:
        """Know the peer from now on."""
        if address != PEER_ADDRESS:
            raise PeertaskError(
                f"no answer from {address}", code=ErrorCode.PEER_UNREACHABLE, remedy="Check that the peer runs"
            )
        self.known[PEER_ID] = PeerInfo(PEER_ID, connected=True, addresses=(address,), agent="peertask/other")
        return PEER_ID

    async def receipt(self, task_id: str) -> Receipt:
        """Return `receipts` of the task, or say that there is none."""
        if task_id not in self.receipts:
            raise IllegalTransition(f"task {task_id} is pending")
        return self.receipts[task_id]

    async def disconnect(self, peer_id: PeerId) -> None:
        """Forget the peer."""
        self.known.pop(peer_id, None)


class IdleAssigner(Assigner):
    """Has no tasks for anybody."""

    def plan_now(self) -> None:
        """Give nothing."""

    def claim_for(self, worker: Worker, task_id: TaskId) -> bool:  # noqa: ARG002 - whoever asks for whatever
        """Give nothing."""
        return False

    def waiting_tasks(self) -> list[TaskRecord]:
        """Return none."""
        return []


def idle_work(manager: TaskManager, clock: Clock) -> WorkDoor:
    """Return a door through which nobody gets a task."""
    agents = AgentRegistry(MemoryAgents(), clock, LEASE_MS)
    return WorkDoor(manager, agents, Offers(), IdleAssigner(), clock, own_id=OWN_ID, lease_ms=LEASE_MS)


@dataclass(frozen=True)
class Served:
    """A gateway that answers, and the parts behind it."""

    folder: Path
    address: ControlAddress
    manager: TaskManager
    clock: FakeClock
    node: ScriptedNode
    stop: trio.Event

    def start(self, task_id: str, attempt: int = 1) -> None:
        """Claim a task and begin to execute it."""
        now = self.clock.now()
        self.manager.apply(
            Claimed(TaskId(task_id), now, attempt, OWN_ID, now + 30_000), Started(TaskId(task_id), now, attempt)
        )

    def report(self, task_id: str, fraction: float, message: str = "") -> None:
        """Report progress of a task that was started."""
        now = self.clock.now()
        self.manager.apply(Progressed(TaskId(task_id), now, 1, fraction, message, now + 30_000))

    def complete(self, task_id: str, text: str = "done") -> None:
        """End a task that was started with a result."""
        self.manager.apply(Completed(TaskId(task_id), self.clock.now(), 1, TaskResult(TaskId(task_id), text, 12)))

    def fail(self, task_id: str, code: ErrorCode = ErrorCode.EXECUTION_FAILED) -> None:
        """End a task that was started with a failure."""
        self.manager.apply(Failed(TaskId(task_id), self.clock.now(), 1, Failure.of(code, "it went wrong")))


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    bind: str | None = None,
    open_tasks: int = 100,
    payload_bytes: int = MAX_PAYLOAD_BYTES,
    keep_alive_s: float = KEEP_ALIVE_S,
    store: Store | None = None,
) -> AsyncIterator[Served]:
    """Serve a gateway for the length of the context, then end it gracefully."""
    clock, node, stop = FakeClock(), ScriptedNode(), trio.Event()
    capacity = Capacity(open_tasks=open_tasks)
    manager = TaskManager(store or MemoryStore(), clock, Feed(), own_id=OWN_ID, capacity=capacity)
    work = idle_work(manager, clock)
    with trio.fail_after(TEST_S):
        async with manager.running(), trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[ControlAddress]) -> None:
                gateway = Gateway(manager, node, clock, work, payload_bytes, keep_alive_s)
                await serve(gateway, folder, stop=stop, bind=bind, task_status=task_status)

            address = await nursery.start(run)
            yield Served(folder, address, manager, clock, node, stop)
            stop.set()


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    """Be a client on the Unix socket that checks every answer against the OpenAPI description."""
    transport = httpx.AsyncHTTPTransport(uds=served.address.socket)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", event_hooks={"response": [check_answer]}
    ) as client:
        yield client


async def check_answer(response: httpx.Response) -> None:
    """Assert that an answer is one that the description allows."""
    operation = described(response.request.method, response.request.url.path)
    if operation is None:
        return
    allowed = operation["responses"]
    assert str(response.status_code) in allowed or response.is_error, (response.request, response.status_code)
    content = allowed.get(str(response.status_code), allowed["default"]).get("content", {})
    if "application/json" in content:
        await response.aread()
        assert response.headers["content-type"] == "application/json"
        check_schema(response.json(), content["application/json"]["schema"])
    elif content:
        assert response.headers["content-type"].startswith(next(iter(content)).partition(";")[0])


def described(method: str, path: str) -> dict[str, Any] | None:
    """Return the description of the operation that a request is for; None when there is none."""
    for pattern, operations in openapi_document()["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    return None


def check_schema(value: object, schema: dict[str, Any]) -> None:
    """Assert that a value fits a schema of the description."""
    Draft202012Validator({**schema, "components": openapi_document()["components"]}).validate(value)
