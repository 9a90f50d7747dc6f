"""What planners and agents of other programs ask of a node, in numbers instead of UUIDs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


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
