"""The seams of a node: what each part may expect of the others, as abstract classes whose docstrings are the contracts.

A contract here has a checker in `node.testing`, and every implementation runs through it, the doubles included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from node.coordination.dead_letters import retry_of
from node.personas import Persona
from protocol import (
    Artifact,
    Fact,
    Frame,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Receipt,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
)


class Clock(ABC):
    """Tells the time. Nothing in a node asks the system directly, so a test can own it."""

    @abstractmethod
    def now(self) -> int:
        """Return milliseconds since the epoch; never less than an earlier answer of the same clock."""


class Change(NamedTuple):
    """One step in the life of a task: a fact, and the record after it."""

    record: TaskRecord
    fact: Fact


Committed = Callable[[Sequence[Change]], None]
Refused = Callable[[Sequence[Change], PeertaskError], None]


class Store(ABC):
    """Keeps records and their facts. Dumb: no policy, no clock, no decision.

    `append` only takes a change in, so that the writer of the map never waits; the store says when changes are safe
    by calling `committed` with them: in the order of `append`, on the event loop, each exactly once. A store that
    needs no time may call it from within `append`.
    """

    @abstractmethod
    def running(self, committed: Committed) -> AbstractAsyncContextManager[None]:
        """Be open for the length of the context; on leaving, everything appended is committed first.

        Raises:
            PeertaskError: code STORE_FAILED, when the store cannot be opened; says which file or address, and why.
        """

    @abstractmethod
    def append(self, changes: Sequence[Change]) -> None:
        """Take changes of one task in, in order, all or none.

        Each record replaces the one with a `seq` one less, and a first record has `seq` 1. They are committed together,
        or one after the other with nothing of the same task between them.

        Raises:
            PeertaskError: code CONFLICT, when the store holds another `seq` for the task; nothing is taken in.
        """

    @abstractmethod
    def append_new(self, changes: Sequence[Change]) -> None:
        """Take the first changes of several new tasks in, one of each, all or none.

        That holds on disk too: after a crash, `load` yields the records of all of them or of none. They are committed
        together, in their order.

        Raises:
            PeertaskError: code CONFLICT, when the store holds one of the tasks; nothing is taken in.
        """

    @property
    def failure(self) -> PeertaskError | None:
        """Why nothing can be saved at the moment, with code STORE_FAILED, the place, the reason and what to do.

        None when all is well. What was appended stays in line, and is committed when saving works again; meanwhile the
        node takes nothing new.
        """
        return None

    def on_refused(self, listener: Refused) -> None:  # noqa: B027 - a store that is nobody else's has nothing to tell
        """Call `listener` with changes of one task that were appended and never will be saved, and why.

        That is for stores that find out late: with code CONFLICT, when another program has changed the task. It is
        called on the event loop, before `committed` is with what came later; every later change of the task is refused
        by `append`.
        """

    @abstractmethod
    def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record that is kept, the oldest `created_at` first."""

    @abstractmethod
    def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the facts of a task that are kept, in order, whose number is greater than `after_seq`."""

    @abstractmethod
    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks, if they are there."""


@dataclass(frozen=True, slots=True)
class Output:
    """What an executor returns.

    Attributes:
        text: the result.
        artifacts: named output beside it.
    """

    text: str
    artifacts: tuple[Artifact, ...] = ()


class Receipted(NamedTuple):
    """A result that came with the word of the peer that has it, and the receipt fits."""

    result: TaskResult
    receipt: Receipt


Outcome = TaskResult | Receipted | Output | PeertaskError
"""How an attempt ended: a result that somebody else has timed, what an executor returned, or an error."""


