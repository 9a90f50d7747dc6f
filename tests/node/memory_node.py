"""A node put together from the real parts over a network, a store and a clock of the test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from node.background import open_background
from node.config import LEASE_MS
from node.coordination.quotas import Access
from node.coordination.receipts import Notary
from node.dispatcher import Dispatcher
from node.executors.echo import EchoExecutor
from node.executors.remote import RemoteDelegate
from node.feed import Feed
from node.gateways.offering import Offering
from node.gateways.p2p import PeerGateway
from node.interfaces import Clock, Executor, Store
from node.manager import TaskManager
from node.retention import Capacity
from node.stores.memory import MemoryAgents, MemoryStore
from node.telemetry import default_to_stdlib_logging
from node.testing import MemoryHub, MemoryNetwork, TrioClock
from node.work import WorkDoor
from node.work.agents import AgentRegistry
from node.work.offers import Offers
from node.work_service import AgentStore
from protocol import DEFAULT_LIMITS, Limits, PeerAdvert, PeerId, Task, TaskId, TaskRecord

# Bounds every wait on trio's clock, which the tests let jump.
TEST_S = 3_600.0


class MemoryNode:
    """One node of a hub; `running` runs it, once.

    Args:
        hub: where its network is.
        name: its peer id.
        executors: what it can do besides ``echo``.
        store: what it keeps its tasks in.
        limits: what it takes from a peer.
        capacity: how much it keeps.
        allow: who may use what; may be changed while it runs.
        former: the node that this one is after a restart of its process: it goes on with the same network.
        lease_ms: the length of a lease.
        clock: what it reads; trio's when None.
        note: told of agents that come and go.

    Attributes:
        trusts: tells whether a peer may be given tasks that did not name it; may be changed while it runs.
        offering: what it offers the node that it works for, once `work_for` has been called.
    """

    def __init__(  # noqa: PLR0913 - it is put together from many parts
        self,
        hub: MemoryHub,
        name: str,
        executors: Iterable[Executor] = (),
        *,
        store: Store | None = None,
        limits: Limits = DEFAULT_LIMITS,
        capacity: Capacity | None = None,
        allow: dict[str, tuple[PeerId, ...]] | None = None,
        former: MemoryNode | None = None,
        lease_ms: int = LEASE_MS,
        clock: Clock | None = None,
        note: Callable[..., None] = lambda _fact, **_fields: None,
    ) -> None:
        self.network: MemoryNetwork = MemoryNetwork(hub, name, limits=limits) if former is None else former.network
        self.peer_id = self.network.peer_id
        self.store = store or MemoryStore()
        self.clock = clock or TrioClock()
        self.feed = Feed()
        self.executors = {executor.kind: executor for executor in (EchoExecutor(), *executors)}
        self.allow = allow if allow is not None else {}
        self.manager = TaskManager(self.store, self.clock, self.feed, own_id=self.peer_id, capacity=capacity)
        self._notary = self.make_notary()
        self.remote = RemoteDelegate(self.network, self._trusts, self._notary)
        self.trusts: Callable[[PeerId], bool] = lambda _: True
        self.offering: Offering | None = None
        self.gateway = self._make_gateway(None)
        agents = self.store if isinstance(self.store, AgentStore) else MemoryAgents()
        self.registry = AgentRegistry(agents, self.clock, lease_ms)
        self.offers = Offers(self.registry.agents)
        self.dispatcher = Dispatcher(
            self.manager,
            self.feed,
            self.clock,
            self.network,
            self.executors,
            self.remote,
            random.Random(7),
            self._trusts,
            offers=self.offers,
            lease_ms=lease_ms,
        )
        self.work = WorkDoor(
            self.manager,
            self.registry,
            self.offers,
            self.dispatcher,
            self.clock,
            own_id=self.peer_id,
            lease_ms=lease_ms,
            note=note,
        )

    def work_for(self, owner: PeerId, slots: int) -> None:
        """Ask a node for so many tasks at once, and take those of nobody else; to be called before it runs."""
        self.offering = Offering(self.network, owner, slots, self.advert_for)
        self.gateway = self._make_gateway(owner)

    def _make_gateway(self, works_for: PeerId | None) -> PeerGateway:
        return PeerGateway(
            self.manager,
            self.feed,
            self.clock,
            own_id=self.peer_id,
            executors=self.executors,
            access=Access(allow=self.allow, max_in_flight=self.network.limits.in_flight, works_for=works_for),
            usage=self.manager.usage,
            saved=self.manager.saved,
            notary=self._notary,
            offering=self.offering,
            outside_kinds=lambda: self.work.kinds,
            outside_personas=lambda kind: self.work.personas(kind),  # noqa: PLW0108 - the door is made later
        )

    def _trusts(self, peer_id: PeerId) -> bool:
        return self.trusts(peer_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MemoryNode]:
        """Run for the length of the context."""
        default_to_stdlib_logging()  # as `open_node` does; structlog's own way takes seconds to print an exception
        async with (
            self.manager.running(),
            self.network.running(self.gateway, self.remote, self.advert_for),
            open_background() as nursery,
        ):
            await self.registry.load()
            nursery.start_soon(self.dispatcher.run)
            yield self

    def advert_for(self, peer_id: PeerId) -> PeerAdvert:
        """Return what it tells a peer about itself."""
        slots = sum(executor.slots for executor in self.executors.values())
        return PeerAdvert(kinds=self.gateway.kinds_for(peer_id), slots=slots, load=self.dispatcher.local_load)

    def make_notary(self) -> Notary | None:
        """Return what signs and checks receipts; this node knows none."""
        return None

    def submit(
        self, prompt: str = "a prompt", *, to: MemoryNode | None = None, timeout_s: float | None = None, **fields: Any
    ) -> TaskId:
        """Take a task of this node in; another node, this one, or (to=None) any is to do it."""
        task = Task.new(prompt, self.peer_id, timestamp=self.clock.now(), **{"kind": "echo", **fields})
        deadline = None if timeout_s is None else self.clock.now() + round(timeout_s * 1000)
        target = None if to is None else to.peer_id
        return self.manager.submit(task, requester=self.peer_id, target=target, deadline=deadline).id

    async def wait(self, task_id: TaskId) -> TaskRecord:
        """Return how a task has ended."""
        with trio.fail_after(TEST_S):
            return await self.manager.wait(task_id)

    async def run(self, prompt: str = "a prompt", **options: Any) -> TaskRecord:
        """Submit a task and return how it ended."""
        return await self.wait(self.submit(prompt, **options))

    async def connect(self, other: MemoryNode) -> None:
        """Open a session, and keep it up."""
        await self.network.connect(other.network.addresses[0])

    def tasks_of(self, requester: MemoryNode) -> list[TaskRecord]:
        """Return what this node knows of another one's tasks."""
        return [record for record in self.manager.list_tasks() if record.requester == requester.peer_id]
