"""The door of outside workers, over the stores that keep agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.interfaces import Output, Store
from node.stores.memory import MemoryStore
from node.testing import (
    START_MS,
    ContractViolation,
    FakeAgentSession,
    FakeSqliteDatabase,
    HeldStore,
    check_work_service,
    make_task,
)
from node.work import WorkDoor
from node.work_service import Agent, AgentRegistration
from protocol import ErrorCode, PeertaskError, RetryPolicy, TaskId, TaskRecord, TaskStatus
from tests.node.work_settings import work_setting

STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore, "sqlite": FakeSqliteDatabase}


@pytest.mark.parametrize("make_store", STORES.values(), ids=STORES)
async def test_the_door_keeps_its_contract(make_store: Callable[[], Store]) -> None:
    """Agents, claims, leases and fencing are the same whatever keeps the tasks."""
    # covers COORD-4, COORD-6, COORD-21, COORD-22, COORD-23, COORD-24, COORD-30, COORD-31, COORD-49, COORD-58
    await check_work_service(lambda: work_setting(make_store()))


async def test_the_number_of_agents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told to come later; when others were silent it is let in."""
    monkeypatch.setattr("node.work.door.MAX_AGENTS", 2)
    async with work_setting() as at:
        for number in range(2):
            await FakeAgentSession(at.work, agent_id=f"agent-{number}").register()
        late = FakeAgentSession(at.work)
        with pytest.raises(PeertaskError) as refused:
            await late.register()
        assert (refused.value.code, refused.value.retry_after_ms) == (ErrorCode.BUSY, at.lease_ms)
        await at.pass_time(at.lease_ms)
        await late.register()
        assert [state.agent.id for state in at.work.active_agents()] == [late.agent_id]


