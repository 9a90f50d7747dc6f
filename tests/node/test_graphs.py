"""Tasks that depend on each other, and families of tasks, in a whole node: from their submission to their end."""

# covers COORD-1, COORD-3, COORD-18, COORD-19, COORD-20

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.coordination.dependencies import INPUTS
from node.interfaces import GraphTask, Store
from node.retention import Capacity
from node.stores.sqlite import SqliteStore
from node.testing import (
    Delay,
    FakeSqliteDatabase,
    Hang,
    HeldStore,
    MemoryHub,
    Raise,
    Return,
    ScriptedExecutor,
    open_memory_hub,
)
from protocol import (
    MAX_PAYLOAD_BYTES,
    Accept,
    ErrorCode,
    InvalidTask,
    PeerId,
    PeertaskError,
    Reject,
    Result,
    Submit,
    Task,
    TaskId,
    TaskRecord,
    TaskStatus,
    TooLarge,
    new_task_id,
)
from tests.node.memory_node import MemoryNode


@pytest.fixture
async def hub() -> AsyncIterator[MemoryHub]:
    """What lies between the nodes of a test."""
    async with open_memory_hub() as hub:
        yield hub


@pytest.fixture
def executor() -> ScriptedExecutor:
    """What carries the tasks out."""
    return ScriptedExecutor()


@pytest.fixture
async def node(hub: MemoryHub, executor: ScriptedExecutor) -> AsyncIterator[MemoryNode]:
    """A node that runs."""
    async with MemoryNode(hub, "ann", [executor]).running() as node:
        yield node


def task(node: MemoryNode, prompt: str, *depends_on: TaskId, **fields: Any) -> Task:
    """Return a task of a node for the scripted executor."""
    fields = {"kind": "scripted", "depends_on": depends_on, **fields}
    return Task.new(prompt, node.peer_id, timestamp=node.clock.now(), **fields)


def submit(node: MemoryNode, *tasks: Task, target: MemoryNode | None = None) -> list[TaskRecord]:
    """Submit tasks together."""
    peer_id = None if target is None else target.peer_id
    return node.manager.submit_graph([GraphTask(one, peer_id) for one in tasks], requester=node.peer_id)


def code_of(call: Callable[[], object]) -> ErrorCode:
    """Return the code of the error that a call raises."""
    with pytest.raises(PeertaskError) as caught:
        call()
    return caught.value.code


def prompts(executor: ScriptedExecutor) -> list[str]:
    """Return what was carried out, in the order of beginning."""
    return [seen.task.prompt for seen in executor.seen]


# --- order, and what reaches whom ------------------------------------------------------------------------------------


