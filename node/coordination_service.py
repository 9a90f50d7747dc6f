"""What a node coordinates with, for its gateways; a node that runs without coordination has none of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from node.coordination.personas import declared_by
from node.interfaces import PeerInfo, TaskCoordinationService
from node.persona_library import PersonaLibrary
from node.work_service import AgentState
from protocol import TaskId


@dataclass(frozen=True, slots=True)
class Coordination:
    """The services of a node that coordinates; injected in the handlers of its gateways.

    Attributes:
        personas: who may be asked to do tasks.
        tasks: takes tasks of planners in, by numbers; None where the store has no numbers.
    """

    personas: PersonaLibrary
    tasks: TaskCoordinationService | None = None

    async def check_persona(
        self,
        wanted: str | None,
        peers: Callable[[], Iterable[PeerInfo]],
        agents: Callable[[], Iterable[AgentState]],
    ) -> None:
        """Refuse a task for a persona that neither this node nor a peer or agent knows, where any are defined.

        Args:
            wanted: what the task names.
            peers: tells those that the node knows.
            agents: tells those that are there.

        Raises:
            InvalidTask: names the personas that are known.
        """
        if wanted is not None and not self.personas.knows(wanted):
            elsewhere = {persona for peer in peers() for persona in acts_as(peer)}
            elsewhere.update(*(declared_by(state.agent.persona) for state in agents()))
            await self.personas.check(wanted, elsewhere)


def acts_as(peer: PeerInfo) -> tuple[str, ...]:
    """Return the personas that a peer acts as; none while it is away."""
    return peer.advert.personas if peer.connected and peer.advert is not None else ()


class TaskNumbers(ABC):
    """A store that numbers its tasks."""

    @abstractmethod
    async def number_of(self, task_id: TaskId) -> int | None:
        """Return the number of a task, greater than 0; None when it is not saved."""

    @abstractmethod
    async def numbers_of(self, task_ids: Sequence[TaskId]) -> dict[TaskId, int]:
        """Return the numbers of those of some tasks that are saved."""

    @abstractmethod
    async def task_of(self, number: int) -> TaskId | None:
        """Return which task has a number; None when none has."""
