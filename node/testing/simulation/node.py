"""A node of a simulation: the real parts over a network, a disk, a clock and a process that can fail."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from node.background import open_background
from node.coordination.quotas import Access
from node.dispatcher import Dispatcher
from node.executors.remote import RemoteDelegate
from node.feed import Feed
from node.gateways.p2p import PeerGateway
from node.interfaces import Change, Executor, GraphTask, Lagged
from node.manager import TaskManager
from node.retention import Capacity
from node.stores.memory import MemoryAgents
from node.testing.memory_channel import MemoryChannel
from node.testing.simulation.judge import Judge
from node.testing.simulation.links import Links
from node.testing.simulation.network import SimulatedNetwork
from node.testing.simulation.process import Process, Processes
from node.testing.simulation.request import Request
from node.testing.simulation.store import SimulatedStore
from node.testing.simulation.trace import Trace
from node.testing.simulation.virtual_time import NodeClock
from node.testing.simulation.watched_executor import WatchedExecutor
from node.work import WorkDoor
from node.work.agents import AgentRegistry
from node.work.offers import Offers
from node.work_service import AgentStore
from protocol import Frame, Limits, PeerAdvert, PeerId, Task, TaskId, TaskRecord

# A graceful stop waits so long for what runs; as the setting `drain_s` of a node.
DRAIN_S = 10.0
# Silent agents are forgotten so often.
SWEEP_INTERVAL_S = 10.0

_T = TypeVar("_T")


class NodeIsDown(Exception):
    """The process of a simulated node is not there, or died while somebody waited for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The classes that a simulated node is made of; a test may put one of its own in their place.

    Attributes:
        manager: keeps the tasks.
        dispatcher: brings them to those who do them.
        gateway: answers peers.
        delegate: asks peers.
        store: keeps what is saved.
        work: lets agents work.
    """

    manager: type[TaskManager] = TaskManager
    dispatcher: type[Dispatcher] = Dispatcher
    gateway: type[PeerGateway] = PeerGateway
    delegate: type[RemoteDelegate] = RemoteDelegate
    store: type[SimulatedStore] = SimulatedStore
    work: type[WorkDoor] = WorkDoor


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """How the nodes of a simulation are made.

    Attributes:
        parts: the classes that a node is made of.
        executors: returns the executors of one process.
        limits: what a node takes from one peer.
        capacity: how much a node keeps.
        lease_ms: the length of a lease, in milliseconds.
    """

    parts: Parts
    executors: Callable[[random.Random], Iterable[Executor]]
    limits: Limits
    capacity: Capacity
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all nodes of a simulation share.

    Attributes:
        make: how they are made.
        links: lie between them.
        judge: sees what they do.
        trace: told what happens to them.
        processes: know which task is whose.
        nursery: where they live.
        peer_ids: who they are.
        sends: called with every frame before it leaves.
    """

    make: Make
    links: Links
    judge: Judge
    trace: Trace
    processes: Processes
    nursery: trio.Nursery
    peer_ids: Sequence[PeerId]
    sends: Callable[[MemoryChannel, Frame], None]


class _Incarnation:
    """What a node is between its start and its end: the memory of one process."""

    def __init__(self, node: SimulatedNode, executors: Iterable[Executor]) -> None:
        world, make = node.world, node.world.make
        parts = make.parts
        self.process = Process()
        self.scope = trio.CancelScope()
        self.callers: set[trio.CancelScope] = set()
        self.gone = trio.Event()
        self.feed = Feed()
        self.executors: dict[str, Executor] = {
            executor.kind: WatchedExecutor(executor, node.peer_id, world.judge) for executor in executors
        }
        self.network = SimulatedNetwork(world.links, node.name, node.draws(), limits=make.limits, listener=world.sends)
        self.manager = parts.manager(node.store, node.clock, self.feed, own_id=node.peer_id, capacity=make.capacity)
        self.remote = parts.delegate(self.network, lambda _peer: True)
        self.gateway = parts.gateway(
            self.manager,
            self.feed,
            node.clock,
            own_id=node.peer_id,
            executors=self.executors,
            access=Access(allow={"*": world.peer_ids}, max_in_flight=make.limits.in_flight),
            usage=self.manager.usage,
            saved=self.manager.saved,
            outside_kinds=lambda: self.work.kinds,
        )
        self.registry = AgentRegistry(node.agents, node.clock, make.lease_ms, self.network.announce)
        self.offers = Offers(self.registry.agents)
        self.dispatcher = parts.dispatcher(
            self.manager,
            self.feed,
            node.clock,
            self.network,
            self.executors,
            self.remote,
            node.draws(),
            lambda _peer: True,
            offers=self.offers,
            lease_ms=make.lease_ms,
        )
        self.work = parts.work(
            self.manager,
            self.registry,
            self.offers,
            self.dispatcher,
            node.clock,
            own_id=node.peer_id,
            lease_ms=make.lease_ms,
        )
        self.nursery: trio.Nursery | None = None

    def advert_for(self, peer_id: PeerId) -> PeerAdvert:
        slots = max((executor.slots for executor in self.executors.values()), default=0)
        return PeerAdvert(kinds=self.gateway.kinds_for(peer_id), slots=slots, load=self.dispatcher.local_load)

    async def live(self, node: SimulatedNode) -> None:
        world = node.world
        world.processes.adopt(self.process)
        try:
            with self.scope:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(self.manager.running())
                    await stack.enter_async_context(self.network.running(self.gateway, self.remote, self.advert_for))
                    self.nursery = nursery = await stack.enter_async_context(open_background())
                    await self.registry.load()
                    nursery.start_soon(self.dispatcher.run)
                    nursery.start_soon(self._sweep)
                    for peer in node.keeps:
                        self.network.keep(peer)
                    await trio.sleep_forever()
        finally:
            self.nursery = None
            self.gone.set()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            await self.work.cleanup_expired()


