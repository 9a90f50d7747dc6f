"""The node, put together: the one module that knows every part, and decides nothing about tasks."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

import structlog
import trio

from node.audit.opening import audit_of
from node.background import open_background
from node.clock import SystemClock
from node.config import NodeConfig
from node.coordination.dependencies import for_worker, with_inputs
from node.coordination.explain import Explanation
from node.coordination.naming import resolve_names
from node.coordination.quotas import Access
from node.coordination.receipts import Notary
from node.coordination_service import Coordination, TaskNumbers
from node.coordinator import TaskCoordinator
from node.dispatcher import Dispatcher
from node.executors.callable import CallableExecutor
from node.executors.echo import EchoExecutor
from node.executors.mock import MockExecutor
from node.executors.receipts import request_receipt
from node.executors.remote import RemoteDelegate
from node.feed import Feed
from node.gateways.http.gateway import Gateway
from node.gateways.http.node_control import Health, NodeControl, NodeInfo
from node.gateways.offering import Offering
from node.gateways.p2p import PeerGateway
from node.interfaces import Change, Discovery, Executor, GraphTask, Lagged, PeerInfo, PeerSource, Store, TaskFilter
from node.manager import TaskManager, outcome
from node.mapping import MappedTask, map_prompts
from node.net.address_book import peers_at
from node.net.finder import Finding
from node.net.host import HostConfig
from node.net.identity import create_identity, load_or_create_identity
from node.net.network import PeerNetwork
from node.net.session import Pulse
from node.net.signing import signer, verify
from node.persona_library import PersonaLibrary
from node.retention import Capacity
from node.retrying import submit_again
from node.storage import Storage, persona_sources, storage_of
from node.stores.measured import MeasuredStore
from node.telemetry import NodeMetrics, default_to_stdlib_logging, inject_traceparent, store_tracer
from node.work import WorkDoor
from node.work.agents import AgentRegistry
from node.work.offers import Offers
from node.work_service import WorkService
from protocol import (
    ErrorCode,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Receipt,
    Task,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TaskResult,
    parse_task_id,
)

log = structlog.get_logger(__name__)

# Finished tasks are also forgotten as new ones finish; this is for a node that has nothing to do.
SWEEP_INTERVAL_S = 60.0
# A busy node makes some 30 objects a task that a collection looks at: one every thousand tasks costs nothing that
# shows, and keeps what really is cyclic (exceptions, cancelled scopes) below a few megabytes.
COLLECT_AFTER_OBJECTS = 50_000
COLLECT_MIDDLE_AFTER = 20
COLLECT_ALL_AFTER = 100

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Node(NodeControl):
    """A running node; `open_node` makes one.

    Attributes:
        peer_id: who this node is.
        manager: the map of its tasks.
        feed: tells what happens to them.
        offering: what it offers to the node that it works for; None when it works for nobody in particular.
        coordination: what it coordinates with; None when the settings say that it does not.
        work: the door of outside workers.
    """

    def __init__(self, config: NodeConfig, executors: Iterable[Executor] = (), store: Store | None = None) -> None:
        self.config = config
        self.feed = Feed()
        self._clock = SystemClock()
        self._started_at = self._clock.now()
        self._has_started = trio.Event()
        self._metrics = NodeMetrics()
        self._executors: dict[str, Executor] = {}
        key_pair = load_or_create_identity(config.data) if config.data is not None else create_identity()
        self._network = PeerNetwork(
            HostConfig(key_pair=key_pair, listen=config.listen),
            limits=config.limits,
            pulse=Pulse(config.heartbeat_ms / 1000, config.silence_ms / 1000),
            finding=Finding(config.share_peers, config.rendezvous, points=peers_at(config.rendezvous_at)),
            clock=self._clock,
        )
        self.peer_id = self._network.peer_id
        storage = Storage(store) if store is not None else storage_of(config, self.peer_id)
        self._store = storage.store
        self._measured = MeasuredStore(storage.store) if self._is_seen() else None
        self.manager = TaskManager(
            self._measured or storage.store,
            self._clock,
            self.feed,
            own_id=self.peer_id,
            capacity=_capacity_of(config),
            checkpoints=storage.checkpoints,
        )
        self._notary = Notary(self.peer_id, signer(key_pair), verify, config.receipts)
        self._remote = RemoteDelegate(self._network, self._trusts, self._notary)
        self.offering = _offering_of(config, self._network, self._advert_for)
        self._gateway = PeerGateway(
            self.manager,
            self.feed,
            self._clock,
            own_id=self.peer_id,
            executors=self._executors,
            access=Access(allow=config.allow, max_in_flight=config.in_flight, works_for=config.works_for),
            usage=self.manager.usage,
            notary=self._notary,
            offering=self.offering,
            outside_kinds=lambda: self.work.kinds,
        )
        self._registry = AgentRegistry(storage.agents(), self._clock, config.lease_ms, self._network.announce)
        offers = Offers(self._registry.agents)
        self._dispatcher = Dispatcher(
            self.manager,
            self.feed,
            self._clock,
            self._network,
            self._executors,
            self._remote,
            random.Random(),
            self._trusts,
            offers=offers,
            lease_ms=config.lease_ms,
        )
        self.work = WorkDoor(
            self.manager,
            self._registry,
            offers,
            self._dispatcher,
            self._clock,
            own_id=self.peer_id,
            lease_ms=config.lease_ms,
            note=self.note,
        )
        self.coordination = _coordination_of(config, self.manager, storage.store, self.work)
        self._audit = audit_of(config, self._clock, self.feed, self._network, signer(key_pair))
        if self.coordination is not None:
            self._gateway.personas = self._dispatcher.personas = self.coordination.personas
        for executor in (MockExecutor(config.mock_seed), EchoExecutor(), *executors):
            self.register(executor)

    def _is_seen(self) -> bool:
        """Whether anybody can see what is measured: over the control socket, or in traces."""
        return self.config.data is not None or store_tracer() is not None

    def __repr__(self) -> str:
        return f"<Node {self.peer_id} executing={self._dispatcher.executing} {self.manager!r}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run for the length of the context; `open_node` calls this."""
        async with (
            nullcontext() if self._audit is None else self._audit.running(),  # first, to hear the last facts too
            self.manager.running(),
            self._network.running(self._gateway, self._remote, self._advert_for),
            open_background() as nursery,
        ):
            if self.coordination is not None:
                await self.coordination.personas.load()
            await self._registry.load()
            nursery.start_soon(self._dispatcher.run)
            nursery.start_soon(self._sweep)
            for address in filter(None, (*self.config.peers, *self.config.rendezvous_at, self.config.work_for)):
                self._network.keep(address, PeerSource.STATIC)
            for address in self.config.bootstrap:
                self._network.keep(address, PeerSource.BOOTSTRAP)
            if self.config.mdns:
                self._network.listen(self._mdns())
            log.info("node is running", peer_id=self.peer_id, addresses=self.addresses)
            self._has_started.set()
            yield

    # --- what programs of this machine ask over the control socket ----------------------------------------------------

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer on the control socket of the data folder for the length of the context; `open_node` calls this.

        Who asks while the node starts is answered when it runs: before, it does not know its tasks.

        Raises:
            PeertaskError: code INVALID_CONFIG, when another node runs in the data folder.
        """
        folder = self.config.data
        if folder is None:
            yield
            return
        # A program that embeds a node without a data folder does not load a web server.
        from node.gateways.http.server import serve  # noqa: PLC0415

        self._set_up_metrics()
        gateway = Gateway(self.manager, self, self._clock, self.work, self.config.payload_bytes)
        stop, stopped = trio.Event(), trio.Event()

        async def answer(task_status: trio.TaskStatus[object]) -> None:
            try:
                await serve(
                    gateway,
                    folder,
                    stop=stop,
                    begin=self._has_started,
                    bind=self.config.http,
                    task_status=task_status,
                )
            finally:
                stopped.set()

        async with open_background() as nursery:
            await nursery.start(answer)
            try:
                yield
            finally:
                stop.set()
                with trio.CancelScope(shield=True):
                    await stopped.wait()

    def info(self) -> NodeInfo:
        """Return what this node says about itself, now."""
        return NodeInfo(
            peer_id=self.peer_id,
            addresses=self.addresses,
            agent=self._network.agent,
            advert=self._advert_for(self.peer_id),
            started_at=self._started_at,
        )

    def health(self) -> Health:
        """Return whether this node does its work, now."""
        failures = [self._store.failure, self._audit and self._audit.failure]
        problems = tuple(str(failure) for failure in failures if failure is not None)
        if problems:
            return Health("failing", problems)
        return Health("draining" if self.manager.draining else "ok")

    def metrics(self) -> str:
        """Return all metrics in the text format of Prometheus; they are counted while the control socket is served."""
        return self._metrics.text()

    def _set_up_metrics(self) -> None:
        self.feed.listen(self._metrics.observe)
        if self._measured is not None:
            self._measured.show(
                self._metrics, hits=lambda: self.manager.lookup_hits, misses=lambda: self.manager.lookup_misses
            )
        if self._audit is not None:
            self._audit.show(self._metrics)
        self._metrics.gauge("open_tasks", "Tasks that have not ended.", lambda: self.manager.open_tasks)
        self._metrics.gauge("waiting_tasks", "Tasks that wait for an executor.", lambda: self._dispatcher.waiting)
        self._metrics.gauge("executing", "Attempts that run, here and at peers.", lambda: self._dispatcher.executing)
        self._metrics.gauge("agents", "Outside workers that are there.", lambda: len(self.work.active_agents()))
        self._metrics.gauge("connected_peers", "Open sessions.", lambda: len(self._network.channels()))

    def note(self, fact: str, **fields: Any) -> None:
        """Add an entry to the audit log that is no fact of a task, when this node keeps one; see `AuditLog.note`."""
        if self._audit is not None:
            self._audit.note(fact, **fields)

    # --- peers -------------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where other nodes can dial this one, with ``/p2p/ID``."""
        return self._network.addresses

    def _mdns(self) -> Discovery:
        from node.net.mdns import MdnsDiscovery  # noqa: PLC0415 - few nodes need the library

        return MdnsDiscovery(self.peer_id, self.addresses, self.config.mdns_interfaces)

    async def connect(self, address: str) -> PeerId:
        """Open a session with the peer at an address, keep it up from then on, and return who the peer is.

        Raises:
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE, WRONG_PEER or INCOMPATIBLE_VERSION, in words.
        """
        return await self._network.connect(address)

    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, and do not dial it again."""
        await self._network.disconnect(peer_id)

    def peers(self) -> Sequence[PeerInfo]:
        """Return the peers that this node knows, the connected ones first."""
        return self._network.peers()

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def submit(self, prompt: str, **options: Any) -> TaskResult:
        """Submit a task, and return its result when it has one.

        Cancelling the call cancels the task; `enqueue` is for tasks that outlive their caller.

        Args:
            prompt: what to do.
            options: as those of `enqueue`.

        Raises:
            TaskFailed: the task failed, was cancelled or was refused; `failure` says why.
            PeertaskError: as `enqueue` does.
        """
        task_id = await self._take_in(prompt, **options)
        return await self._result_or_cancel(task_id)

    async def enqueue(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the task, and bounds no wait here
        **fields: Any,
    ) -> TaskId:
        """Submit a task, and return its id once it is saved, before it is done.

        When this node has all the open tasks that it may have, this waits for room. Cancelling the call while it waits
        to be saved leaves the task in.

        Args:
            prompt: what to do.
            to: the peer that is to do it, as an id, or as an address with ``/p2p/ID``, which is dialled first; this
                node's own id for itself. None lets the node choose: itself,
                or the least busy of the peers that it was told to connect to, or that it allows.
            timeout: how long the task may take in all, in seconds; None for as long as it takes.
            fields: any other field of `Task` by name: ``kind``, ``params``, ``priority``, ``retry``…

        Raises:
            InvalidTask: names the field that is wrong, and its limit.
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE and the like, when `to` is an address; DRAINING when the
                node is stopping; CONFLICT when the id belongs to another task.
        """
        task_id = await self._take_in(prompt, to=to, timeout=timeout, **fields)
        await self.manager.wait_saved(task_id)
        return task_id

    async def _take_in(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        **fields: Any,
    ) -> TaskId:
        fresh = "id" not in fields
        task, target, deadline = await self._place(prompt, to=to, timeout=timeout, **fields)
        while True:
            try:
                self.manager.submit(task, requester=self.peer_id, target=target, deadline=deadline, fresh=fresh)
                return task.id
            except TaskRejected as error:
                if error.code is not ErrorCode.BUSY:
                    raise
                await self.manager.wait_for_room()

    async def _place(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        **fields: Any,
    ) -> GraphTask:
        metadata = inject_traceparent(fields.pop("metadata", None) or {})
        if metadata:
            fields["metadata"] = metadata
        task = Task.new(prompt, self.peer_id, timestamp=self._clock.now(), **fields)
        if task.persona is not None and self.coordination is not None:
            await self.coordination.check_persona(task.persona, self.peers, self.work.active_agents)
        target = None if to is None else await self._resolve(to)
        if target is None:
            self._check_somebody_may_come(task.kind)
        return GraphTask(task, target, None if timeout is None else self._clock.now() + round(timeout * 1000))

    async def submit_graph(self, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, TaskId]:
        """Submit tasks that depend on each other, all or none, and return their ids by name once they are saved.

        Args:
            tasks: the options of each task, by its name: its ``prompt``, and what `enqueue` takes. ``depends_on`` and
                ``parent_id`` hold names of others, or ids of tasks that this node has already.

        Raises:
            InvalidTask: names what is wrong: a field and its limit, a name that is not there, a cycle as a path.
            TooLarge: there are more tasks or dependencies than a graph, or this node, may have.
            PeertaskError: as `enqueue` does; BUSY when there is no room for all of them now.
        """
        named = resolve_names(tasks)
        graph = [await self._place(**fields) for fields in named.tasks]
        for record in self.manager.submit_graph(graph, requester=self.peer_id):
            await self.manager.wait_saved(record.id)
        return named.ids

    async def result(self, task_id: str) -> TaskResult:
        """Return the result of a task when it has one; cancelling the call leaves the task alone.

        Raises:
            TaskFailed: the task failed or was cancelled.
            TaskNotFound: the node does not know it.
        """
        return outcome(await self.manager.wait(parse_task_id(task_id)))

    def map(
        self, prompts: Iterable[str], *, concurrency: int | None = None, **options: Any
    ) -> AsyncGenerator[MappedTask]:
        """Submit a task for each prompt, and yield how each ended, as they end.

        Args:
            prompts: what to do; taken as there is room.
            concurrency: how many tasks are open at once; as many as a peer takes by default.
            options: as those of `enqueue`, the same for all.
        """

        async def enqueue(prompt: str) -> TaskId:
            return await self.enqueue(prompt, **options)

        limit = max(1, concurrency or self.config.max_in_flight)
        return map_prompts(prompts, enqueue, self.manager, self.feed, concurrency=limit)

    def get_task(self, task_id: str) -> TaskRecord:
        """Return what this node knows about a task; raises `TaskNotFound`."""
        return self.manager.get_task(parse_task_id(task_id))

    async def explain(self, task_id: str) -> Explanation:
        """Tell why a task is where it is: who was asked, who could do it, and what it waits for now.

        Raises:
            TaskNotFound: the node does not know it.
        """
        record, facts = await self.manager.history(parse_task_id(task_id))
        return self._dispatcher.explain(record, facts)

    def list_tasks(self, task_filter: TaskFilter | None = None) -> list[TaskRecord]:
        """Return what this node knows about the tasks that match, the newest first."""
        return self.manager.list_tasks(task_filter)

    async def receipt(self, task_id: str) -> Receipt:
        """Return the signed word of whoever carried a task out, that this is what came of it.

        It is at hand when it came with the result, and when this node carried the task out; else the peer that did is
        asked, and its answer checked.

        Raises:
            TaskNotFound: the node does not know the task.
            IllegalTransition: it is not complete.
            PeertaskError: PEER_UNREACHABLE and others, as `request_receipt` does.
        """
        record = self.get_task(task_id)
        receipt = record.receipt or self._notary.at_hand(record)
        if receipt is None:
            sent = for_worker(with_inputs(record.task, self.manager.dependency))
            receipt = await request_receipt(self._remote, record, sent)
            self.note("ReceiptTaken", task_id=record.id, receipt=receipt.to_dict())
        return receipt

    def cancel(self, task_id: str) -> TaskRecord:
        """Ask for a task to be stopped; `result` tells when it has."""
        return self.manager.cancel_task(parse_task_id(task_id))

    async def retry(self, task_id: str) -> TaskId:
        """Have a task done again that failed or was cancelled, and return the id of the new task once it is saved.

        The new task is as the first one, which stays as it is, and names it in its metadata as ``retry_of``.

        Raises:
            TaskNotFound: the node does not know it.
            PeertaskError: FORBIDDEN when another peer asked for it, ILLEGAL_TRANSITION when it has not ended or has a
                result, CONFLICT when it has been retried already; BUSY or DRAINING as `enqueue`.
        """
        (became,) = submit_again(self.manager, [parse_task_id(task_id)], own_id=self.peer_id, now=self._clock.now())
        if isinstance(became, PeertaskError):
            raise became
        await self.manager.wait_saved(became.id)
        return became.id

    def watch(
        self, task_id: str | None = None, after_seq: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Change | Lagged]]:
        """Watch the facts of one task, ending with its last, or of all; see `TaskService.watch`."""
        return self.manager.watch(None if task_id is None else parse_task_id(task_id), after_seq)

    def _trusts(self, peer_id: PeerId) -> bool:
        """Whether the operator named a peer: to connect to, to do work, or to use more than the safe kinds."""
        named = (self.config.workers, *self.config.allow.values())
        return self._network.keeps(peer_id) or any(peer_id in peers for peers in named)

    def _check_somebody_may_come(self, kind: str) -> None:
        known = any(not peer.hearsay for peer in self._network.peers())
        here = kind in self._executors or kind in self.work.kinds
        if not here and not known and not self.config.workers:
            raise TaskRejected(
                f"this node has no executor for kind {kind!r}, and knows no peer that could have one",
                code=ErrorCode.NO_EXECUTOR,
                remedy=f"Name a peer, or use one of the kinds here: {', '.join(self.kinds)}",
            )

    async def _resolve(self, to: str) -> PeerId:
        peer_id = PeerId(to)
        if peer_id == self.peer_id or self._network.channel(peer_id) is not None:
            return peer_id
        if to.startswith("/") or any(peer.hearsay and peer.peer_id == to for peer in self._network.peers()):
            return await self._network.connect(to)
        return self._network.keep(to)

    async def _result_or_cancel(self, task_id: TaskId) -> TaskResult:
        try:
            return outcome(await self.manager.wait(task_id))
        except trio.Cancelled:
            with suppress(TaskNotFound):
                self.manager.cancel_task(task_id)
            raise

    # --- executors ---------------------------------------------------------------------------------------------------

    def task(self, kind: str, **options: Any) -> Callable[[_Function], _Function]:
        """Register a function under a kind; a decorator.

        Args:
            kind: what tasks name.
            options: as those of `CallableExecutor`.
        """

        def register(function: _Function) -> _Function:
            self.register(CallableExecutor(kind, function, **options))
            return function

        return register

    def register(self, executor: Executor) -> None:
        """Let an executor carry out the tasks of its kind, instead of the one that did so before.

        It is left out when the settings name the kinds that this node carries out, and not this one.
        """
        if self.config.kinds and executor.kind not in self.config.kinds:
            return
        self._executors[executor.kind] = executor
        self._dispatcher.wake()
        self._network.announce()
        if self.offering is not None:
            self.offering.renew()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of tasks that this node carries out, sorted."""
        return tuple(sorted(self._executors))

    def _advert_for(self, peer_id: PeerId) -> PeerAdvert:
        slots = max((executor.slots for executor in self._executors.values()), default=0)
        return PeerAdvert(
            kinds=self._gateway.kinds_for(peer_id),
            personas=() if self.coordination is None else tuple(sorted(self.coordination.personas.declared)),
            slots=slots,
            load=self._dispatcher.local_load,
        )

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take no new tasks, start none, and return when what runs has ended, or after `drain_s` of the settings."""
        self.manager.draining = True
        if self.offering is not None:
            self.offering.withdraw()
        with trio.move_on_after(self.config.drain_s):
            await self._dispatcher.drain()
            await self.manager.settle()  # an end that is not saved has been told to nobody

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            await self.manager.sweep()
            await self.work.cleanup_expired()


@asynccontextmanager
async def open_node(
    config: NodeConfig | None = None,
    executors: Iterable[Executor] = (),
    store: Store | None = None,
    *,
    control: bool = True,
) -> AsyncIterator[Node]:
    """Run a node for the length of the context.

    Args:
        config: its settings; by default it listens on loopback and keeps its tasks in memory.
        executors: what it can do besides ``mock`` and ``echo``.
        store: where it keeps its tasks, instead of the store that the settings name. What is in it is gone on with.
        control: whether it answers programs of this machine over a socket in its data folder, when it has one; only one
            node at a time can.

    Raises:
        PeertaskError: INVALID_CONFIG when an address, the identity or the data folder cannot be used; says which, and
            what to do.
    """
    default_to_stdlib_logging()
    node = Node(config or NodeConfig(), executors, store)
    async with AsyncExitStack() as stack:
        if control:  # first, because it finds out whether another node has the data folder
            await stack.enter_async_context(node.answering())
        await stack.enter_async_context(node.running())
        yield node


def _coordination_of(config: NodeConfig, manager: TaskManager, store: Store, work: WorkService) -> Coordination | None:
    if not config.coordination:
        return None
    personas = PersonaLibrary(persona_sources(store, config.data), config.personas)
    return Coordination(personas, TaskCoordinator(manager, store, work) if isinstance(store, TaskNumbers) else None)


def _capacity_of(config: NodeConfig) -> Capacity:
    return Capacity(
        open_tasks=config.max_queued,
        finished_records=config.retention_records,
        finished_bytes=config.retention_bytes,
        finished_ms=config.retention_ms,
    )


def _offering_of(config: NodeConfig, network: PeerNetwork, advert: Callable[[PeerId], PeerAdvert]) -> Offering | None:
    owner = config.works_for
    return None if owner is None else Offering(network, owner, config.in_flight, advert)


def tune_collector() -> None:
    """Set the cyclic garbage collector for a process that is a node and nothing else.

    Records are kept by the hundred thousand and hold no cycles, so the default of a collection every 700 objects
    walks over them for nothing. What is there at the start is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, COLLECT_MIDDLE_AFTER, COLLECT_ALL_AFTER)
