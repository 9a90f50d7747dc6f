"""What every door of outside workers must do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing

from node.interfaces import TaskService
from node.testing.agent_session import FakeAgentSession
from node.testing.clocks import START_MS
from node.testing.contract import promise
from node.testing.executions import make_task
from node.work_service import Claim, WorkService
from protocol import ErrorCode, PeerId, PeertaskError, RetryPolicy, TaskId, TaskRecord, TaskStatus

# Nothing here takes a second; a busy machine takes its time.
CHECK_LIMIT_S = 30.0
# The kind that the checker's agents do; the node must have no executor for it.
KIND = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSetting:
    """A node that runs, as the checker needs it.

    Attributes:
        work: the door that is checked.
        tasks: the tasks behind it.
        own_id: the node.
        lease_ms: the length of a lease, in milliseconds.
        pass_time: lets so many milliseconds pass for the node, and returns when it has acted on that.
    """

    work: WorkService
    tasks: TaskService
    own_id: PeerId
    lease_ms: int
    pass_time: Callable[[int], Awaitable[None]]

    async def submit(self, prompt: str = "a prompt", target: PeerId | None = None, **fields: Any) -> TaskId:
        """Take a task for agents in, and return when it is saved."""
        task = make_task(prompt, **{"kind": KIND, "sender": self.own_id, "timestamp": START_MS, **fields})
        self.tasks.submit(task, requester=self.own_id, target=target)
        async with self.tasks.watch(task.id) as changes:
            async for _ in changes:
                break
        return task.id

    def record(self, task_id: TaskId) -> TaskRecord:
        """Return what is known of a task."""
        return self.tasks.latest(task_id)


MakeSetting = Callable[[], AbstractAsyncContextManager[WorkSetting]]


async def check_work_service(make_setting: MakeSetting) -> None:
    """Check that a door keeps the contract of `WorkService`.

    Args:
        make_setting: makes a node with no task and no executor for the kind ``agent``, a fresh one each time.

    Raises:
        ContractViolation: names the promise that is broken.
        trio.TooSlowError: what was to happen did not within 30 s.
    """
    for check in (
        _check_agents,
        _check_silent_agents,
        _check_life,
        _check_order,
        _check_waiting,
        _check_one_winner,
        _check_refused_claims,
        _check_lost_lease,
        _check_renewal,
        _check_fence,
        _check_repetition,
        _check_progress,
        _check_cancel,
        _check_failure,
        _check_release,
    ):
        with trio.fail_after(CHECK_LIMIT_S):
            async with make_setting() as setting:
                await check(setting)


async def _check_agents(at: WorkSetting) -> None:
    async with FakeAgentSession(at.work, (KIND, "other"), agent_id="one", persona="writer") as one:
        async with FakeAgentSession(at.work) as two:
            states = at.work.active_agents()
            promise([state.agent.id for state in states] == ["one", two.agent_id], "agents are listed as they come")
            promise(states[0].agent.kinds == (KIND, "other"), "an agent has the kinds that it named, sorted")
            promise(states[0].agent.persona == "writer", "an agent has the persona that it named")
            promise(bool(two.agent_id), "an agent without an id gets one")
            promise((await one.beat()).agent.id == "one", "a heartbeat is answered with the agent")
        promise([state.agent.id for state in at.work.active_agents()] == ["one"], "an agent that left is not listed")
        await _refused(two.beat(), ErrorCode.NOT_FOUND, "the heartbeat of an agent that left is refused")
        await _refused(two.claim(), ErrorCode.NOT_FOUND, "an agent that left claims nothing")
    await _refused(at.work.deregister("nobody"), ErrorCode.NOT_FOUND, "nobody leaves who was not there")
    async with FakeAgentSession(at.work, agent_id="again") as again:
        task_id = await at.submit()
        await again.claim()
        await again.register()
        record = at.record(task_id)
        promise(record.status is TaskStatus.PENDING, "what an agent held that begins anew is given to others")
        promise(record.lost_leases == 1, "and counts as a lost lease")


async def _check_silent_agents(at: WorkSetting) -> None:
    silent, lively = FakeAgentSession(at.work), FakeAgentSession(at.work)
    await silent.register()
    await lively.register()
    task_id = await at.submit()
    await silent.claim()
    await silent.start()
    await at.pass_time(at.lease_ms // 2)
    await lively.beat()
    await at.pass_time(at.lease_ms // 2 + 1)
    promise(
        [state.agent.id for state in at.work.active_agents()] == [lively.agent_id],
        "an agent that was silent for a lease is not active, and one that beats is",
    )
    expired = await at.work.cleanup_expired()
    promise([agent.id for agent in expired] == [silent.agent_id], "cleanup_expired forgets the silent agents")
    promise(at.record(task_id).status is TaskStatus.PENDING, "what a silent agent held is released")
    await _refused(silent.beat(), ErrorCode.NOT_FOUND, "an agent that was forgotten registers again")
    promise(not await at.work.cleanup_expired(), "an agent is forgotten once")


async def _check_life(at: WorkSetting) -> None:
    async with FakeAgentSession(at.work) as agent:
        promise(await agent.claim() is None, "without a task there is no claim")
        task_id = await at.submit("think")
        claim = await agent.claim()
        promise(claim is not None and claim.record.task.prompt == "think", "a claim brings the task")
        promise((await agent.beat()).tasks[0].task_id == task_id, "a heartbeat is answered with what the agent has")
        promise((await agent.start()).status is TaskStatus.EXECUTING, "a task that was started is executing")
        promise((await agent.start()).status is TaskStatus.EXECUTING, "a task may be started twice")
        promise((await agent.report(0.5, "half")).progress == 0.5, "progress is recorded")  # noqa: PLR2004 - as reported
        record = await agent.complete("thought")
        promise(record.status is TaskStatus.COMPLETE, "a task that was delivered is complete")
        promise(record.result is not None and record.result.result == "thought", "with its result")
        promise((record.holder, record.attempt) == (agent.agent_id, 1), "by whom, and at which attempt, is recorded")
        saved = at.tasks.find_task(task_id)
        promise(saved is not None and saved.status is TaskStatus.COMPLETE, "what is answered is saved")
        promise((await agent.beat()).tasks == (), "what has ended is not held")


async def _check_order(at: WorkSetting) -> None:
    low, high = await at.submit(priority=1), await at.submit(priority=9)
    promise([record.id for record in at.work.waiting()] == [high, low], "what waits is told by priority")
    async with FakeAgentSession(at.work) as agent:
        claims = [await agent.claim(), await agent.claim()]
        order = [claim.record.id for claim in claims if claim is not None]
        promise(order == [high, low], "the higher priority is claimed first")
        promise(at.work.waiting() == [], "what is claimed does not wait")
        promise(await agent.claim() is None, "a task is claimed once")


async def _check_waiting(at: WorkSetting) -> None:
    claims: list[Claim | None] = []
    async with FakeAgentSession(at.work) as agent, trio.open_nursery() as nursery:

        async def wait() -> None:
            claims.append(await agent.claim(wait_s=CHECK_LIMIT_S))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        task_id = await at.submit()
        while not claims:
            await trio.testing.wait_all_tasks_blocked()
        promise(claims[0] is not None and claims[0].record.id == task_id, "a claim that waits gets what comes")
        await agent.complete()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    task_id = await at.submit()
    await trio.testing.wait_all_tasks_blocked()
    promise(at.record(task_id).status is TaskStatus.PENDING, "nothing is given to a claim that was cancelled")


async def _check_one_winner(at: WorkSetting) -> None:
    agents = [FakeAgentSession(at.work) for _ in range(8)]
    task_id = await at.submit()
    won: list[str] = []
    refused: list[ErrorCode] = []

    async def race(agent: FakeAgentSession) -> None:
        await agent.register()
        try:
            await agent.claim_task(task_id)
            won.append(agent.agent_id)
        except PeertaskError as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for agent in agents:
            nursery.start_soon(race, agent)
    promise(len(won) == 1, "of several agents that claim one task exactly one gets it")
    promise(refused == [ErrorCode.CONFLICT] * 7, "the others are refused with CONFLICT")
    promise(at.record(task_id).holder == won[0], "the winner holds the task")


async def _check_refused_claims(at: WorkSetting) -> None:
    async with FakeAgentSession(at.work, persona="writer") as agent:
        forbidden = {
            "another kind": await at.submit(kind="secret"),
            "another persona": await at.submit(persona="painter"),
            "another node": await at.submit(target=PeerId("12D3KooWElsewhere")),
        }
        for what, task_id in forbidden.items():
            await _refused(agent.claim_task(task_id), ErrorCode.FORBIDDEN, f"a task of {what} is not the agent's")
            promise(task_id not in [record.id for record in at.work.waiting(agent.agent_id)], f"nor is it told: {what}")
        promise(await agent.claim() is None, "an agent gets nothing that is not for it")
        mine, anyones, own = await at.submit(persona="writer"), await at.submit(), await at.submit(target=at.own_id)
        claims = [await agent.claim() for _ in range(3)]
        got = {claim.record.id for claim in claims if claim is not None}
        promise(got == {mine, anyones, own}, "an agent gets what is for its persona, for anyone, and asked of the node")
        async with FakeAgentSession(at.work) as plain:
            named = await at.submit(persona="writer")
            why = "an agent without a persona only gets tasks that name none"
            await _refused(plain.claim_task(named), ErrorCode.FORBIDDEN, why)
            promise(await plain.claim() is None, why)
        unknown = make_task().id
        await _refused(agent.claim_task(unknown), ErrorCode.NOT_FOUND, "a task that nobody knows is not claimed")
        await _refused(agent.claim_task(mine), ErrorCode.CONFLICT, "a task that is claimed is not claimed again")


async def _check_lost_lease(at: WorkSetting) -> None:
    task_id = await at.submit()
    sleeper, other = FakeAgentSession(at.work), FakeAgentSession(at.work)
    await sleeper.register()
    await sleeper.claim()
    await sleeper.start()
    await at.pass_time(2 * at.lease_ms)
    record = at.record(task_id)
    promise(record.status is TaskStatus.PENDING, "a task is taken from an agent that never beats")
    promise((record.lost_leases, record.failures) == (1, 0), "a lost lease is counted, and is not a failure")
    await other.register()
    promise((await other.claim_task(task_id)).attempt == 2, "the next claim is the next attempt")  # noqa: PLR2004 - two
    promise((await other.complete()).status is TaskStatus.COMPLETE, "somebody else does the task")


async def _check_renewal(at: WorkSetting) -> None:
    started, claimed = await at.submit(priority=9), await at.submit()
    async with FakeAgentSession(at.work) as agent:
        await agent.start(await agent.claim())
        await agent.claim()
        for _ in range(5):
            await at.pass_time(at.lease_ms // 2)
            await agent.beat()
        promise(at.record(started).status is TaskStatus.EXECUTING, "heartbeats renew what was started")
        promise(at.record(claimed).lost_leases == 1, "a claim that is never started is not renewed: nobody may have it")
        for _ in range(4):
            await at.pass_time(at.lease_ms // 2)
            await agent.report(0.1, claim=agent.claims[started])
        promise(at.record(started).status is TaskStatus.EXECUTING, "progress renews the lease")


async def _check_fence(at: WorkSetting) -> None:
    task_id = await at.submit()
    async with FakeAgentSession(at.work) as paused, FakeAgentSession(at.work) as other:
        stale = await paused.claim()
        await paused.start()
        await at.pass_time(2 * at.lease_ms)
        await paused.register()
        await other.register()
        for holder in ("nobody", "somebody else"):
            if holder == "somebody else":
                await other.claim_task(task_id)
            before = at.record(task_id)
            for say in (paused.complete, paused.fail, paused.give_back):
                await _refused(say(claim=stale), ErrorCode.STALE_ATTEMPT, f"a paused worker is late: {holder} has it")
            await _refused(paused.start(stale), ErrorCode.STALE_ATTEMPT, "a stale attempt does not start")
            await _refused(paused.report(0.9, claim=stale), ErrorCode.STALE_ATTEMPT, "a stale attempt reports nothing")
            promise(at.record(task_id) == before, "what a stale attempt says changes nothing")
        await _refused(
            at.work.start(paused.agent_id, task_id, other.claims[task_id].attempt),
            ErrorCode.FORBIDDEN,
            "an agent does not speak for another",
        )
        await _refused(
            at.work.start(other.agent_id, task_id, 7), ErrorCode.ILLEGAL_TRANSITION, "an attempt must have been claimed"
        )
        promise((await other.complete("mine")).holder == other.agent_id, "the current holder delivers")


async def _check_repetition(at: WorkSetting) -> None:
    await at.submit()
    async with FakeAgentSession(at.work) as agent:
        claim = await agent.claim()
        first = await agent.complete("one")
        promise(await agent.complete("one", claim) == first, "the same result again is answered as the first time")
        await _refused(agent.complete("two", claim), ErrorCode.ILLEGAL_TRANSITION, "another result is refused")
        await _refused(agent.fail(claim=claim), ErrorCode.ILLEGAL_TRANSITION, "what is complete does not fail")
        if claim is not None:
            promise(at.record(claim.record.id) == first, "the first result stays")


async def _check_progress(at: WorkSetting) -> None:
    await at.submit()
    async with FakeAgentSession(at.work) as agent:
        await agent.claim()
        await agent.report(0.75)
        await at.pass_time(at.lease_ms // 2)
        promise((await agent.report(0.25)).progress == 0.75, "progress never goes back")  # noqa: PLR2004 - as reported
        for wrong in (-0.1, 1.1, float("nan"), float("inf")):
            await _refused(agent.report(wrong), ErrorCode.PROTOCOL, "a fraction is between 0 and 1")


async def _check_cancel(at: WorkSetting) -> None:
    async with FakeAgentSession(at.work) as agent:
        stopped = await at.submit()
        claim = await agent.claim()
        await agent.start()
        at.tasks.cancel_task(stopped)
        promise((await agent.beat()).tasks[0].stop, "a heartbeat tells that a task is to stop")
        promise((await agent.report(0.5)).stop, "so does the answer to progress")
        promise((await agent.give_back()).status is TaskStatus.CANCELLED, "what is given back then is cancelled")
        await _refused(agent.complete(claim=claim), ErrorCode.ILLEGAL_TRANSITION, "a cancelled task takes no result")
        finished = await at.submit()
        await agent.claim()
        at.tasks.cancel_task(finished)
        promise((await agent.complete()).status is TaskStatus.COMPLETE, "a result that was there first is kept")


async def _check_failure(at: WorkSetting) -> None:
    async with FakeAgentSession(at.work) as agent:
        await at.submit()
        await agent.claim()
        record = await agent.fail("no paper")
        promise(record.failure is not None and record.failure.message == "no paper", "a failure has its message")
        promise(record.status is TaskStatus.FAILED, "a failure that no retry can mend ends the task")
        await at.submit(retry=RetryPolicy(attempts=2, backoff_ms=0))
        await agent.claim()
        record = await agent.fail(retryable=True)
        promise((record.status, record.failures) == (TaskStatus.PENDING, 1), "a retryable failure is tried again")
        await agent.claim()
        promise((await agent.fail(retryable=True)).status is TaskStatus.FAILED, "as often as its policy says")
        await at.submit()
        await agent.claim()
        for code in (ErrorCode.LEASE_LOST, ErrorCode.CANCELLED, ErrorCode.STORE_FAILED):
            await _refused(agent.fail(code=code), ErrorCode.PROTOCOL, f"a worker cannot know {code}")
        promise((await agent.complete()).status is TaskStatus.COMPLETE, "a failure that was refused ended nothing")


async def _check_release(at: WorkSetting) -> None:
    leaving = FakeAgentSession(at.work)
    await leaving.register()
    for give_back in (leaving.give_back, leaving.leave):
        task_id = await at.submit()
        await leaving.claim()
        await leaving.start()
        await give_back()
        record = at.record(task_id)
        promise(record.status is TaskStatus.PENDING, "a task that is given back waits again")
        promise((record.lost_leases, record.failures) == (0, 0), "and counts neither as a failure nor as a lost lease")
        await at.pass_time(at.lease_ms // 2)
        async with FakeAgentSession(at.work) as other:
            await other.claim_task(task_id)
            await other.complete()


async def _refused(asked: Awaitable[object], code: ErrorCode, text: str) -> None:
    try:
        await asked
    except PeertaskError as error:
        promise(error.code is code, f"{text}: {code} says so, and not {error.code}: {error.message}")
        promise(bool(error.message), f"{text}: the reason is said in words")
    else:
        promise(False, text)
