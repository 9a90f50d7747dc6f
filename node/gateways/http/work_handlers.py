"""Requests of outside workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node.gateways.http.gateway import Call, Gateway, Reply
from node.gateways.http.limits import SAVE_PATIENCE_S
from node.gateways.http.response_models import TaskView
from node.gateways.http.work_models import AgentList, AgentView, ClaimView, HeldTaskView
from node.gateways.waiting import done_and_saved, not_saved
from node.interfaces import Output
from node.work_service import AgentRegistration, Claim
from protocol import PeertaskError, TaskRecord, parse_task_id

_NO_CONTENT = 204


async def register(gateway: Gateway, call: Call) -> Reply:
    """Let an agent take part."""
    body = call.body
    registration = AgentRegistration(id=body.id, kinds=body.kinds, persona=body.persona)
    agent = await done_and_saved(gateway.work.register(registration))
    return Reply(AgentView.of(await gateway.work.heartbeat(agent.id)))


async def list_agents(gateway: Gateway, _call: Call) -> Reply:
    """Return the agents that are there."""
    return Reply(AgentList.of(gateway.work.active_agents()))


async def heartbeat(gateway: Gateway, call: Call) -> Reply:
    """Take a sign of life."""
    return Reply(AgentView.of(await gateway.work.heartbeat(_agent(call))))


async def deregister(gateway: Gateway, call: Call) -> Reply:
    """Let an agent go."""
    await done_and_saved(gateway.work.deregister(_agent(call)))
    return Reply(None, _NO_CONTENT)


async def claim(gateway: Gateway, call: Call) -> Reply:
    """Claim a task, and wait for one when asked to."""

    async def work() -> Claim | None:
        with gateway.stopping.ends(), trio.move_on_after(call.query.wait + SAVE_PATIENCE_S) as patience:
            if call.query.task is not None:
                return await gateway.work.claim_task(_agent(call), parse_task_id(call.query.task))
            return await gateway.work.claim(_agent(call), call.query.wait)
        if patience.cancelled_caught:
            raise not_saved()
        return None

    claimed = await _for_client(call, work)
    return Reply(None, _NO_CONTENT) if claimed is None else Reply(ClaimView.of(claimed))


async def start(gateway: Gateway, call: Call) -> Reply:
    """Tell that the work has begun."""
    held = await done_and_saved(gateway.work.start(_agent(call), call.task_id, call.body.attempt))
    return Reply(HeldTaskView.of(held))


async def progress(gateway: Gateway, call: Call) -> Reply:
    """Tell how far the work is."""
    body = call.body
    work = gateway.work.progress(_agent(call), call.task_id, body.attempt, body.fraction, body.message)
    held = await done_and_saved(work)
    return Reply(HeldTaskView.of(held))


async def complete(gateway: Gateway, call: Call) -> Reply:
    """Deliver a result."""
    body = call.body
    output = Output(body.result, body.artifacts)
    return await _ended(gateway.work.complete(_agent(call), call.task_id, body.attempt, output))


async def fail(gateway: Gateway, call: Call) -> Reply:
    """Tell that the work failed."""
    body = call.body
    return await _ended(gateway.work.fail(_agent(call), call.task_id, body.attempt, body.failure()))


async def release(gateway: Gateway, call: Call) -> Reply:
    """Give a task back."""
    body = call.body
    return await _ended(gateway.work.release(_agent(call), call.task_id, body.attempt, body.message))


def _agent(call: Call) -> str:
    return call.path["agent_id"]


async def _ended(work: Awaitable[TaskRecord]) -> Reply:
    return Reply(TaskView.of(await done_and_saved(work)))


async def _for_client(call: Call, work: Callable[[], Awaitable[Claim | None]]) -> Claim | None:
    """Do something for a client, and stop when the client goes: a task must not be given to nobody."""
    claimed: Claim | None = None
    refused: PeertaskError | None = None
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await call.gone()
            nursery.cancel_scope.cancel()

        nursery.start_soon(leave)
        try:
            claimed = await work()
        except PeertaskError as error:
            refused = error
        nursery.cancel_scope.cancel()
    if refused is not None:
        raise refused
    return claimed
