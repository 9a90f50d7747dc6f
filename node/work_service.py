"""The work side of a node: what workers outside of its process ask of it, and what it needs for that.

As in `node.interfaces`, the docstrings of the abstract classes are the contracts; `node.testing.check_work_service`
checks the one of `WorkService`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from node.coordination.roster import Worker
from node.interfaces import Output
from protocol import ErrorCode, Failure, Name, PeertaskError, TaskId, TaskRecord, TaskStatus, describe_invalid

WORKER_FAILURES: Final = frozenset(
    {
        ErrorCode.EXECUTION_FAILED,
        ErrorCode.INVALID_TASK,
        ErrorCode.TOO_LARGE,
        ErrorCode.FORBIDDEN,
        ErrorCode.TIMEOUT,
    }
)
"""What a worker can know about why its work failed; the other codes are the node's to find out."""

# A worker with more kinds than this is not one that a planner can reason about; the list is kept for each agent.
MAX_AGENT_KINDS: Final = 256


@checked_dataclass(frozen=True, slots=True, kw_only=True)
class AgentRegistration:
    """What an outside worker says about itself.

    Attributes:
        id: what it is called; drawn when None. Whoever registers under an id that is known is the same agent, begun
            anew: what the former one held is given to others.
        kinds: the kinds of tasks that it does.
        persona: whom it acts as; None when it only does tasks that name nobody.
    """

    kinds: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_AGENT_KINDS), FailFast()]
    id: Name | None = None
    persona: Name | None = None

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Check and make a registration.

        Raises:
            PeertaskError: code PROTOCOL; names the field that is wrong, and its limit.
        """
        try:
            return _REGISTRATION.validate_python(fields)  # type: ignore[return-value]
        except ValidationError as error:
            raise PeertaskError(
                f"this is no registration of an agent: {describe_invalid(error)}", code=ErrorCode.PROTOCOL
            ) from None


_REGISTRATION: TypeAdapter[AgentRegistration] = TypeAdapter(AgentRegistration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An outside worker that has registered.

    Attributes:
        id: what it is called; the `holder` of its tasks.
        kinds: the kinds of tasks that it does, sorted.
        persona: whom it acts as; None when it only does tasks that name nobody.
        registered_at: in milliseconds since the epoch.
        heard_at: when it gave its last sign of life, in milliseconds since the epoch.
    """

    id: str
    kinds: tuple[str, ...]
    persona: str | None
    registered_at: int
    heard_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTask:
    """A task that an agent has.

    Attributes:
        task_id: which.
        attempt: the fencing token of the claim.
        status: where the task stands.
        progress: the fraction done, 0 to 1; never less than what was reported before.
        stop: whether the agent is to stop, because the requester does not want the task any more.
    """

    task_id: TaskId
    attempt: int
    status: TaskStatus
    progress: float
    stop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """How an agent stands.

    Attributes:
        agent: who it is.
        lapses_at: when it counts as gone unless it gives a sign of life, in milliseconds since the epoch.
        tasks: what it has.
    """

    agent: Agent
    lapses_at: int
    tasks: tuple[HeldTask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A task that was given to an agent.

    Attributes:
        record: the task, and how it stands.
        attempt: the fencing token: to be repeated with everything that is said about the task.
        lease_ms: how long the lease lasts, in milliseconds. The task must be started in that time, and from then on the
            agent must give a sign of life (any request of it is one) at least as often.
        remaining_ms: how long the requester still cares, in milliseconds; None for as long as it takes.
    """

    record: TaskRecord
    attempt: int
    lease_ms: int
    remaining_ms: int | None


class WorkService(ABC):
    """The one door of all outside workers.

    A worker registers as an agent, claims tasks of the kinds that it named, starts them, reports, and delivers; any
    request is a sign of life. Whoever reaches the door is trusted with every task of those kinds.

    Whatever is answered is saved. What is said about a task is refused, and changes nothing, with these codes:

    - NOT_FOUND: the node does not know the task, or the agent (any more);
    - STALE_ATTEMPT: the attempt is over, because the lease lapsed, the task was given back, or somebody else has
      claimed it since;
    - ILLEGAL_TRANSITION: the task has ended, or the attempt was never claimed;
    - FORBIDDEN: the attempt is another agent's.
    """

    @abstractmethod
    async def register(self, registration: AgentRegistration) -> Agent:
        """Let an agent take part.

        Raises:
            PeertaskError: code BUSY with `retry_after_ms` when there are too many agents, CONFLICT when the id is the
                node's own.
        """

    @abstractmethod
    async def heartbeat(self, agent_id: str) -> AgentState:
        """Take a sign of life, which renews the leases of all that the agent has started; say what it has.

        Raises:
            PeertaskError: code NOT_FOUND, when the agent is unknown, or was silent for too long: it registers again.
        """

    @abstractmethod
    async def deregister(self, agent_id: str) -> None:
        """Let an agent go; what it holds is released at once, and counts neither as a failure nor as a lost lease.

        Raises:
            PeertaskError: code NOT_FOUND.
        """

    @abstractmethod
    def active_agents(self) -> Sequence[AgentState]:
        """Return the agents that gave a sign of life within a lease, in the order of their registration."""

    @abstractmethod
    async def cleanup_expired(self) -> Sequence[Agent]:
        """Forget the agents that were silent for longer than a lease, and return them; what they hold is released."""

    @abstractmethod
    async def claim(self, agent_id: str, wait_s: float = 0.0) -> Claim | None:
        """Claim the next task for an agent: the one that an executor of the node would get.

        Cancelling gives back what was claimed.

        Args:
            agent_id: who claims.
            wait_s: how long to wait for a task, in seconds; the agent counts as alive meanwhile.

        Returns:
            The claim; None when no task came.

        Raises:
            PeertaskError: NOT_FOUND; BUSY when the agent holds too many tasks; DRAINING when the node is stopping.
        """

    @abstractmethod
    async def claim_task(self, agent_id: str, task_id: TaskId) -> Claim:
        """Claim a given task, out of turn; of several agents exactly one gets it.

        Raises:
            PeertaskError: as `claim` does; FORBIDDEN when the kind or the persona of the task is not the agent's;
                CONFLICT when the task does not wait (any more): somebody has it, it has ended, its back-off is not
                over, or something else must come first.
        """

    @abstractmethod
    def waiting(
        self, agent_id: str | None = None, *, kind: str | None = None, persona: str | None = None, limit: int = 100
    ) -> list[TaskRecord]:
        """Return what waits for a worker: by priority, then by age.

        Args:
            agent_id: only what this agent may claim.
            kind: only of this kind.
            persona: only what somebody who acts as this persona may do.
            limit: at most so many.

        Raises:
            PeertaskError: code NOT_FOUND, when the agent is unknown.
        """

    @abstractmethod
    async def start(self, agent_id: str, task_id: TaskId, attempt: int) -> HeldTask:
        """Tell that the work on a claimed task has begun; without effect when that is known."""

    @abstractmethod
    async def progress(
        self, agent_id: str, task_id: TaskId, attempt: int, fraction: float, message: str = ""
    ) -> HeldTask:
        """Tell how far the work is; starts it when that was not told.

        A fraction that is less than an earlier one is a sign of life and nothing else: progress never goes back. The
        answer has what is recorded.

        Raises:
            PeertaskError: code PROTOCOL, when the fraction is not between 0 and 1.
        """

    @abstractmethod
    async def complete(self, agent_id: str, task_id: TaskId, attempt: int, output: Output) -> TaskRecord:
        """Deliver a result.

        The same result of the same attempt again is answered as the first time, because an answer may be lost. A task
        that is being cancelled takes a result that was there first.

        Raises:
            PeertaskError: INVALID_TASK, when the output cannot be a result; the task is still the agent's then.
        """

    @abstractmethod
    async def fail(self, agent_id: str, task_id: TaskId, attempt: int, failure: Failure) -> TaskRecord:
        """Tell that the work failed; the retry policy of the task decides whether it is tried again.

        Raises:
            PeertaskError: code PROTOCOL, when the code of the failure is not one that a worker can know.
        """

    @abstractmethod
    async def release(self, agent_id: str, task_id: TaskId, attempt: int, message: str = "") -> TaskRecord:
        """Give a task back; it counts neither as a failure nor as a lost lease. One that is to stop is cancelled."""


class AgentStore(ABC):
    """Keeps agents beyond a process, so that work outlives a restart of the node. Dumb, as every store."""

    @abstractmethod
    async def agents(self) -> list[Agent]:
        """Return every agent that is kept, in the order of their registration.

        Raises:
            PeertaskError: code STORE_FAILED, as the others do.
        """

    @abstractmethod
    async def save_agent(self, agent: Agent) -> None:
        """Keep an agent, instead of the one that had its id; it is kept when this returns."""

    @abstractmethod
    async def remove_agent(self, agent_id: str) -> None:
        """Drop an agent, if it is there."""


class Assigner(ABC):
    """Gives tasks to workers: the dispatcher, as the work door sees it."""

    @abstractmethod
    def plan_now(self) -> None:
        """Ask the plan at once, for workers that have just come.

        Raises:
            TaskRejected: code DRAINING, when the node is stopping.
        """

    @abstractmethod
    def claim_for(self, worker: Worker, task_id: TaskId) -> bool:
        """Give a worker a task out of turn; false when it does not stand in a queue of those that wait.

        Raises:
            TaskRejected: code DRAINING, when the node is stopping.
        """

    @abstractmethod
    def waiting_tasks(self) -> list[TaskRecord]:
        """Return what waits for a worker, by priority, then by age."""