async def test_the_number_of_tasks_of_an_agent_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that claims and claims is stopped before it has everything; when it has ended one it may go on."""
    monkeypatch.setattr("node.work.door.MAX_HELD", 2)
    async with work_setting() as at, FakeAgentSession(at.work) as greedy:
        for _ in range(3):
            await at.submit()
        claims = [await greedy.claim() for _ in range(2)]
        with pytest.raises(PeertaskError, match="has 2 tasks, and 2 is the limit") as refused:
            await greedy.claim()
        assert (refused.value.code, refused.value.retry_after_ms) == (ErrorCode.BUSY, 100)
        await greedy.complete(claim=claims[0])
        assert await greedy.claim() is not None


async def test_a_result_that_cannot_be_one_leaves_the_task_with_its_agent() -> None:
    """It is told what is wrong, and may deliver another."""
    async with work_setting() as at, FakeAgentSession(at.work) as agent:
        await at.submit()
        claim = await agent.claim()
        assert claim is not None
        wrong = Output("text", artifacts=("no artifact",))  # type: ignore[arg-type]
        with pytest.raises(PeertaskError, match="cannot be a result") as refused:
            await at.work.complete(agent.agent_id, claim.record.id, claim.attempt, wrong)
        assert refused.value.code is ErrorCode.INVALID_TASK
        assert (await agent.complete()).status is TaskStatus.COMPLETE


async def test_a_task_that_waits_for_its_back_off_says_when_it_is_due() -> None:
    """An agent that wants this one and no other learns how long to wait."""
    async with work_setting() as at, FakeAgentSession(at.work) as agent:
        task_id = await at.submit(retry=RetryPolicy(attempts=2, backoff_ms=60_000))
        await agent.claim()
        record = await agent.fail(retryable=True)
        wait_ms = record.not_before - record.updated_at
        with pytest.raises(PeertaskError, match=f"its next attempt is due in {wait_ms} ms") as refused:
            await agent.claim_task(task_id)
        assert refused.value.code is ErrorCode.CONFLICT
        await at.pass_time(wait_ms)
        await agent.beat()
        assert (await agent.claim_task(task_id)).attempt == 2


async def test_an_agent_that_leaves_ends_its_claims_that_wait() -> None:
    """Its program hears that nothing comes any more, in place of waiting for nothing."""
    async with work_setting() as at, trio.open_nursery() as nursery:
        agent = FakeAgentSession(at.work)
        await agent.register()

        async def wait() -> None:
            with pytest.raises(PeertaskError) as refused:
                await agent.claim(wait_s=60)
            assert refused.value.code is ErrorCode.NOT_FOUND

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await agent.leave()


async def test_a_registration_says_which_field_is_wrong() -> None:
    """Before anything is asked of a node."""
    for fields, words in (
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("a b",)}, "kinds.0"),
        ({"kinds": ("k",), "persona": "no name"}, "persona"),
        ({"kinds": ("k",), "id": ""}, "id"),
    ):
        with pytest.raises(PeertaskError, match=f"field {words}") as refused:
            AgentRegistration.of(**fields)
        assert refused.value.code is ErrorCode.PROTOCOL


# --- the checker bites -----------------------------------------------------------------------------------------------


class _Forgiving(WorkDoor):
    """Takes a late result for a new one."""

    async def complete(self, agent_id: str, task_id: TaskId, attempt: int, output: Output) -> TaskRecord:
        return await super().complete(agent_id, task_id, self._service.latest(task_id).attempt or attempt, output)


class _Careless(WorkDoor):
    """Does not look whose kind a task is."""

    def _why_not(self, agent: Agent, record: TaskRecord) -> str:  # noqa: ARG002 - that is it
        return ""


class _Clinging(WorkDoor):
    """Lets nobody go."""

    async def deregister(self, agent_id: str) -> None:
        self._registry.see(agent_id)


@pytest.mark.parametrize(
    ("door", "promise"),
    [
        (_Forgiving, "a paused worker is late"),
        (_Careless, "a task of another kind is not the agent's"),
        (_Clinging, "an agent that left is not listed"),
    ],
)
async def test_the_checker_finds_a_door_that_breaks_a_promise(
    monkeypatch: pytest.MonkeyPatch, door: type[WorkDoor], promise: str
) -> None:
    """And names the promise."""
    monkeypatch.setattr("tests.node.memory_node.WorkDoor", door)
    with pytest.raises(ContractViolation, match=promise):
        await check_work_service(work_setting)


# --- bad luck --------------------------------------------------------------------------------------------------------


async def test_a_task_that_is_not_saved_yet_is_not_claimed() -> None:
    """Nobody is told of it, so nobody gets it."""
    store = HeldStore()
    async with work_setting(store) as at, FakeAgentSession(at.work) as agent:
        store.hold()
        task = make_task(kind="agent", sender=at.own_id)
        at.tasks.submit(task, requester=at.own_id, target=None)
        assert await agent.claim() is None
        with pytest.raises(PeertaskError, match="it waits for something else") as refused:
            await agent.claim_task(task.id)
        assert refused.value.code is ErrorCode.CONFLICT
        store.release()
        assert (await agent.claim_task(task.id)).attempt == 1


async def test_an_agent_that_is_leaving_gets_no_more_tasks() -> None:
    """Not even while what it had is being saved: nobody would do what it got then."""
    store = HeldStore()
    async with work_setting(store) as at:
        agent = FakeAgentSession(at.work)
        await agent.register()
        for _ in range(2):
            await at.submit()
        await agent.claim()
        store.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.work.deregister, agent.agent_id)
            await wait_all_tasks_blocked()
            with pytest.raises(PeertaskError) as refused:
                await at.work.claim(agent.agent_id)
            assert refused.value.code is ErrorCode.NOT_FOUND
            store.release()
        assert [record.status for record in at.tasks.list_tasks()] == [TaskStatus.PENDING] * 2


@pytest.mark.parametrize(
    ("ends", "code"),
    [(FakeAgentSession.leave, ErrorCode.NOT_FOUND), (FakeAgentSession.register, ErrorCode.CONFLICT)],
    ids=["it leaves", "it begins anew"],
)
async def test_a_claim_that_is_being_saved_when_its_agent_ends_is_released_at_once(
    ends: Callable[[FakeAgentSession], Awaitable[object]], code: ErrorCode
) -> None:
    """Its program is not told that it has the task, and the next one need not wait for a lease to lapse."""
    store = HeldStore()
    async with work_setting(store) as at, FakeAgentSession(at.work) as next_one, trio.open_nursery() as nursery:
        agent = FakeAgentSession(at.work, agent_id="one")
        await agent.register()
        task_id = await at.submit()
        store.hold()

        async def claim() -> None:
            with pytest.raises(PeertaskError) as refused:
                await at.work.claim_task("one", task_id)
            assert refused.value.code is code

        nursery.start_soon(claim)
        await wait_all_tasks_blocked()
        nursery.start_soon(ends, agent)
        nursery.start_soon(next_one.claim, 60)
        await wait_all_tasks_blocked()
        store.release()
        await wait_all_tasks_blocked()
        await at.pass_time(1_000)
        assert (await next_one.complete()).lost_leases == (code is ErrorCode.CONFLICT)


@pytest.mark.parametrize(
    "ask", [FakeAgentSession.start, FakeAgentSession.complete, FakeAgentSession.fail, FakeAgentSession.give_back]
)
async def test_that_a_claim_is_over_is_told_when_it_is_saved(ask: Callable[..., Awaitable[object]]) -> None:
    """A crash before that would leave the task with an agent that knows of none."""
    store = HeldStore()
    async with work_setting(store) as at, FakeAgentSession(at.work) as agent, trio.open_nursery() as nursery:
        await at.submit()
        claim = await agent.claim()
        store.hold()
        nursery.start_soon(agent.give_back)
        await wait_all_tasks_blocked()
        refused = trio.Event()

        async def ask_again() -> None:
            with pytest.raises(PeertaskError) as error:
                await ask(agent, claim=claim)
            assert error.value.code is ErrorCode.STALE_ATTEMPT
            refused.set()

        nursery.start_soon(ask_again)
        await wait_all_tasks_blocked()
        assert not refused.is_set()
        store.release()
        with trio.fail_after(5):
            await refused.wait()


async def test_an_agent_that_wants_one_task_gets_no_other() -> None:
    """Not even when the plan is asked at that moment, and another one that fits has just come."""
    async with work_setting() as at, FakeAgentSession(at.work) as other, FakeAgentSession(at.work) as agent:
        for _ in range(20):  # which of two tasks of trio runs first is left to chance
            taken = await at.submit()
            await other.claim_task(taken)
            task = make_task(kind="agent", sender=at.own_id)
            at.tasks.submit(task, requester=at.own_id, target=None)
            with pytest.raises(PeertaskError) as refused:
                await agent.claim_task(taken)
            assert refused.value.code is ErrorCode.CONFLICT
            assert at.record(task.id).status is TaskStatus.PENDING


async def test_a_store_that_fails_costs_no_agent_its_lease() -> None:
    """A sign of life counts although it cannot be written down."""

    class FullStore(MemoryStore):
        full = False

        async def save_agent(self, agent: Agent) -> None:
            if self.full:
                raise PeertaskError("no room is left", code=ErrorCode.STORE_FAILED)
            await super().save_agent(agent)

    store = FullStore()
    async with work_setting(store) as at, FakeAgentSession(at.work) as agent:
        await at.submit()
        await agent.start(await agent.claim())
        store.full = True
        for _ in range(4):
            await at.pass_time(at.lease_ms // 2)
            await agent.beat()
        assert (await agent.complete()).lost_leases == 0
        with pytest.raises(PeertaskError, match="no room is left"):
            await FakeAgentSession(at.work).register()


async def test_the_double_of_an_agent_asks_for_what_it_needs_to_know() -> None:
    """It names no task by chance, leaves quietly when it was forgotten, and not at all when it has crashed."""
    async with work_setting() as at:
        async with FakeAgentSession(at.work) as agent:
            with pytest.raises(ValueError, match="has 0 claims; name one"):
                await agent.complete()
            await at.work.deregister(agent.agent_id)
        async with FakeAgentSession(at.work) as agent:
            agent.crash()
        assert [state.agent.id for state in at.work.active_agents()] == [agent.agent_id]


async def test_agents_that_come_and_go_are_noted() -> None:
    """For the audit log of the node: who registered for what, who left, and who fell silent, and when."""
    # covers COORD-8, COORD-24
    noted: list[tuple[str, dict[str, object]]] = []
    async with work_setting(note=lambda fact, **fields: noted.append((fact, fields))) as at:
        async with FakeAgentSession(at.work, agent_id="one", persona="writer"):
            await FakeAgentSession(at.work, agent_id="two").register()
        await at.pass_time(at.lease_ms)
        await at.work.cleanup_expired()
    assert noted == [
        ("AgentRegistered", {"agent_id": "one", "kinds": ["agent"], "persona": "writer"}),
        ("AgentRegistered", {"agent_id": "two", "kinds": ["agent"], "persona": None}),
        ("AgentLeft", {"agent_id": "one"}),
        ("AgentLapsed", {"agent_id": "two", "heard_at": START_MS}),
    ]
