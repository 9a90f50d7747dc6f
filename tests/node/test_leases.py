"""Every claim holds a lease: of an executor of the node, of a peer, and of an agent; also over a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.coordination.hindrances import Wait
from node.interfaces import Output, Store
from node.stores.memory import MemoryAgents, MemoryStore
from node.testing import (
    Delay,
    FakeAgentSession,
    Hang,
    HeldStore,
    MemoryHub,
    Return,
    ScriptedExecutor,
)
from protocol import ErrorCode, PeerId, PeertaskError, TaskStatus
from tests.node.memory_node import MemoryNode

LEASE_MS = 30_000
# Some leases, and a time after which one that is not renewed has lapsed and has been found.
LONG_S = 200.0
LAPSED_S = 34.0


@asynccontextmanager
async def node_on(
    hub: MemoryHub, store: Store | None = None, former: MemoryNode | None = None, **options: Any
) -> AsyncIterator[MemoryNode]:
    """A node that runs."""
    node = MemoryNode(hub, "node", store=store, former=former, **options)
    async with node.running():
        await trio.sleep(0.001)  # until the dispatcher is there
        yield node


async def test_an_executor_of_the_node_keeps_its_task_for_as_long_as_it_works(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It ends with the process or not at all, so the node renews its lease and nobody has to report."""
    # covers COORD-23
    executor = ScriptedExecutor()
    executor.then((Delay(round(LONG_S * 1000)), Return("done")))
    async with node_on(hub, executors=[executor]) as node:
        record = await node.run(to=node, kind=executor.kind)
        assert (record.status, record.attempt, record.lost_leases) == (TaskStatus.COMPLETE, 1, 0)