@dataclass(eq=False)
class SimulatedNode:
    """One node of a simulation.

    Attributes:
        world: what it shares with the others.
        name: who it is; its peer id too.
        clock: what it takes for the time.
        store: its disk.
        keeps: the peers that it dials.
        agents: who has registered with it; kept beyond its process, as its tasks are.
    """

    world: Surroundings
    name: str
    clock: NodeClock
    store: SimulatedStore
    rng: random.Random
    keeps: list[PeerId] = field(default_factory=list)
    agents: AgentStore = field(default_factory=MemoryAgents)

    def __post_init__(self) -> None:
        self._now: _Incarnation | None = None
        self._last: _Incarnation | None = None

    def __repr__(self) -> str:
        return f"<SimulatedNode {self.name} {'up' if self.is_up else 'down'}>"

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        return PeerId(self.name)

    def when_awake(self, action: Callable[[], None]) -> None:
        """Do something now, or when the process does not stand still any more."""
        if self._now is None:
            action()
        else:
            self._now.network.when_awake(action)

    def draws(self) -> random.Random:
        """Return a generator for one part of it."""
        return random.Random(self.rng.getrandbits(64))

    # --- its process -------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether its process is there; it may stand still."""
        return self._now is not None

    @property
    def is_paused(self) -> bool:
        """Whether its process is there and stands still."""
        return self._now is not None and self._now.process.frozen

    @property
    def answers(self) -> bool:
        """Whether its process is there and runs, so that it can be asked something."""
        return self.is_up and not self.is_paused

    def start(self) -> None:
        """Start its process, on what its disk holds; no effect when it is up."""
        if self._now is not None:
            return
        if self._last is not None and not self._last.gone.is_set():
            raise RuntimeError(f"the last process of {self.name} is not gone yet")
        self.world.trace.note(self.name, "starts")
        executors = self.world.make.executors(self.draws())
        self._now = _Incarnation(self, executors)
        self.world.nursery.start_soon(self._now.live, self)

    def crash(self) -> None:
        """End its process as ``kill -9`` does: what is not on the disk is lost; no effect when it is down."""
        now = self._now
        if now is None:
            return
        self.world.trace.note(self.name, "crashes")
        self.store.crash()
        now.network.die()
        self.world.judge.died(self.peer_id)
        self._end(now)

    def _end(self, now: _Incarnation) -> None:
        self._now, self._last = None, now
        for caller in list(now.callers):
            caller.cancel()
        now.scope.cancel()
        now.process.thaw()

    async def restart(self, after_s: float = 0.0) -> None:
        """Start it again when it is down, so many seconds later."""
        await trio.sleep(after_s)
        if self._last is not None:
            await self._last.gone.wait()
        self.start()

    async def stop(self) -> None:
        """End its process as SIGTERM does: it takes no new tasks, ends what runs within `DRAIN_S`, and says Bye."""
        now = self._now
        if now is None:
            return
        self.resume()
        self.world.trace.note(self.name, "stops")
        now.manager.draining = True
        with trio.move_on_after(DRAIN_S):
            await now.dispatcher.drain()
            await now.manager.settle()
        if self._now is now:
            self._end(now)
        await now.gone.wait()

    def pause(self) -> None:
        """Let its process stand still as SIGSTOP does; no effect when it is down."""
        if self._now is not None and not self._now.process.frozen:
            self.world.trace.note(self.name, "stands still")
            self._now.process.freeze()
            self._now.network.fall_asleep()
            self.world.links.stand_still(self.peer_id)

    def resume(self) -> None:
        """Let its process go on as SIGCONT does; no effect when it does not stand still."""
        if self._now is not None and self._now.process.frozen:
            self.world.trace.note(self.name, "goes on")
            self._now.process.thaw()
            self._now.network.wake_up()

    def fill_disk(self) -> None:
        """Let it save nothing more; see `SimulatedStore.fail`."""
        self.world.trace.note(self.name, "has a full disk")
        self.store.fail()

    def free_disk(self) -> None:
        """Let it save again; no effect when it can."""
        if self.store.failure is not None:
            self.world.trace.note(self.name, "has room on its disk")
            self.store.mend()

    # --- what one asks of it -----------------------------------------------------------------------------------------

    @property
    def running(self) -> _Incarnation:
        """The parts of its process.

        Raises:
            NodeIsDown: there is none, or it stands still.
        """
        if self._now is None or self._now.process.frozen:
            raise NodeIsDown(f"{self.name} does not answer")
        return self._now

    @property
    def manager(self) -> TaskManager:
        """The map of its tasks; raises `NodeIsDown`."""
        return self.running.manager

    def submit(
        self,
        prompt: str = "a prompt",
        *,
        to: SimulatedNode | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> TaskId:
        """Have a task done, as `Node.enqueue`, without waiting until it is saved; return its id.

        Args:
            prompt: what to do.
            to: who is to do it; None lets the node choose.
            timeout: how long it may take in all, in seconds; None for as long as it takes.
            fields: any other field of `Task` by name.

        Raises:
            NodeIsDown: there is nobody to ask.
            TaskRejected: code BUSY or DRAINING.
            PeertaskError: code STORE_FAILED.
            InvalidTask: names the field that is wrong.
        """
        return self.ask(Task.new(prompt, self.peer_id, timestamp=self.clock.now(), **fields), to=to, timeout=timeout)

    def ask(
        self,
        task: Task,
        *,
        to: SimulatedNode | None = None,
        timeout: float | None = None,
    ) -> TaskId:
        """Have a task done that was made already, as `submit`; asking again changes nothing."""
        deadline = None if timeout is None else self.clock.now() + round(timeout * 1000)
        target = None if to is None else to.peer_id
        self.manager.submit(task, requester=self.peer_id, target=target, deadline=deadline, fresh=True)
        self.world.trace.note(self.name, "is asked for", task.id, f"by {to.name if to else 'anybody'}")
        return task.id

    def ask_graph(self, graph: Sequence[GraphTask], *, timeout: float | None = None) -> None:
        """Have tasks done that depend on each other, as `Node.submit_graph`; asking again changes nothing.

        Args:
            graph: the tasks; their deadlines are set here.
            timeout: how long they may take in all, in seconds; None for as long as they take.

        Raises:
            NodeIsDown: there is nobody to ask.
            PeertaskError: as `submit`, and CONFLICT when some of them are there and others are not.
        """
        deadline = None if timeout is None else self.clock.now() + round(timeout * 1000)
        placed = [one._replace(deadline=deadline) for one in graph]
        self.manager.submit_graph(placed, requester=self.peer_id)
        for one in placed:
            self.world.trace.note(self.name, "is asked for", one.task.id, f"by {one.target or 'anybody'}, in a graph")

    def cancel(self, task_id: TaskId) -> TaskRecord:
        """Ask for a task to be stopped; raises `NodeIsDown` or `TaskNotFound`."""
        self.world.trace.note(self.name, "is asked to cancel", task_id)
        return self.manager.cancel_task(task_id)

    async def wait_saved(self, task_id: TaskId) -> None:
        """Return when a task is saved; raises `NodeIsDown` when the process ends before."""
        now = self.running
        with trio.CancelScope() as scope:
            now.callers.add(scope)
            try:
                await now.manager.wait_saved(task_id)
                return
            finally:
                now.callers.discard(scope)
        raise NodeIsDown(f"{self.name} ended while somebody waited")

    async def call(self, ask: Callable[[WorkDoor], Awaitable[_T]]) -> _T:
        """Ask something of its work door, in its process; cancelling takes the request back, as who hangs up does.

        Raises:
            NodeIsDown: there is nobody to ask, or the process ends before it answers.
            PeertaskError: as the door does.
        """
        now = self.running
        return await self._request(now, lambda: ask(now.work))

    async def watch(self, task_id: TaskId, after_seq: int, take: Callable[[Change | Lagged], None]) -> None:
        """Watch a task as `TaskService.watch`, until its last fact; cancelling hangs up.

        Args:
            task_id: which.
            after_seq: the last fact that the watcher knows.
            take: called with whatever comes.

        Raises:
            NodeIsDown: there is nobody to ask, or the process ends before the task.
            TaskNotFound: the node does not know it.
        """
        now = self.running

        async def read() -> None:
            async with now.manager.watch(task_id, after_seq) as changes:
                async for change in changes:
                    take(change)

        await self._request(now, read)

    async def _request(self, now: _Incarnation, ask: Callable[[], Awaitable[_T]]) -> _T:
        if now.nursery is None:
            raise NodeIsDown(f"{self.name} has not started yet")
        request = Request(ask)
        with trio.CancelScope() as scope:
            now.callers.add(scope)
            now.nursery.start_soon(request.run)
            try:
                await request.answered.wait()
                return request.answer
            finally:
                now.callers.discard(scope)
                request.scope.cancel()
        raise NodeIsDown(f"{self.name} ended before it answered")

    async def wait(self, task_id: TaskId) -> TaskRecord:
        """Return how a task ended, however often the process ends meanwhile."""
        while True:
            record = self.world.judge.saved(self.peer_id, task_id)
            if record is not None and record.terminal:
                return record
            await self.world.judge.news()

    def records(self) -> Mapping[TaskId, TaskRecord]:
        """Return what its disk holds, whether it is up or not."""
        return self.world.judge.records_of(self.peer_id)