async def test_a_task_begins_when_all_that_it_depends_on_are_complete(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """It is pending until then, and gets their results by id."""
    executor.on("slow", Delay(500), Return("late")).on("quick", Return("soon"))
    slow, quick = node.submit("slow", kind="scripted"), node.submit("quick", kind="scripted")
    last = node.submit("last", kind="scripted", depends_on=(slow, quick))
    await node.wait(quick)
    record = node.manager.get_task(last)
    assert record.status is TaskStatus.PENDING
    assert node.manager.is_blocked(record)
    assert [(task_id, other and other.status) for task_id, other in node.manager.awaited(record)] == [
        (slow, TaskStatus.EXECUTING)
    ]
    assert node.dispatcher.waiting == 0
    ended = await node.wait(last)
    assert ended.result is not None
    assert executor.seen[-1].task.params == {INPUTS: {slow: "late", quick: "soon"}}
    assert ended.task.params == {}
    assert (node.manager.is_blocked(ended), node.manager.awaited(ended)) == (False, [])


async def test_a_graph_is_carried_out_in_order_whatever_the_order_of_its_tasks(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """A diamond that comes upside down: the two in the middle run at once, between the first and the last."""
    executor.on("left", Delay(300), Return("l")).on("right", Delay(300), Return("r"))
    first = task(node, "first")
    left, right = task(node, "left", first.id), task(node, "right", first.id)
    last = task(node, "last", left.id, right.id)
    records = submit(node, last, right, left, first)
    assert [record.id for record in records] == [last.id, right.id, left.id, first.id]
    begun = trio.current_time()
    await node.wait(last.id)
    assert trio.current_time() - begun < 0.5
    assert sorted(prompts(executor)[1:3]) == ["left", "right"]
    assert (prompts(executor)[0], prompts(executor)[3]) == ("first", "last")


async def test_a_dependency_that_is_complete_already_holds_nobody_up(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Its result is there all the same."""
    done = await node.run("done", kind="scripted")
    await node.run("next", kind="scripted", depends_on=(done.id,))
    assert executor.seen[-1].task.params == {INPUTS: {done.id: "done"}}


async def test_each_attempt_gets_the_inputs(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """A repetition is the same task."""
    executor.on("again", Raise(PeertaskError(code=ErrorCode.LEASE_LOST))).on("again", Return("ok"))
    first = await node.run("first", kind="scripted")
    record = await node.run("again", kind="scripted", depends_on=(first.id,))
    assert record.result is not None
    assert [seen.attempt for seen in executor.seen] == [1, 1, 2]
    assert executor.seen[1].task == executor.seen[2].task


async def test_inputs_that_are_too_large_fail_the_task_in_words(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Each is within the limit, and together they are not; nothing is executed."""
    executor.on("large", Return("x" * (MAX_PAYLOAD_BYTES // 2)))
    large = [await node.run("large", kind="scripted") for _ in range(3)]
    record = await node.run("sum", kind="scripted", depends_on=tuple(one.id for one in large))
    assert record.failure is not None
    assert record.failure.code is ErrorCode.TOO_LARGE
    assert f"{MAX_PAYLOAD_BYTES:,} is the limit" in record.failure.message
    assert prompts(executor) == ["large"] * 3
    assert (await node.run("free", kind="scripted")).result is not None


async def test_a_chain_of_thousands_needs_no_recursion(autojump_clock: MockClock, node: MemoryNode) -> None:
    """Each begins when the one before is complete."""
    ids = [new_task_id() for _ in range(3_000)]
    chain = [
        task(node, "link", *before, id=one, kind="echo")
        for before, one in zip([(), *[(one,) for one in ids]], ids, strict=False)
    ]
    submit(node, *chain)
    assert (await node.wait(ids[-1])).result is not None


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_failure_fails_what_depends_on_it_down_the_line(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Each names the one before; what does not depend on it goes on, and so does what chose to wait."""
    executor.on("bad", Raise(OSError("no disk"))).on("other", Delay(100), Return("fine"))
    bad = task(node, "bad", retry={"attempts": 1})
    middle = task(node, "middle", bad.id)
    last = task(node, "last", middle.id)
    patient = task(node, "patient", bad.id, on_failed_dependency="wait")
    other = task(node, "other")
    submit(node, bad, middle, last, patient, other)
    for one, reason in ((middle, "no disk"), (last, "one of its own dependencies")):
        record = await node.wait(one.id)
        assert record.failure is not None
        assert record.failure.code is ErrorCode.DEPENDENCY_FAILED
        assert record.task.depends_on[0] in record.failure.message
        assert reason in record.failure.message
    assert (await node.wait(other.id)).result is not None
    assert node.manager.is_blocked(node.manager.get_task(patient.id))
    assert node.manager.cancel_task(patient.id).status is TaskStatus.CANCELLED
    assert prompts(executor) == ["bad", "other"]
    assert node.manager.open_tasks == 0


async def test_a_chain_of_thousands_fails_without_recursion(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """The failure of the first is told from one to the next."""
    executor.on("bad", Raise(OSError("no disk")))
    ids = [new_task_id() for _ in range(3_000)]
    chain = [task(node, "link", before, id=one) for before, one in itertools.pairwise(ids)]
    submit(node, task(node, "bad", id=ids[0]), *chain)
    record = await node.wait(ids[-1])
    assert record.failure is not None
    assert record.failure.code is ErrorCode.DEPENDENCY_FAILED
    assert node.manager.open_tasks == 0


async def test_a_task_that_waits_goes_on_when_what_failed_is_repeated(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """By its requester, and nobody else; the result of the repetition stands for the one that is missing."""
    executor = ScriptedExecutor().on("bad", Raise(OSError("no disk"))).on("bad", Return("better"))
    store = HeldStore()
    node = MemoryNode(hub, "ann", [executor], store=store)
    async with node.running():
        bad = await node.run("bad", kind="scripted")
        hanging = new_task_id()
        submit(node, task(node, "gate", id=hanging, kind="nobody"))
        patient = node.submit("next", kind="scripted", depends_on=(bad.id, hanging), on_failed_dependency="wait")
        stranger = Task.new("evil", "ben", timestamp=1, kind="echo", metadata={"retry_of": bad.id})
        node.manager.submit(stranger, requester=PeerId("ben"), target=None)
        await node.wait(stranger.id)
        assert len(node.manager.awaited(node.manager.get_task(patient))) == 2
        await node.run("bad", kind="scripted", metadata={"retry_of": bad.id})
        assert [task_id for task_id, _ in node.manager.awaited(node.manager.get_task(patient))] == [hanging]
    async with MemoryNode(hub, "ann", [executor], store=store, former=node).running() as node:
        assert [task_id for task_id, _ in node.manager.awaited(node.manager.get_task(patient))] == [hanging]
        node.manager.cancel_task(hanging)
        node.submit("gate", metadata={"retry_of": hanging})
        assert (await node.wait(patient)).result is not None
    assert executor.seen[-1].task.params == {INPUTS: {bad.id: "better", hanging: "gate"}}


async def test_a_task_waits_for_the_repetition_of_what_it_depends_on(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Whether the repetition came before it, comes with it in one graph, or is what it names."""
    executor.on("bad", Raise(OSError("no disk"))).on("bad", Return("better"))
    bad = await node.run("bad", kind="scripted")
    patient = node.submit("patient", kind="scripted", depends_on=(bad.id,), on_failed_dependency="wait")
    again = new_task_id()
    both, direct = (
        task(node, "both", bad.id, again, on_failed_dependency="wait"),
        task(node, "direct", again, on_failed_dependency="wait"),
    )
    submit(node, both, direct, task(node, "bad", id=again, metadata={"retry_of": bad.id}))
    for waiting in (patient, both.id, direct.id):
        assert (await node.wait(waiting)).result is not None
    late = node.submit("late", kind="scripted", depends_on=(bad.id,))
    assert (await node.wait(late)).result is not None
    assert executor.seen[-1].task.params == {INPUTS: {bad.id: "better"}}


async def test_a_cancelled_dependency_fails_its_dependents(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """One that waits and one that runs, both cancelled."""
    executor.on("hang", Hang())
    running = node.submit("hang", kind="scripted")
    dependent = node.submit("next", kind="scripted", depends_on=(running,))
    await executor.wait_until_begun(1)
    node.manager.cancel_task(running)
    record = await node.wait(dependent)
    assert record.failure is not None
    assert record.failure.message.endswith("was cancelled")


async def test_a_task_that_depends_on_a_failed_one_fails_at_once(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """It is taken in, because a moment before it would have been too."""
    executor.on("bad", Raise(OSError("no disk")))
    bad = await node.run("bad", kind="scripted")
    record = await node.run("next", kind="scripted", depends_on=(bad.id,))
    assert record.failure is not None
    assert record.failure.code is ErrorCode.DEPENDENCY_FAILED


async def test_a_blocked_task_expires_at_its_deadline(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """What it waits for may take as long as it likes."""
    executor.on("hang", Hang())
    first = node.submit("hang", kind="scripted")
    late = [node.submit("next", kind="scripted", depends_on=(first,), timeout_s=seconds) for seconds in (7.0, 5.0, 5.0)]
    node.manager.cancel_task(late[2])
    begun = trio.current_time()
    record = await node.wait(late[1])
    assert record.failure is not None
    assert record.failure.code is ErrorCode.DEADLINE_EXCEEDED
    assert trio.current_time() - begun == pytest.approx(5, abs=0.1)
    await node.wait(late[0])
    assert trio.current_time() - begun == pytest.approx(7, abs=0.1)


async def test_deadlines_of_tasks_that_wait_no_more_are_swept_out(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """A node that holds and lets go of thousands keeps none of their deadlines."""
    executor.on("hang", Hang())
    first = node.submit("hang", kind="scripted")
    for _ in range(500):
        node.manager.cancel_task(node.submit("next", kind="scripted", depends_on=(first,), timeout_s=60.0))
    assert len(node.dispatcher._blocked._deadlines) < 100  # noqa: SLF001 - nobody else could tell


# --- all or nothing --------------------------------------------------------------------------------------------------


async def test_of_a_faulty_graph_nothing_is_taken_in(autojump_clock: MockClock, node: MemoryNode) -> None:
    """Whatever is wrong with whichever task."""
    good = task(node, "good")
    other = task(node, "other")
    for bad in (
        [task(node, "bad", new_task_id())],
        [task(node, "bad", parent_id=new_task_id())],
        [task(node, "one", good.id, id=other.id), task(node, "two", other.id, id=good.id)],
    ):
        with pytest.raises(InvalidTask):
            submit(node, *bad, *([] if len(bad) > 1 else [good]))
    assert node.manager.open_tasks == 0
    assert node.manager.list_tasks() == []
    assert (await node.run("free")).result is not None


async def test_the_same_graph_again_is_the_one_that_is_there(autojump_clock: MockClock, node: MemoryNode) -> None:
    """A client whose answer was lost repeats it; a part of it, or another task under its ids, is a conflict."""
    first = task(node, "first")
    graph = [first, task(node, "last", first.id)]
    submit(node, *graph)
    assert [record.id for record in submit(node, *graph)] == [one.id for one in graph]
    assert submit(node) == []
    assert code_of(lambda: submit(node, *graph, task(node, "more"))) is ErrorCode.CONFLICT
    assert code_of(lambda: submit(node, task(node, "else", id=first.id))) is ErrorCode.CONFLICT


async def test_a_graph_needs_room_for_all_of_its_tasks(
    autojump_clock: MockClock, hub: MemoryHub, executor: ScriptedExecutor
) -> None:
    """BUSY when others are in the way, TOO_LARGE when it would never fit; one that is stopping takes none."""
    executor.on("hang", Hang())
    async with MemoryNode(hub, "ann", [executor], capacity=Capacity(open_tasks=3)).running() as node:
        hanging = submit(node, task(node, "hang"))[0]
        three = [task(node, f"{number}") for number in range(3)]
        assert code_of(lambda: submit(node, *three)) is ErrorCode.BUSY
        with pytest.raises(TooLarge, match="4 tasks, and this node may have 3 open"):
            submit(node, *three, task(node, "4"))
        assert node.manager.open_tasks == 1
        node.manager.cancel_task(hanging.id)
        await node.wait(hanging.id)
        submit(node, *three)
        node.manager.draining = True
        assert code_of(lambda: submit(node, task(node, "late"))) is ErrorCode.DRAINING


async def test_nothing_of_a_graph_begins_before_it_is_saved_and_a_crash_leaves_none_of_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The store loses what waits: after the restart nothing is there, and the same graph can be submitted."""
    executor = ScriptedExecutor()
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    first = task(former, "first")
    graph = [first, task(former, "last", first.id)]
    async with former.running():
        store.hold()
        submit(former, *graph)
        await wait_all_tasks_blocked()
        assert (executor.seen, former.manager.list_tasks()) == ([], [])
        store.lose()
    store.release()
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        assert node.manager.list_tasks() == []
        submit(node, *graph)
        assert (await node.wait(graph[1].id)).result is not None
        with suppress(PeertaskError):
            node.manager.cancel_task(first.id)


async def test_a_store_that_refuses_a_graph_leaves_nothing_behind(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """What was counted is taken back."""
    store = HeldStore()
    async with MemoryNode(hub, "ann", store=store).running() as node:
        known = node.submit("known")
        await node.wait(known)
        node.manager._forget([known])  # noqa: SLF001 - so that only the store knows it
        store._last_seqs[known] = 4  # noqa: SLF001
        parent = task(node, "parent")
        graph = [parent, task(node, "last", parent.id, id=known, parent_id=parent.id)]
        assert code_of(lambda: submit(node, *graph)) is ErrorCode.CONFLICT
        assert node.manager.open_tasks == 0
        assert parent.id not in node.manager.dependencies.awaited
        assert node.manager.children(parent.id) == []


# --- restarts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [HeldStore, FakeSqliteDatabase])
async def test_a_restart_goes_on_with_a_graph(hub: MemoryHub, store: Callable[[], Store]) -> None:
    """What was complete is not done again, its results are there, and who waits is known anew."""
    executor = ScriptedExecutor().on("hang", Hang())
    kept = store()
    former = MemoryNode(hub, "ann", [executor], store=kept)
    async with former.running():
        first, hanging = task(former, "first"), task(former, "hang")
        last = task(former, "last", first.id, hanging.id)
        submit(former, first, hanging, last)
        await executor.wait_until_begun(2)
        await former.wait(first.id)
    again = ScriptedExecutor().on("hang", Delay(20), Return("at last"))
    async with MemoryNode(hub, "ann", [again], store=kept, former=former).running() as node:
        await again.wait_until_begun(1)
        assert node.manager.is_blocked(node.manager.get_task(last.id))
        assert (await node.wait(last.id)).result is not None
        assert again.seen[-1].task.params == {INPUTS: {first.id: "first", hanging.id: "at last"}}
    assert prompts(again) == ["hang", "last"]


async def test_a_failure_that_was_not_passed_on_before_a_crash_is_after_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """The store has the failure, and not yet those that follow from it."""
    executor = ScriptedExecutor().on("bad", Raise(OSError("no disk")))
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        bad = task(former, "bad")
        middle = task(former, "middle", bad.id)
        last = task(former, "last", middle.id)
        submit(former, last, middle, bad)
        await wait_all_tasks_blocked()
        store.lose()
    # Only what came before the crash is kept; here the failures of the two that follow.
    store.hold()
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        store.release()
        for one in (middle, last):
            record = await node.wait(one.id)
            assert record.failure is not None


async def test_a_dependency_that_the_store_has_lost_fails_those_that_wait_for_it(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Somebody deleted its file: nothing would ever let them go."""
    executor = ScriptedExecutor().on("hang", Hang())
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        hanging = former.submit("hang", kind="scripted")
        waiting = former.submit("next", kind="scripted", depends_on=(hanging,))
        await executor.wait_until_begun(1)
    store.forget([hanging])
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        record = await node.wait(waiting)
        assert record.failure is not None
        assert record.failure.message.endswith("is not kept here any more")


# --- what is kept, and what is not -----------------------------------------------------------------------------------


async def test_a_task_is_kept_while_others_depend_on_it(
    autojump_clock: MockClock, hub: MemoryHub, executor: ScriptedExecutor
) -> None:
    """However many end after it; when nobody needs it any more it is forgotten as any other, and then it is unknown."""
    executor.on("hang", Hang()).on("hang", Return("ok"))
    async with MemoryNode(hub, "ann", [executor], capacity=Capacity(finished_records=2)).running() as node:
        first = await node.run("first", kind="scripted")
        hanging = node.submit("hang", kind="scripted")
        last = node.submit("last", kind="scripted", depends_on=(first.id, hanging))
        for number in range(5):
            await node.run(f"{number}")
        assert node.manager.find_task(first.id) is not None
        node.manager.cancel_task(hanging)
        await node.wait(last)
        for number in range(5):
            await node.run(f"{number}")
        assert node.manager.find_task(first.id) is None
        with pytest.raises(InvalidTask, match=f"names {first.id}, which is no task of yours at this node.*forgotten"):
            node.submit("too late", depends_on=(first.id,))


# --- peers -----------------------------------------------------------------------------------------------------------


async def test_a_peer_is_asked_only_when_a_task_is_ready_and_gets_the_inputs(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """It learns nothing of the graph, and does not wait for ids that it cannot know."""
    executor = ScriptedExecutor().on("first", Delay(500), Return("done"))
    ann, ben = MemoryNode(hub, "ann"), MemoryNode(hub, "ben", [executor])
    async with ann.running(), ben.running():
        await ann.connect(ben)
        first = task(ann, "first")
        goal = task(ann, "goal", kind="echo")
        last = task(ann, "last", first.id, parent_id=goal.id)
        submit(ann, goal, first, last, target=ben)
        await executor.wait_until_begun(1)
        assert ben.manager.find_task(last.id) is None
        assert (await ann.wait(last.id)).result is not None
        sent = ben.manager.get_task(last.id).task
    assert sent.params == {INPUTS: {first.id: "done"}}
    assert (sent.depends_on, sent.parent_id) == ((), None)


async def test_a_lost_session_sends_the_same_task_again(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """The inputs are equal, so the worker attaches it to what it has."""
    executor = ScriptedExecutor().on("last", Delay(5_000), Return("done"))
    ann, ben = MemoryNode(hub, "ann"), MemoryNode(hub, "ben", [executor])
    async with ann.running(), ben.running():
        await ann.connect(ben)
        first = ann.submit("first")
        last = ann.submit("last", to=ben, kind="scripted", depends_on=(first,))
        await executor.wait_until_begun(1)
        hub.cut(ann.peer_id, ben.peer_id)
        await trio.sleep(1)
        hub.heal(ann.peer_id, ben.peer_id)
        record = await ann.wait(last)
    assert record.result is not None
    assert prompts(executor) == ["last"]


async def test_a_peer_may_let_its_tasks_depend_on_each_other_and_not_on_those_of_others(
    autojump_clock: MockClock, hub: MemoryHub
) -> None:
    """Their results reach it; a task of somebody else is as unknown as one that is not there."""
    ben = MemoryNode(hub, "ben", [ScriptedExecutor()])
    ann = MemoryNode(hub, "ann")
    async with ann.running(), ben.running():
        secret = await ben.run("secret")
        await ann.connect(ben)
        channel = ann.network.channel(ben.peer_id)
        assert channel is not None
        heard: list[object] = []
        ann.remote.received = lambda _channel, frame: heard.append(frame)  # type: ignore[method-assign,assignment]
        first = task(ann, "first")
        for one in (first, task(ann, "last", first.id), task(ann, "thief", secret.id)):
            channel.send(Submit(one))
        await trio.sleep(1)
    assert len([frame for frame in heard if isinstance(frame, Accept)]) == 2
    assert len([frame for frame in heard if isinstance(frame, Result)]) == 2
    (refused,) = [frame for frame in heard if isinstance(frame, Reject)]
    assert refused.code is ErrorCode.INVALID_TASK
    assert "no task of yours" in refused.message


# --- families --------------------------------------------------------------------------------------------------------


async def test_a_goal_is_a_task_that_depends_on_its_children(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """It ends when they have; until then it shows how far they are."""
    executor.on("slow", Delay(500), Return("late"))
    goal = new_task_id()
    parts = [task(node, "quick", parent_id=goal), task(node, "slow", parent_id=goal)]
    submit(node, task(node, "a goal", *(part.id for part in parts), id=goal, kind="echo"), *parts)
    await node.wait(parts[0].id)
    assert [record.status for record in node.manager.children(goal)] == [TaskStatus.COMPLETE, TaskStatus.EXECUTING]
    record = await node.wait(goal)
    assert record.result is not None
    assert record.result.result == "a goal"


async def test_cancelling_a_parent_cancels_its_descendants(
    autojump_clock: MockClock, node: MemoryNode, executor: ScriptedExecutor
) -> None:
    """Those that run, those that wait and those of children that have ended; none fails because another was first."""
    executor.on("hang", Hang())
    goal, planner = new_task_id(), task(node, "planner")
    submit(node, planner)
    await node.wait(planner.id)
    hanging = task(node, "hang", parent_id=planner.id)
    next_one = task(node, "next", hanging.id, parent_id=planner.id)
    submit(node, hanging, next_one)
    part = task(node, "part", next_one.id, parent_id=next_one.id)
    submit(node, part, task(node, "a goal", part.id, id=goal, parent_id=planner.id))
    await executor.wait_until_begun(2)
    assert node.manager.cancel_task(planner.id).status is TaskStatus.COMPLETE
    for one in (goal, part.id, next_one.id, hanging.id):
        assert (await node.wait(one)).status is TaskStatus.CANCELLED
    assert node.manager.open_tasks == 0


@pytest.mark.parametrize("saved", [1, 2])
async def test_a_crash_amid_the_cancels_of_a_family_leaves_none_of_it_running(
    autojump_clock: MockClock, hub: MemoryHub, saved: int
) -> None:
    """That of the parent was saved, and not those of all its children: after the restart they are cancelled too."""
    executor = ScriptedExecutor().on("hang", Hang())
    store = HeldStore()
    former = MemoryNode(hub, "ann", [executor], store=store)
    async with former.running():
        goal, hanging = task(former, "hang"), new_task_id()
        child = task(former, "hang", id=hanging, parent_id=goal.id)
        next_one = task(former, "next", hanging, parent_id=goal.id)
        submit(former, goal, child, next_one)
        await executor.wait_until_begun(2)
        store.hold()
        former.manager.cancel_task(goal.id)
        store.lose(but=saved)
    async with MemoryNode(hub, "ann", [executor], store=store, former=former).running() as node:
        for one in (goal.id, hanging, next_one.id):
            assert (await node.wait(one)).status is TaskStatus.CANCELLED
        assert node.manager.open_tasks == 0
    assert len(executor.seen) == 2


async def test_children_are_known_after_a_restart_until_they_are_forgotten(tmp_path: Any, hub: MemoryHub) -> None:
    """Finished ones too."""
    path = tmp_path / "tasks.db"
    former = MemoryNode(hub, "ann", store=SqliteStore(path))
    async with former.running():
        goal = (await former.run("goal")).id
        child = (await former.run("child", parent_id=goal)).id
    capacity = Capacity(finished_records=2)
    async with MemoryNode(hub, "ann", store=SqliteStore(path), former=former, capacity=capacity).running() as node:
        assert [record.id for record in node.manager.children(goal)] == [child]
        await node.run("one")
        await node.run("two")
        assert node.manager.children(goal) == []