async def test_a_peer_keeps_its_task_for_as_long_as_its_session_lives(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The heartbeats of the session are its signs of life."""
    executor = ScriptedExecutor()
    executor.then((Delay(round(LONG_S * 1000)), Return("done")))
    ben = MemoryNode(hub, "ben", [executor])
    async with node_on(hub) as node, ben.running():
        await node.connect(ben)
        record = await node.run(to=ben, kind=executor.kind)
        assert (record.status, record.attempt, record.lost_leases) == (TaskStatus.COMPLETE, 1, 0)


async def test_an_agent_that_is_silent_loses_its_task_in_little_more_than_a_lease(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The next one that waits has it at once; the first is told that it is late, and overwrites nothing."""
    # covers COORD-4, COORD-6, COORD-22, COORD-23, COORD-24, COORD-58
    async with node_on(hub) as node, trio.open_nursery() as nursery:
        paused, next_one = FakeAgentSession(node.work), FakeAgentSession(node.work)
        await paused.register()
        await next_one.register()
        task_id = node.submit(kind="agent")
        stale = await paused.claim()
        await paused.start()
        begun = trio.current_time()
        nursery.start_soon(next_one.work, lambda _: "in time", LAPSED_S)
        record = await node.wait(task_id)
        assert LEASE_MS / 1000 <= trio.current_time() - begun <= LAPSED_S
        assert (record.holder, record.lost_leases, record.failures) == (next_one.agent_id, 1, 0)
        with pytest.raises(PeertaskError) as late:
            await paused.complete("late", stale)
        assert late.value.code is ErrorCode.STALE_ATTEMPT
        assert record.result is not None
        assert node.manager.get_task(task_id) == record


async def test_an_agent_that_waits_for_more_work_is_alive(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A claim that waits for minutes is a sign of life for all that the agent has."""
    async with node_on(hub) as node, FakeAgentSession(node.work) as agent:
        task_id = node.submit(kind="agent")
        claim = await agent.claim()
        await agent.start()
        assert await agent.claim(wait_s=LONG_S) is None
        assert (await agent.complete(claim=claim)).lost_leases == 0
        assert node.manager.get_task(task_id).attempt == 1


async def test_one_execution_by_an_agent_takes_as_long_as_the_task_allows(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Nobody but the node sees to the timeout and the deadline of what an agent does; late results are refused."""
    async with node_on(hub) as node, FakeAgentSession(node.work) as agent:
        for options, code in (
            ({"timeout_ms": 5_000}, ErrorCode.TIMEOUT),
            ({"timeout_s": 5.0}, ErrorCode.DEADLINE_EXCEEDED),
        ):
            task_id = node.submit(kind="agent", **options)
            claim = await agent.claim()
            assert claim is not None
            assert claim.remaining_ms == (5_000 if "timeout_s" in options else None)
            await agent.start(claim)
            await trio.sleep(6)
            record = node.manager.get_task(task_id)
            assert record.failure is not None
            assert record.failure.code is code
            assert (await agent.beat()).tasks == ()
            with pytest.raises(PeertaskError, match="the task is failed"):
                await agent.complete(claim=claim)


async def test_an_agent_that_does_not_stop_is_not_waited_for(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """It has ten seconds to hear of a cancel; then the task is cancelled without it."""
    async with node_on(hub) as node, FakeAgentSession(node.work) as agent:
        task_id = node.submit(kind="agent")
        await agent.claim()
        await agent.start()
        node.manager.cancel_task(task_id)
        assert (await node.wait(task_id)).status is TaskStatus.CANCELLED
        assert (await agent.beat()).tasks == ()


async def test_what_an_agent_does_goes_on_over_a_restart_of_the_node(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """It has a whole lease to be heard of; then it delivers, as if nothing had been."""
    # covers COORD-6
    store = MemoryStore()
    async with node_on(hub, store) as former:
        agent = FakeAgentSession(former.work, agent_id="agent-1")
        await agent.register()
        executing, cancelling, claimed = (former.submit(kind="agent") for _ in range(3))
        for task_id in (executing, cancelling, claimed):
            await agent.claim_task(task_id)
        await agent.start(agent.claims[executing])
        former.manager.cancel_task(cancelling)
    async with node_on(hub, store, former) as node:
        held = {held.task_id: (held.status.value, held.stop) for held in (await node.work.heartbeat("agent-1")).tasks}
        assert held == {
            executing: ("executing", False),
            cancelling: ("cancelling", True),
            claimed: ("claimed", False),
        }
        await trio.sleep(LAPSED_S - 10)
        record = await node.work.complete("agent-1", executing, 1, Output("done"))
        assert (record.status, record.lost_leases) == (TaskStatus.COMPLETE, 0)
        assert (await node.wait(cancelling)).status is TaskStatus.CANCELLED
        await trio.sleep(10)
        assert node.manager.get_task(claimed).lost_leases == 1


async def test_an_agent_that_the_node_has_forgotten_loses_its_task_at_the_restart(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """A store that keeps no agents: it counts as a lost lease, and the task waits for the next one."""
    store = HeldStore()
    async with node_on(hub, store) as former:
        agent = FakeAgentSession(former.work, agent_id="agent-1")
        await agent.register()
        task_id = former.submit(kind="agent")
        await agent.claim()
        await agent.start()
    async with node_on(hub, store, former) as node:
        record = node.manager.get_task(task_id)
        assert (record.status, record.lost_leases) == (TaskStatus.PENDING, 1)
        async with FakeAgentSession(node.work) as other:
            assert await other.work(wait_s=LAPSED_S) == 1


async def test_what_is_owed_to_peers_is_not_pushed_out_by_agents_that_are_gone(
    autojump_clock: MockClock, hub: MemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can be told of what a former agent had, so nothing is kept for it, also over a restart of the node."""
    monkeypatch.setattr("node.executors.remote.MAX_OWED_CANCELS", 1)
    store, executor = HeldStore(), ScriptedExecutor()
    executor.then(Hang())
    ben = MemoryNode(hub, "ben", [executor])
    async with ben.running():
        async with node_on(hub, store) as former:
            await former.connect(ben)
            asked = former.submit(to=ben, kind=executor.kind)
            await executor.wait_until_begun(1)
            hub.cut(former.peer_id, ben.peer_id)
            former.manager.cancel_task(asked)
            gone, next_one = FakeAgentSession(former.work), FakeAgentSession(former.work)
            await gone.register()
            lapsed, cancelled = former.submit(kind="agent"), former.submit(kind="agent")
            for task_id in (lapsed, cancelled):
                await gone.start(await gone.claim_task(task_id))
            former.manager.cancel_task(cancelled)
            await trio.sleep(LAPSED_S)
            await former.work.cleanup_expired()
            async with next_one:
                assert await next_one.work() == 1
            assert former.manager.get_task(lapsed).lost_leases == 1
        async with node_on(hub, store, former):
            hub.heal(former.peer_id, ben.peer_id)
            with trio.fail_after(LONG_S):
                while executor.running:
                    await trio.sleep(0.001)
        assert [record.status for record in ben.tasks_of(former)] == [TaskStatus.CANCELLED]


async def test_a_task_waits_for_an_agent_that_could_do_it_and_does_not_ask(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Whoever asks what it waits for learns that there is one, also when its deadline has passed."""
    async with node_on(hub) as node, FakeAgentSession(node.work, persona="writer") as agent:
        task_id = node.submit(kind="agent", persona="writer", timeout_s=1.0)
        explained = node.dispatcher.explain(node.manager.get_task(task_id), ())
        (reason,) = explained.waits_for
        assert (reason.wait, reason.remedy) == (Wait.WORKER, "")
        assert [(one.peer_id, one.text) for one in explained.candidates] == [
            (agent.agent_id, "it does not ask for work now"),
            (node.peer_id, "it does not do 'agent', but echo"),
        ]
        record = await node.wait(task_id)
        assert record.failure is not None
        assert f"before its deadline: it waited for {reason.text}" in record.failure.message
        critic = await node.run(kind="agent", persona="critic", timeout_s=1.0)
        assert critic.failure is not None
        assert "nobody acts as 'critic', only as writer" in critic.failure.message


async def test_agents_of_a_node_work_for_its_peers_too(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """A kind that only an agent does is offered to those whom the operator allowed, while there is such an agent."""
    async with node_on(hub, allow={"agent": (PeerId("ann"),)}) as node:
        ann, bob = MemoryNode(hub, "ann"), MemoryNode(hub, "bob")
        async with ann.running(), bob.running():
            await ann.connect(node)
            await bob.connect(node)
            async with FakeAgentSession(node.work) as agent:
                assert [("agent" in node.advert_for(peer.peer_id).kinds) for peer in (ann, bob)] == [True, False]
                asked = ann.submit("for ann", to=node, kind="agent")
                refused = await bob.run("for bob", to=node, kind="agent")
                assert refused.failure is not None
                assert refused.failure.code is ErrorCode.FORBIDDEN
                assert await agent.work(lambda task: task.prompt.upper(), wait_s=1) == 1
            record = await ann.wait(asked)
            assert record.result is not None
            assert (record.result.result, record.holder) == ("FOR ANN", node.peer_id)
            late = await ann.run("too late", to=node, kind="agent")
            assert late.failure is not None
            assert late.failure.code is ErrorCode.NO_EXECUTOR


class _HeldStoreOfAgents(MemoryAgents, HeldStore):
    """Keeps agents at once, and facts when the test lets it."""

    def __init__(self) -> None:
        MemoryAgents.__init__(self)
        HeldStore.__init__(self)


async def test_an_agent_that_has_begun_anew_has_nothing_even_if_a_crash_has_lost_the_release(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Else its signs of life would keep, for ever, a task of which it does not know."""
    store = _HeldStoreOfAgents()
    async with node_on(hub, store) as former:
        agent = FakeAgentSession(former.work, agent_id="a")
        await agent.register()
        task_id = former.submit(kind="agent")
        assert await agent.claim()
        await agent.start()
        await trio.sleep(1)
        store.hold()
        with trio.move_on_after(1):  # what it had is not saved as released, so it gets no answer
            await agent.register()
        store.lose()
    async with node_on(hub, store, former) as node:
        again = FakeAgentSession(node.work, agent_id="a")
        claim = await again.claim(LAPSED_S)
        assert claim is not None
        assert (claim.record.id, claim.attempt) == (task_id, 2)
        await again.complete(claim=claim)
        assert (await node.wait(task_id)).status is TaskStatus.COMPLETE
