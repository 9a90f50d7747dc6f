"""Graphs of which peers carry out tasks, or which peers submit."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from node.coordination.dependencies import INPUTS
from node.testing import (
    Delay,
    MemoryHub,
    Return,
    ScriptedExecutor,
)
from protocol import (
    Accept,
    ErrorCode,
    Reject,
    Result,
    Submit,
)
from tests.node.graphs.scenes import prompts, submit, task
from tests.node.memory_node import MemoryNode


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