class Execution(ABC):
    """One attempt at a task, as its executor sees it.

    Attributes:
        task: what to do.
        attempt: which attempt this is, from 1.
        holder: the peer that carries it out.
    """

    __slots__ = ()

    task: Task
    attempt: int
    holder: PeerId

    @property
    def persona(self) -> Persona | None:
        """Who does the task, with the definition that this node has; None when the task names nobody."""
        return None

    @abstractmethod
    def remaining_ms(self) -> int | None:
        """Return how long the requester still cares, in milliseconds, 0 at the least; None for as long as it takes."""

    @abstractmethod
    def started(self) -> None:
        """Tell that the execution has begun; without effect when that is known. Never blocks."""

    @abstractmethod
    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the execution is, 0 to 1. Never blocks; an execution that is over ignores it."""


class Delegation(Execution):
    """One attempt at a task that somebody else carries out."""

    __slots__ = ()

    @abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """Tell what came of it; only the first call counts. Never blocks.

        The code of an error decides what happens next, as for `Executor.execute`.
        """


class Executor(ABC):
    """Carries tasks of one kind out.

    Attributes:
        kind: the name that tasks ask for.
        slots: how many it carries out at once.
        safe: whether any authenticated peer may use it; otherwise the operator lists the peers that may.
    """

    kind: str
    slots: int
    safe: bool = False

    @abstractmethod
    async def execute(self, execution: Execution) -> Output:
        """Carry a task out and return what came of it.

        Cancellation means stop: whatever was started for the task (threads that can be told, processes and their
        groups, requests) is gone when this ends. A result that was there first may be returned in spite of it.

        Raises:
            PeertaskError: its code decides what happens next: BUSY, DRAINING, PEER_UNREACHABLE, PEER_LOST and
                LEASE_LOST release the task for another attempt; other codes fail it, or spend one of its retries when
                retryable.
            Exception: anything else fails the task with EXECUTION_FAILED and the message, without the traceback.
        """


class Delegate(ABC):
    """Hands tasks to others, who say themselves what comes of them.

    So a task that waits for its peer costs no task of trio. All methods are called on the event loop, must be quick,
    and must not raise.
    """

    @abstractmethod
    def begin(self, delegation: Delegation) -> None:
        """Hand a task to its `holder`; `started`, `progress` and in the end `finish` follow, perhaps at once."""

    @abstractmethod
    def stop(self, delegation: Delegation) -> None:
        """Ask the holder to stop; `finish` follows as it would have, with a result that was there first, or without."""

    @abstractmethod
    def abandon(self, task_id: TaskId, holder: PeerId) -> None:
        """Tell a former holder, now or when it is back, to stop if it still works on a task that nobody wants."""

    @abstractmethod
    def forget(self, delegation: Delegation) -> None:
        """Drop what is kept for a task that was ended without an answer of its holder."""


class Channel(ABC):
    """An open session with one authenticated peer.

    Attributes:
        peer_id: who is at the other end, as proven by the handshake.
        advert: what the peer last said about itself; None for a simple client that sent no Hello.
        in_flight: how many tasks the peer takes from this node at once.
        local_in_flight: how many tasks this node takes from the peer at once.
        offered: how many tasks at once the peer has asked for; None when it has not asked for work.
        latency_ms: round trip of the last heartbeat; None before the first.
    """

    peer_id: PeerId
    advert: PeerAdvert | None
    in_flight: int
    local_in_flight: int
    offered: int | None
    latency_ms: float | None

    @abstractmethod
    def send(self, frame: Frame) -> None:
        """Queue a frame; the frames about one task arrive in the order of sending. Never blocks.

        Raises:
            PeertaskError: code PEER_LOST when the session is over, BUSY when the queue is full (only for Submit).
            TooLarge: the frame exceeds what the peer takes; the session goes on.
            LocalProtocolError: the conversation does not allow the frame; the session goes on.
        """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the session is over; nothing is received after that."""


class ChannelHandler(ABC):
    """Takes what channels bring. All methods are called on the event loop, must be quick, and must not raise."""

    @abstractmethod
    def opened(self, channel: Channel) -> None:
        """A session with a peer is open; `Network.channel` finds it."""

    @abstractmethod
    def received(self, channel: Channel, frame: Frame) -> None:
        """A frame came that the conversation allows; frames come in the order of sending."""

    @abstractmethod
    def closed(self, channel: Channel, reason: str) -> None:
        """The session is over, for a reason in words; called once for each `opened`."""


