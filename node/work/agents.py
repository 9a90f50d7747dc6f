"""Who has registered as an agent, and when it was heard of last."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import structlog

from node.interfaces import Clock
from node.work_service import Agent, AgentRegistration, AgentStore
from protocol import ErrorCode, PeertaskError

log = structlog.get_logger(__name__)

# A thousand programs on one machine are a mistake in a loop, not a plan.
MAX_AGENTS: Final = 1_000
# A heartbeat is kept in memory; a store hears of it so many times a lease, which is exact enough for whoever looks
# there.
SAVES_A_LEASE: Final = 3


class AgentRegistry:
    """The agents of a node.

    Args:
        store: keeps them beyond this process.
        clock: tells the time.
        lease_ms: after how much silence an agent counts as gone, in milliseconds.
        changed: called when the kinds that agents do may have changed; must be quick and not raise.

    Attributes:
        agents: those that have registered, by id, in the order of their registration; read only.
    """

    def __init__(
        self, store: AgentStore, clock: Clock, lease_ms: int, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_ms = lease_ms
        self._changed = changed
        self._agents: dict[str, Agent] = {}
        self._saved_at: dict[str, int] = {}
        self.agents: Mapping[str, Agent] = MappingProxyType(self._agents)

    async def load(self) -> None:
        """Begin with the agents of the store; each has a whole lease to give a sign of life."""
        now = self._clock.now()
        for agent in await self._store.agents():
            self._put(replace(agent, heard_at=now))

    async def add(self, registration: AgentRegistration) -> Agent:
        """Take an agent in, instead of a former one with its id."""
        now = self._clock.now()
        agent = Agent(
            id=registration.id or f"agent-{uuid.uuid4()}",
            kinds=tuple(sorted(set(registration.kinds))),
            persona=registration.persona,
            registered_at=now,
            heard_at=now,
        )
        await self._store.save_agent(agent)
        self._agents.pop(agent.id, None)
        self._put(agent)
        return agent

    def _put(self, agent: Agent) -> None:
        self._agents[agent.id] = agent
        self._saved_at[agent.id] = self._clock.now()
        self._changed()

    async def remove(self, agent_id: str) -> None:
        """Let an agent go, if it is there."""
        if self._agents.pop(agent_id, None) is not None:
            del self._saved_at[agent_id]
            self._changed()
            await self._store.remove_agent(agent_id)

    def see(self, agent_id: str) -> Agent:
        """Take a sign of life, and return who gave it.

        Raises:
            PeertaskError: code NOT_FOUND, when the agent has not registered, or is forgotten.
        """
        known = self._agents.get(agent_id)
        if known is None:
            raise PeertaskError(
                f"no agent {agent_id} has registered here, or it was silent for more than {self._lease_ms} ms",
                code=ErrorCode.NOT_FOUND,
                remedy="Register, and claim tasks anew",
            )
        agent = self._agents[agent_id] = replace(known, heard_at=self._clock.now())
        return agent

    async def save_beat(self, agent: Agent) -> None:
        """Let the store know of a sign of life, unless it has heard of one lately.

        A store that fails costs no agent its lease: it only says less exactly when the agent was heard of.
        """
        if agent.heard_at - self._saved_at[agent.id] < self._lease_ms // SAVES_A_LEASE:
            return
        self._saved_at[agent.id] = agent.heard_at
        try:
            await self._store.save_agent(agent)
        except PeertaskError as error:
            log.warning("a sign of life is not saved", agent_id=agent.id, reason=str(error))

    def lapses_at(self, agent: Agent) -> int:
        """Return when an agent counts as gone unless it gives a sign of life, in milliseconds since the epoch."""
        return agent.heard_at + self._lease_ms
