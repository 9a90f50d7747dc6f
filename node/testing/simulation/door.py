"""The work door of a simulated node as its agents see it: programs of their own, which ask over a socket."""

from __future__ import annotations

from collections.abc import Sequence

from node.interfaces import Output
from node.testing.simulation.node import SimulatedNode
from node.work_service import Agent, AgentRegistration, AgentState, Claim, HeldTask, WorkService
from protocol import Failure, TaskId, TaskRecord


class DistantDoor(WorkService):
    """Asks the work door of whatever process the node has now, and tells the judge what it is told.

    Every method raises `NodeIsDown` when there is none that answers, or it ends before it does.

    Args:
        node: whose door it is.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._judge = node.world.judge

    async def register(self, registration: AgentRegistration) -> Agent:
        """Let an agent take part; see `WorkService.register`."""
        return await self._node.call(lambda work: work.register(registration))

    async def heartbeat(self, agent_id: str) -> AgentState:
        """Take a sign of life; see `WorkService.heartbeat`."""
        return await self._node.call(lambda work: work.heartbeat(agent_id))

    async def deregister(self, agent_id: str) -> None:
        """Let an agent go; see `WorkService.deregister`."""
        await self._node.call(lambda work: work.deregister(agent_id))

    def active_agents(self) -> Sequence[AgentState]:
        """Return the agents that are there; see `WorkService.active_agents`."""
        return self._node.running.work.active_agents()

    async def cleanup_expired(self) -> Sequence[Agent]:
        """Forget silent agents; see `WorkService.cleanup_expired`."""
        return await self._node.call(lambda work: work.cleanup_expired())

    async def claim(self, agent_id: str, wait_s: float = 0.0) -> Claim | None:
        """Claim the next task for an agent; see `WorkService.claim`."""
        claim = await self._node.call(lambda work: work.claim(agent_id, wait_s))
        if claim is not None:
            self._judge.claims(self._node.peer_id, agent_id, claim)
        return claim

    async def claim_task(self, agent_id: str, task_id: TaskId) -> Claim:
        """Claim a given task; see `WorkService.claim_task`."""
        claim = await self._node.call(lambda work: work.claim_task(agent_id, task_id))
        self._judge.claims(self._node.peer_id, agent_id, claim)
        return claim

    def waiting(
        self, agent_id: str | None = None, *, kind: str | None = None, persona: str | None = None, limit: int = 100
    ) -> list[TaskRecord]:
        """Return what waits for a worker; see `WorkService.waiting`."""
        return self._node.running.work.waiting(agent_id, kind=kind, persona=persona, limit=limit)

    async def start(self, agent_id: str, task_id: TaskId, attempt: int) -> HeldTask:
        """Tell that the work has begun; see `WorkService.start`."""
        return await self._node.call(lambda work: work.start(agent_id, task_id, attempt))

    async def progress(
        self, agent_id: str, task_id: TaskId, attempt: int, fraction: float, message: str = ""
    ) -> HeldTask:
        """Tell how far the work is; see `WorkService.progress`."""
        return await self._node.call(lambda work: work.progress(agent_id, task_id, attempt, fraction, message))

    async def complete(self, agent_id: str, task_id: TaskId, attempt: int, output: Output) -> TaskRecord:
        """Deliver a result; see `WorkService.complete`."""
        self._judge.delivers(agent_id, task_id, attempt, output.text)
        record = await self._node.call(lambda work: work.complete(agent_id, task_id, attempt, output))
        self._judge.confirms(self._node.peer_id, agent_id, task_id, output.text)
        return record

    async def fail(self, agent_id: str, task_id: TaskId, attempt: int, failure: Failure) -> TaskRecord:
        """Tell that the work failed; see `WorkService.fail`."""
        return await self._node.call(lambda work: work.fail(agent_id, task_id, attempt, failure))

    async def release(self, agent_id: str, task_id: TaskId, attempt: int, message: str = "") -> TaskRecord:
        """Give a task back; see `WorkService.release`."""
        return await self._node.call(lambda work: work.release(agent_id, task_id, attempt, message))