class PeerSource(StrEnum):
    """How a node came to know another: the operator named it, it came by itself, or somebody told of it."""

    STATIC = "static"
    BOOTSTRAP = "bootstrap"
    ASKED = "asked"
    INBOUND = "inbound"
    PEER = "peer"
    RENDEZVOUS = "rendezvous"
    MDNS = "mdns"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a node knows about another.

    Attributes:
        peer_id: who it is.
        connected: whether a session is open.
        addresses: where it can be dialled, with ``/p2p/ID``.
        advert: what it last said about itself.
        latency_ms: round trip of the last heartbeat; None before the first.
        last_error: why the last dial or session failed, in words; empty when none did.
        agent: its program and version.
        source: how this node came to know it.
        via: the peers that told of it.
        hearsay: whether everything above was told by others: nothing is known from itself or from the operator.
        clock_offset_ms: how far its clock was ahead of this node's when the session began, give or take the time that
            a message takes; None when it did not say.
    """

    peer_id: PeerId
    connected: bool
    addresses: tuple[str, ...] = ()
    advert: PeerAdvert | None = None
    latency_ms: float | None = None
    last_error: str = ""
    agent: str = ""
    source: PeerSource = PeerSource.INBOUND
    via: tuple[PeerId, ...] = ()
    hearsay: bool = False
    clock_offset_ms: int | None = None


class Network(ABC):
    """Sessions with peers.

    Attributes:
        peer_id: who this node is.
    """

    peer_id: PeerId

    @abstractmethod
    def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AbstractAsyncContextManager[None]:
        """Listen and keep sessions for the length of the context; on leaving, every session ends with Bye.

        Args:
            worker: gets what peers ask of this node: Submit, Attach, Cancel; and Decline, which answers its Offer.
            requester: gets what peers answer to this node: Accept, Reject, Progress, Result; and each Offer that asks
                for work.
            advert: what to tell a peer about this node; asked for each Hello, and for the load of each Heartbeat.
        """

    @property
    @abstractmethod
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, with ``/p2p/ID``."""

    @abstractmethod
    async def connect(self, address: str) -> PeerId:
        """Open a session with the peer at an address, or return at once when there is one; it is kept up from then on.

        Args:
            address: a multiaddr with ``/p2p/ID``, or the id of a peer that is known.

        Raises:
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE, WRONG_PEER or INCOMPATIBLE_VERSION, in words.
        """

    @abstractmethod
    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, if there is one, and do not dial it again by itself."""

    @abstractmethod
    def keep(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:
        """Dial the peer at an address, now and whenever its session is lost, with back-off.

        Does not wait, and never fails because the peer is away.

        Args:
            address: as for `connect`.
            source: what to tell of how this node came to know the peer, when it did not know it before.

        Raises:
            PeertaskError: code INVALID_ADDRESS.
        """

    @abstractmethod
    def is_peer_id(self, holder: str) -> bool:
        """Whether an id is one that a peer can have, known or not: the agents of a node have ids of their own."""

    @abstractmethod
    def channel(self, peer_id: PeerId) -> Channel | None:
        """Return the open session with a peer."""

    @abstractmethod
    def channels(self) -> Sequence[Channel]:
        """Return all open sessions."""

    @abstractmethod
    def announce(self) -> None:
        """Tell every connected peer what this node offers now."""

    @abstractmethod
    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `channels` or one of their adverts has changed; it must be quick and not raise."""

    @abstractmethod
    def peers(self) -> Sequence[PeerInfo]:
        """Return every peer that is known, the connected ones first."""


class Discovery(ABC):
    """Finds addresses of peers."""

    @abstractmethod
    def addresses(self) -> AsyncIterator[str]:
        """Yield addresses with ``/p2p/ID`` as they are found, until cancelled; the same one may come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which records to list; None leaves a field open.

    Attributes:
        statuses: any of these.
        project: this one.
        requester: asked by this peer.
        session_id: of this conversation.
        before: taken in earlier than this, in milliseconds since the epoch.
        codes: ended without a result, with any of these error codes.
        retry_of: repeats this task.
        unretried: whether to leave out what its requester has had done again.
        limit: at most so many, the newest first.
    """

    statuses: frozenset[str] | None = None
    project: str | None = None
    requester: PeerId | None = None
    session_id: str | None = None
    before: int | None = None
    codes: frozenset[str] | None = None
    retry_of: TaskId | None = None
    unretried: bool = False
    limit: int | None = None

    def matches(self, record: TaskRecord) -> bool:
        """Whether a record is one of those asked for; `limit` and `unretried`, which look at others, play no part."""
        return (
            (self.statuses is None or record.status in self.statuses)
            and (self.project is None or record.task.project == self.project)
            and (self.requester is None or record.requester == self.requester)
            and (self.session_id is None or record.task.session_id == self.session_id)
            and (self.before is None or record.created_at < self.before)
            and (self.codes is None or (record.failure is not None and record.failure.code in self.codes))
            and (self.retry_of is None or retry_of(record.task) == self.retry_of)
        )


