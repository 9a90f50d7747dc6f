"""The node, put together: the one module that knows every part, and decides nothing about tasks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any, TypeVar

import structlog
import trio

from node.audit.opening import audit_of
from node.background import open_background
from node.clock import SystemClock
from node.config import NodeConfig
from node.coordination.explain import Explanation
from node.coordination.quotas import Access
from node.coordination.receipts import Notary
from node.coordination_service import Coordination, TaskNumbers
from node.coordinator import TaskCoordinator
from node.dispatcher import Dispatcher
from node.executors.callable import CallableExecutor
from node.executors.echo import EchoExecutor
from node.executors.mock import MockExecutor
from node.executors.remote import RemoteDelegate
from node.feed import Feed
from node.gateways.http.gateway import Gateway
from node.gateways.http.node_control import Health, NodeInfo
from node.gateways.offering import Offering
from node.gateways.p2p import PeerGateway
from node.interfaces import Discovery, Executor, PeerInfo, PeerSource, Store
from node.manager import TaskManager
from node.net.address_book import peers_at
from node.net.finder import Finding
from node.net.host import HostConfig
from node.net.identity import create_identity, load_or_create_identity
from node.net.network import PeerNetwork
from node.net.relay.roles import Relaying
from node.net.session import Pulse
from node.net.signing import signer, verify
from node.own_tasks import OwnTasks
from node.persona_library import PersonaLibrary
from node.retention import Capacity
from node.storage import Storage, persona_sources, storage_of
from node.stores.measured import MeasuredStore
from node.telemetry import NodeMetrics, default_to_stdlib_logging, store_tracer
from node.work import WorkDoor
from node.work.agents import AgentRegistry
from node.work.offers import Offers
from node.work_service import WorkService
from protocol import MAX_ADVERTISED, PeerAdvert, PeerId, parse_task_id

log = structlog.get_logger(__name__)

# Finished tasks are also forgotten as new ones finish; this is for a node that has nothing to do.
SWEEP_INTERVAL_S = 60.0

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Node(OwnTasks):
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
            relaying=Relaying(config.relay_service, frozenset(config.relay_for), config.relays),
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
            saved=self.manager.saved,
            notary=self._notary,
            offering=self.offering,
            outside_kinds=lambda: self.work.kinds,
            outside_personas=lambda kind: self.work.personas(kind),  # noqa: PLW0108 - the door is made later
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
            relays=self._network.relays.infos,
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
        if self.config.relay_service:
            relays = self._network.relays
            self._metrics.gauge("relay_reservations", "Peers reached through here.", lambda: relays.reservations)
            self._metrics.gauge("relay_circuits", "Connections relayed here.", lambda: relays.circuits)

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

    async def explain(self, task_id: str) -> Explanation:
        """Tell why a task is where it is: who was asked, who could do it, and what it waits for now.

        Raises:
            TaskNotFound: the node does not know it.
        """
        record, facts = await self.manager.history(parse_task_id(task_id))
        return self._dispatcher.explain(record, facts)

    def _trusts(self, peer_id: PeerId) -> bool:
        """Whether the operator named a peer: to connect to, to do work, or to use more than the safe kinds."""
        named = (self.config.workers, *self.config.allow.values())
        return self._network.keeps(peer_id) or any(peer_id in peers for peers in named)

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
            personas=() if self.coordination is None else self._acts_as(self.coordination.personas.declared),
            slots=slots,
            load=self._dispatcher.local_load,
        )

    def _acts_as(self, declared: frozenset[str]) -> tuple[str, ...]:
        """Return whom this node and its agents act as, sorted; of more than an advert holds the node's own first."""
        everybody = (*declared, *(self.work.personas() - declared))
        return tuple(sorted(everybody[:MAX_ADVERTISED]))

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
