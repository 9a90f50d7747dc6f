"""What becomes of those that depend on a task that fails, is cancelled or is late."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from node.coordination.dependencies import INPUTS
from node.testing import (
    Delay,
    Hang,
    HeldStore,
    MemoryHub,
    Raise,
    Return,
    ScriptedExecutor,
)
from protocol import (
    ErrorCode,
    PeerId,
    Task,
    TaskStatus,
    new_task_id,
)
from tests.node.graphs.scenes import prompts, submit, task
from tests.node.memory_node import MemoryNode


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