@dataclass(frozen=True, slots=True)
class Lagged:
    """Stands in a watch for facts that the watcher was too slow to take, or that are no longer kept.

    Attributes:
        missed: how many facts are missing here.
    """

    missed: int


class GraphTask(NamedTuple):
    """One of the tasks that are submitted together.

    Attributes:
        task: what to do.
        target: who shall do it; None when the node may choose.
        deadline: when the requester stops caring, in milliseconds since the epoch.
    """

    task: Task
    target: PeerId | None = None
    deadline: int | None = None


class TaskService(ABC):
    """What gateways ask of a node."""

    @abstractmethod
    def submit(
        self, task: Task, *, requester: PeerId, target: PeerId | None, deadline: int | None = None, fresh: bool = False
    ) -> TaskRecord:
        """Take a task in, or return the record of the task that has this UUID already.

        The caller may tell others that the task is accepted only when the feed has published a fact of it.

        Args:
            task: what to do.
            requester: the authenticated peer that asks.
            target: who shall do it; None when the node may choose.
            deadline: when the requester stops caring, in milliseconds since the epoch.
            fresh: whether the UUID was drawn for this call, so that after a crash nobody can ask for it again: then the
                task may be passed on to a peer while it is being saved. What is asked for again is a little different,
                and a peer would take it for another task.

        Raises:
            InvalidTask: it depends on a task that is not here, or has such a parent.
            PeertaskError: code BUSY with `retry_after_ms` when the queue is full; DRAINING when the node is stopping;
                CONFLICT when the UUID belongs to another task or requester; CANCELLED when its parent is cancelled.
        """

    @abstractmethod
    def submit_graph(self, graph: Sequence[GraphTask], *, requester: PeerId) -> list[TaskRecord]:
        """Take tasks that depend on each other in, all or none; or return the records of those that came before.

        They are saved together, and none begins before that.

        Args:
            graph: the tasks, in any order; they may also depend on earlier ones of the same requester.
            requester: the authenticated peer that asks.

        Returns:
            Their records, in the order of the tasks.

        Raises:
            InvalidTask: a task names one that is not here, or they have a cycle; see `check_graph`.
            TooLarge: there are more tasks or dependencies than a graph, or this node, may have.
            PeertaskError: as for `submit`; CONFLICT also when some of the tasks are here already, and some are not.
        """

    @abstractmethod
    def awaited(self, record: TaskRecord) -> list[tuple[TaskId, TaskRecord | None]]:
        """Return what an open task still waits for: the ids of tasks, with their records when they are kept."""

    @abstractmethod
    def is_blocked(self, record: TaskRecord) -> bool:
        """Whether a task waits for others."""

    @abstractmethod
    def children(self, task_id: TaskId) -> list[TaskRecord]:
        """Return the records of the tasks that are kept and name this one as their parent."""

    @abstractmethod
    def find_task(self, task_id: TaskId) -> TaskRecord | None:
        """Return the record of a task as it is saved; None when the node does not know it."""

    @abstractmethod
    def get_task(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task.

        Raises:
            TaskNotFound: the node does not know it.
        """

    @abstractmethod
    def latest(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task as it will be when all its facts are saved; not to be told to anybody.

        Raises:
            TaskNotFound: the node does not know it.
        """

    @abstractmethod
    def list_tasks(self, task_filter: TaskFilter | None = None) -> list[TaskRecord]:
        """Return the records that match, the newest first."""

    @abstractmethod
    def cancel_task(self, task_id: TaskId, *, requester: PeerId | None = None) -> TaskRecord:
        """Ask for a task and its children to be stopped, and return its record; what has ended stays as it is.

        Args:
            task_id: which task; one that is not saved yet is stopped too.
            requester: the peer that asks, when only its own tasks are meant; None for any.

        Raises:
            TaskNotFound: the node does not know it, or it is another requester's.
        """

    @abstractmethod
    def watch(
        self, task_id: TaskId | None = None, after_seq: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Change | Lagged]]:
        """Watch the facts of one task, ending with its last, or of all tasks, without end.

        Args:
            task_id: which task; None for all.
            after_seq: the last fact that the watcher knows; what is kept of the later ones comes first.

        Raises:
            TaskNotFound: the node does not know the task.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueRequest:
    """A task as a planner puts it.

    Attributes:
        title: what people call it.
        description: what to do; the prompt.
        persona_id: who should do it.
    """

    title: str
    description: str
    persona_id: str


AGENT_KIND: Final = "agent"
"""The kind of the tasks that planners put: what no executor of a node does, and agents do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableTask:
    """A task that waits for an agent.

    Attributes:
        id: its number.
        title: what people call it.
        description: what to do.
        persona_id: who should do it; None for anyone.
    """

    id: int
    title: str
    description: str
    persona_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """An agent as it introduces itself.

    Attributes:
        persona_id: whom it acts as; None when it only does tasks that name nobody.
        id: what it is called; drawn when None.
        kinds: the kinds of tasks that it does.
    """

    persona_id: str | None = None
    id: str | None = None
    kinds: tuple[str, ...] = (AGENT_KIND,)


