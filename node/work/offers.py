"""Agents that ask for tasks, and the tasks that they have, as the dispatcher sees them.

An agent is never called: it asks. While it waits for an answer it is a worker with one free slot, which the plan fills
like any other; so what it gets, and when, follows the same turns and priorities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import trio

from node.coordination.personas import declared_by
from node.coordination.roster import Worker
from node.interfaces import Delegate, Delegation
from node.work_service import Agent
from protocol import ErrorCode, PeerId, PeertaskError, TaskId, TaskRecord

_NOBODY: Final[Mapping[str, Agent]] = MappingProxyType({})


class Offer:
    """One request for a task.

    Attributes:
        agent_id: who asks.
        wanted: which task, when only one will do; the plan does not look at such a request.
        worker: the slot that is free until the request is answered.
        delegation: what was given; None so far.
        answered: set when a task was given, or none ever will be.
    """

    __slots__ = ("agent_id", "answered", "delegation", "wanted", "worker")

    def __init__(self, agent: Agent, wanted: TaskId | None = None) -> None:
        self.agent_id = agent.id
        self.wanted = wanted
        self.worker = _worker(agent.id, frozenset(agent.kinds), agent.persona)
        self.delegation: Delegation | None = None
        self.answered = trio.Event()


class Offers(Delegate):
    """What agents ask for, and what they have.

    Args:
        agents: those that have registered, by id; may change.

    Attributes:
        held: the tasks that agents have.
    """

    def __init__(self, agents: Mapping[str, Agent] = _NOBODY) -> None:
        self._agents = agents
        self._waiting: list[Offer] = []
        self.held: dict[TaskId, Delegation] = {}

    # --- what the door does ------------------------------------------------------------------------------------------

    def make(self, agent: Agent, wanted: TaskId | None = None) -> Offer:
        """Let an agent wait for a task, or for that one and no other, until `withdraw`."""
        offer = Offer(agent, wanted)
        self._waiting.append(offer)
        return offer

    def withdraw(self, offer: Offer) -> None:
        """Let an agent wait no more; without effect when its offer was answered."""
        offer.worker.slots = 0  # also for a roster that was made before
        if offer in self._waiting:
            self._waiting.remove(offer)

    def dismiss(self, agent_id: str) -> None:
        """Answer all that an agent has asked for with nothing."""
        for offer in [offer for offer in self._waiting if offer.agent_id == agent_id]:
            self.withdraw(offer)
            offer.answered.set()

    def is_waiting(self, agent_id: str) -> bool:
        """Whether an agent waits for a task now."""
        return any(offer.agent_id == agent_id for offer in self._waiting)

    def held_by(self, agent_id: str) -> list[Delegation]:
        """Return what an agent has."""
        return [delegation for delegation in self.held.values() if delegation.holder == agent_id]

    # --- what the dispatcher does ------------------------------------------------------------------------------------

    def knows(self, holder: str | None) -> bool:
        """Whether the holder of a task is an agent."""
        return holder in self._agents

    def keeps(self, record: TaskRecord) -> bool:
        """Whether a task that is not at rest is an agent's since an earlier process of the node.

        An agent that has registered since has begun anew, and has nothing, even if the release was lost in a crash.
        """
        agent = self._agents.get(str(record.holder))
        return agent is not None and agent.registered_at <= record.updated_at

    def workers(self) -> Iterator[Worker]:
        """Yield a worker for each request that any task answers."""
        return (offer.worker for offer in self._waiting if offer.wanted is None)

    def idle(self) -> Iterator[Worker]:
        """Yield a worker that takes nothing for each agent that does not ask for any task now."""
        asking = {offer.agent_id for offer in self._waiting if offer.wanted is None}
        for agent in self._agents.values():
            if agent.id not in asking:
                worker = _worker(agent.id, frozenset(agent.kinds), agent.persona)
                worker.slots = 0
                yield worker

    def worker_of(self, record: TaskRecord) -> Worker:
        """Return the worker that has a task since an earlier process of the node."""
        worker = _worker(str(record.holder), frozenset({record.task.kind}), record.task.persona)
        worker.busy, worker.slots = 1, 0
        return worker

    def begin(self, delegation: Delegation) -> None:
        """Answer the request that a task was assigned to; without one, as after a restart, the agent has it already."""
        self.held[delegation.task.id] = delegation
        for offer in self._waiting:
            if offer.agent_id == delegation.holder and offer.worker.busy:
                self.withdraw(offer)
                offer.delegation = delegation
                offer.answered.set()
                return

    def stop(self, delegation: Delegation) -> None:
        """Leave it to the record, which says that the task is being cancelled: an agent hears it when it asks."""

    def abandon(self, task_id: TaskId, holder: PeerId) -> None:
        """Leave it to the attempt: a former holder hears that it is over when it asks."""

    def has(self, delegation: Delegation) -> bool:
        """Whether an agent still has what it was given: it may be somebody else's by now."""
        return self.held.get(delegation.task.id) is delegation

    def forget(self, delegation: Delegation) -> None:
        """Take a task from an agent, unless somebody else has it by now."""
        if self.has(delegation):
            del self.held[delegation.task.id]

    def seen_at(self, delegation: Delegation) -> int | None:
        """Return when the holder gave its last sign of life; an agent that waits for a task is there."""
        agent = self._agents.get(delegation.holder)
        if agent is None:
            return 0
        return None if self.is_waiting(agent.id) else agent.heard_at

    def give_back(self, delegation: Delegation, reason: str) -> None:
        """Release a task that its agent gives up; it is neither a failure nor a lost lease."""
        self.forget(delegation)
        delegation.finish(PeertaskError(reason, code=ErrorCode.DRAINING))


def _worker(agent_id: str, kinds: frozenset[str], persona: str | None) -> Worker:
    return Worker(PeerId(agent_id), kinds, 1, agent=True, personas=declared_by(persona))
