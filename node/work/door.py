"""The door of all outside workers: agents come in, take tasks, report and deliver.

It keeps nothing that the records, the registry and the offers do not say. What is said about a task goes to the attempt
that the dispatcher runs for it, and is judged there as what an executor of the node says; so there is one plan, one
retry policy and one fence for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import structlog
import trio

from node.coordination.leases import refusal
from node.coordination.personas import declared_by, fits
from node.coordination.quotas import RETRY_AFTER_MS
from node.interfaces import Clock, Delegation, Output, TaskService
from node.work.agents import MAX_AGENTS, AgentRegistry
from node.work.offers import Offer, Offers
from node.work_service import (
    WORKER_FAILURES,
    Agent,
    AgentRegistration,
    AgentState,
    Assigner,
    Claim,
    HeldTask,
    WorkService,
)
from protocol import (
    MAX_IN_FLIGHT,
    ErrorCode,
    Failure,
    InvalidTask,
    PeerId,
    PeertaskError,
    TaskFailed,
    TaskId,
    TaskRecord,
    TaskRejected,
    TaskResult,
    TaskStatus,
)

log = structlog.get_logger(__name__)

# As many as a peer may have open at once.
MAX_HELD: Final = MAX_IN_FLIGHT


class WorkDoor(WorkService):
    """Lets outside workers work on the tasks of a node.

    Args:
        service: the tasks.
        registry: the agents.
        offers: what they ask for, and have; the dispatcher has the same.
        assigner: gives them tasks: the dispatcher.
        clock: tells the time.
        own_id: this node, whose id no agent may have.
        lease_ms: the length of a lease, in milliseconds.
        note: told, by name and fields, of agents that come and go; for the audit log.
    """

    def __init__(
        self,
        service: TaskService,
        registry: AgentRegistry,
        offers: Offers,
        assigner: Assigner,
        clock: Clock,
        *,
        own_id: PeerId,
        lease_ms: int,
        note: Callable[..., None] = lambda _fact, **_fields: None,
    ) -> None:
        self._service = service
        self._registry = registry
        self._offers = offers
        self._assigner = assigner
        self._clock = clock
        self._own_id = own_id
        self._lease_ms = lease_ms
        self._note = note

    # --- agents ------------------------------------------------------------------------------------------------------

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that the agents do which have registered."""
        return frozenset(kind for agent in self._registry.agents.values() for kind in agent.kinds)

    def personas(self, kind: str | None = None) -> frozenset[str]:
        """Return whom the agents act as which have registered: all of them, or those that do a kind."""
        agents = self._registry.agents.values()
        return frozenset().union(*(declared_by(one.persona) for one in agents if kind is None or kind in one.kinds))

    async def register(self, registration: AgentRegistration) -> Agent:
        """Let an agent take part; see `WorkService.register`."""
        agent_id = registration.id or ""
        if agent_id == self._own_id:
            raise TaskRejected(f"{agent_id} is this node itself", code=ErrorCode.CONFLICT, remedy="Choose another id")
        former = agent_id in self._registry.agents
        if not former and len(self._registry.agents) >= MAX_AGENTS and not await self.cleanup_expired():
            raise TaskRejected(
                f"{MAX_AGENTS} agents have registered, and no more are taken",
                code=ErrorCode.BUSY,
                remedy="Register once for each worker, and deregister at its end",
                retry_after_ms=self._lease_ms,
            )
        agent = await self._registry.add(registration)
        if former:
            await self._saved_all(self._take_back(agent_id, "its agent has begun anew", ErrorCode.LEASE_LOST))
        self._note("AgentRegistered", agent_id=agent.id, kinds=list(agent.kinds), persona=agent.persona)
        log.info("agent registered", agent_id=agent.id, kinds=agent.kinds, persona=agent.persona)
        return agent

    async def heartbeat(self, agent_id: str) -> AgentState:
        """Take a sign of life; see `WorkService.heartbeat`."""
        agent = self._registry.see(agent_id)
        await self._registry.save_beat(agent)
        return self._state(agent)

    async def deregister(self, agent_id: str) -> None:
        """Let an agent go; see `WorkService.deregister`."""
        self._registry.see(agent_id)
        await self._remove(agent_id, "its agent has left", ErrorCode.DRAINING)
        self._note("AgentLeft", agent_id=agent_id)
        log.info("agent left", agent_id=agent_id)

    def active_agents(self) -> Sequence[AgentState]:
        """Return the agents that are there; see `WorkService.active_agents`."""
        return [self._state(agent) for agent in self._registry.agents.values() if not self._is_expired(agent)]

    async def cleanup_expired(self) -> Sequence[Agent]:
        """Forget silent agents; see `WorkService.cleanup_expired`."""
        removed: list[Agent] = []
        for agent in [agent for agent in self._registry.agents.values() if self._is_expired(agent)]:
            if self._registry.agents.get(agent.id) is agent:  # it may have come back while another one was removed
                await self._remove(agent.id, "its agent gave no sign of life", ErrorCode.LEASE_LOST)
                self._note("AgentLapsed", agent_id=agent.id, heard_at=agent.heard_at)
                log.warning("agent was silent for too long", agent_id=agent.id, heard_at=agent.heard_at)
                removed.append(agent)
        return removed

    def _is_expired(self, agent: Agent) -> bool:
        return self._registry.lapses_at(agent) <= self._clock.now() and not self._offers.is_waiting(agent.id)

    async def _remove(self, agent_id: str, reason: str, code: ErrorCode) -> None:
        """Let an agent go, and return when what it had is released, and all of it saved."""
        released = self._take_back(agent_id, reason, code)
        await self._registry.remove(agent_id)  # forgets it before anything else can happen, so that it claims no more
        await self._saved_all(released)

    def _take_back(self, agent_id: str, reason: str, code: ErrorCode) -> list[TaskRecord]:
        """Take everything from an agent, and return the records of what it had."""
        self._offers.dismiss(agent_id)
        held = self._offers.held_by(agent_id)
        for delegation in held:
            self._offers.forget(delegation)
            delegation.finish(PeertaskError(reason, code=code))
        return [self._service.latest(delegation.task.id) for delegation in held]

    async def _saved_all(self, records: Sequence[TaskRecord]) -> None:
        for record in records:
            await self._saved(record)

    def _state(self, agent: Agent) -> AgentState:
        held = [self._held_task(delegation) for delegation in self._offers.held_by(agent.id)]
        return AgentState(agent=agent, lapses_at=self._registry.lapses_at(agent), tasks=tuple(held))

    def _held_task(self, delegation: Delegation) -> HeldTask:
        record = self._service.latest(delegation.task.id)
        return HeldTask(
            task_id=record.id,
            attempt=delegation.attempt,
            status=record.status,
            progress=record.progress,
            stop=record.terminal or record.status is TaskStatus.CANCELLING,
        )

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def claim(self, agent_id: str, wait_s: float = 0.0) -> Claim | None:
        """Claim the next task; see `WorkService.claim`."""
        agent = self._admit(agent_id)
        offer = self._offers.make(agent)
        return await self._answer(offer, self._assigner.plan_now, wait_s)

    async def claim_task(self, agent_id: str, task_id: TaskId) -> Claim:
        """Claim a given task; see `WorkService.claim_task`."""
        agent = self._admit(agent_id)
        reason = self._why_not(agent, self._service.latest(task_id))
        if reason:
            raise TaskRejected(
                f"agent {agent_id} may not claim task {task_id}: {reason}",
                remedy="Register with the kinds and the persona of the tasks that you want",
            )
        offer = self._offers.make(agent, task_id)
        claim = await self._answer(offer, lambda: self._assigner.claim_for(offer.worker, task_id), 0.0)
        if claim is None:
            raise _not_waiting(self._service.latest(task_id), self._clock.now())
        return claim

    def _admit(self, agent_id: str) -> Agent:
        agent = self._registry.see(agent_id)
        held = len(self._offers.held_by(agent_id))
        if held >= MAX_HELD:
            raise TaskRejected(
                f"agent {agent_id} has {held} tasks, and {MAX_HELD} is the limit",
                code=ErrorCode.BUSY,
                remedy="End some of them first",
                retry_after_ms=RETRY_AFTER_MS,
            )
        return agent

    def _why_not(self, agent: Agent, record: TaskRecord) -> str:
        """Return why an agent may not have a task; empty when it may."""
        task = record.task
        if task.kind not in agent.kinds:
            return f"its kind is {task.kind}, and the agent does {', '.join(agent.kinds)}"
        if not fits(task.persona, declared_by(agent.persona)):
            return f"it is for the persona {task.persona}, and the agent acts as {agent.persona or 'none'}"
        return "" if record.target in {None, self._own_id} else f"it was asked of {record.target}"

    async def _answer(self, offer: Offer, assign: Callable[[], object], wait_s: float) -> Claim | None:
        """Have a task assigned, and return it when that is saved; what is not returned is given back."""
        told = False
        try:
            assign()
            with trio.move_on_after(wait_s):
                await offer.answered.wait()
            given = offer.delegation
            record = None if given is None else await self._saved(self._service.latest(given.task.id))
            self._registry.see(offer.agent_id)  # it may have left while it waited, or while its claim was saved
            if given is None or record is None or not self._offers.has(given):
                return None
            told = True
            return Claim(
                record=record, attempt=given.attempt, lease_ms=self._lease_ms, remaining_ms=given.remaining_ms()
            )
        finally:
            self._offers.withdraw(offer)
            if offer.delegation is not None and not told:
                self._offers.give_back(offer.delegation, f"agent {offer.agent_id} did not take the task")

    def waiting(
        self, agent_id: str | None = None, *, kind: str | None = None, persona: str | None = None, limit: int = 100
    ) -> list[TaskRecord]:
        """Return what waits for a worker; see `WorkService.waiting`."""
        agent = None if agent_id is None else self._registry.see(agent_id)
        acts_as = None if persona is None else (persona,)
        fitting = (
            record
            for record in self._assigner.waiting_tasks()
            if (kind is None or record.task.kind == kind)
            and fits(record.task.persona, acts_as)
            and (agent is None or not self._why_not(agent, record))
        )
        return list(islice(fitting, limit))

    # --- working -----------------------------------------------------------------------------------------------------

    async def start(self, agent_id: str, task_id: TaskId, attempt: int) -> HeldTask:
        """Tell that the work has begun; see `WorkService.start`."""
        delegation = await self._held(agent_id, task_id, attempt)
        delegation.started()
        await trio.lowlevel.checkpoint()
        return self._held_task(delegation)

    async def progress(
        self, agent_id: str, task_id: TaskId, attempt: int, fraction: float, message: str = ""
    ) -> HeldTask:
        """Tell how far the work is; see `WorkService.progress`."""
        if not 0.0 <= fraction <= 1.0:
            raise PeertaskError(
                f"the progress of task {task_id} is {fraction}, but must be between 0 and 1", code=ErrorCode.PROTOCOL
            )
        delegation = await self._held(agent_id, task_id, attempt)
        delegation.started()
        delegation.progress(fraction, message)
        await trio.lowlevel.checkpoint()
        return self._held_task(delegation)

    async def complete(self, agent_id: str, task_id: TaskId, attempt: int, output: Output) -> TaskRecord:
        """Deliver a result; see `WorkService.complete`."""
        _check_output(task_id, output)
        record = self._service.latest(task_id)
        if not _is_repeated(record, agent_id, attempt, output):
            record = await self._finish(agent_id, task_id, attempt, output)
            if record.result is None or record.attempt != attempt:
                raise refusal(await self._saved(record), agent_id, attempt)
        return await self._saved(record)

    async def fail(self, agent_id: str, task_id: TaskId, attempt: int, failure: Failure) -> TaskRecord:
        """Tell that the work failed; see `WorkService.fail`."""
        if failure.code not in WORKER_FAILURES:
            raise PeertaskError(
                f"a worker cannot fail a task with {failure.code}",
                code=ErrorCode.PROTOCOL,
                remedy=f"Use one of {', '.join(sorted(WORKER_FAILURES))}, or give the task back",
            )
        return await self._saved(await self._finish(agent_id, task_id, attempt, TaskFailed(failure)))

    async def release(self, agent_id: str, task_id: TaskId, attempt: int, message: str = "") -> TaskRecord:
        """Give a task back; see `WorkService.release`."""
        reason = message or f"agent {agent_id} gave the task back"
        return await self._saved(
            await self._finish(agent_id, task_id, attempt, PeertaskError(reason, code=ErrorCode.DRAINING))
        )

    async def _held(self, agent_id: str, task_id: TaskId, attempt: int) -> Delegation:
        """Return what the dispatcher runs for a claim, and take this as a sign of life.

        That a claim is over is told when that is saved: else, after a crash, the node would hold the agent for the one
        that has the task, and take its signs of life for work.
        """
        delegation = self._offers.held.get(task_id)
        if delegation is None or (delegation.holder, delegation.attempt) != (agent_id, attempt):
            raise refusal(await self._saved(self._service.latest(task_id)), agent_id, attempt)
        self._registry.see(agent_id)
        return delegation

    async def _finish(
        self, agent_id: str, task_id: TaskId, attempt: int, outcome: Output | PeertaskError
    ) -> TaskRecord:
        delegation = await self._held(agent_id, task_id, attempt)
        self._offers.forget(delegation)
        delegation.finish(outcome)
        return self._service.latest(task_id)

    async def _saved(self, record: TaskRecord) -> TaskRecord:
        """Return a record once the fact that made it is saved."""
        async with self._service.watch(record.id, record.seq - 1) as changes:
            async for _ in changes:
                break
        return record


def _check_output(task_id: TaskId, output: Output) -> None:
    shape = {"task_id": task_id, "result": output.text, "duration_ms": 0, "artifacts": output.artifacts}
    try:
        TaskResult.from_dict(shape)
    except InvalidTask as error:
        raise InvalidTask(f"what was delivered for task {task_id} cannot be a result: {error.message}") from None


def _is_repeated(record: TaskRecord, agent_id: str, attempt: int, output: Output) -> bool:
    """Whether this very result of this very attempt is recorded already."""
    result = record.result
    return (
        result is not None
        and (record.holder, record.attempt) == (agent_id, attempt)
        and (result.result, result.artifacts) == (output.text, output.artifacts)
    )


def _not_waiting(record: TaskRecord, now: int) -> PeertaskError:
    if record.not_before > now:
        why = f"its next attempt is due in {record.not_before - now} ms"
    elif record.status is TaskStatus.PENDING:
        why = "it waits for something else"
    else:
        why = f"it is {record.status}" + (f", by {record.holder}" if record.holder else "")
    return TaskRejected(
        f"task {record.id} cannot be claimed: {why}", code=ErrorCode.CONFLICT, remedy="Claim another task"
    )