class TaskCoordinationService(ABC):
    """What planners and workers of other programs ask of a node, in numbers instead of UUIDs."""

    @abstractmethod
    async def enqueue_task(self, request: EnqueueRequest) -> int:
        """Take a task in, and return its number, greater than 0, once it is saved.

        Raises:
            InvalidTask: names the field that is wrong, and its limit.
            PeertaskError: as `TaskService.submit` does.
        """

    @abstractmethod
    async def validate_dependencies(self, task_ids: Sequence[int]) -> bool:
        """Whether a new task may depend on these: each is known, and none is there twice."""

    @abstractmethod
    async def are_dependencies_satisfied(self, task_id: int) -> bool:
        """Whether all that a task depends on are complete.

        Raises:
            TaskNotFound: the number is unknown.
        """

    @abstractmethod
    async def get_available_tasks(self, persona_id: str | None = None) -> list[AvailableTask]:
        """Return the tasks of planners that wait for an agent who acts as a persona, or (None) for any.

        By priority, then by age; a hundred at most.
        """

    @abstractmethod
    async def claim_task(self, task_id: int, agent_id: str) -> bool:
        """Let an agent begin a task; whether it got it: of several agents exactly one does.

        Raises:
            PeertaskError: code FORBIDDEN, when the task is not the agent's to claim; NOT_FOUND, when the number or the
                agent is unknown; BUSY and DRAINING as for `WorkService.claim`.
        """

    @abstractmethod
    async def complete_task(self, task_id: int, result: str) -> None:
        """Deliver the result of a task for the agent that has it; returns when it is saved.

        Raises:
            PeertaskError: code NOT_FOUND, when the number is unknown; STALE_ATTEMPT or ILLEGAL_TRANSITION, when no
                agent has the task (any more).
        """

    @abstractmethod
    async def register_agent(self, info: AgentInfo) -> str:
        """Let an agent take part, and return its id.

        Raises:
            PeertaskError: code PROTOCOL naming the field that is wrong; BUSY and CONFLICT as for
                `WorkService.register`.
        """

    @abstractmethod
    async def heartbeat(self, agent_id: str) -> bool:
        """Take a sign of life; false when the agent is unknown, or was silent for too long: it registers again."""

    @abstractmethod
    async def deregister_agent(self, agent_id: str) -> None:
        """Let an agent go, if it is there; what it holds is given to others."""


class AgentSessionService(ABC):
    """Who takes part, for programs that look after agents."""

    @abstractmethod
    async def register_agent(self, registration: AgentInfo) -> str:
        """Let an agent take part, and return its id; see `TaskCoordinationService.register_agent`."""

    @abstractmethod
    async def update_heartbeat(self, agent_id: str) -> bool:
        """Take a sign of life; false when the agent is unknown, or was silent for too long."""

    @abstractmethod
    async def get_active_agents(self) -> list[AgentInfo]:
        """Return the agents that gave a sign of life within a lease, in the order of their registration."""

    @abstractmethod
    async def cleanup_expired_sessions(self) -> int:
        """Forget the agents that did not, give what they held to others, and return how many they were."""
