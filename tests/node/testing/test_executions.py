"""Tasks, executions and executors for tests."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.interfaces import Output
from node.testing import (
    TEST_PEER,
    Delay,
    FakeExecution,
    Hang,
    Raise,
    Report,
    Return,
    ScriptedExecutor,
    Until,
    check_executor,
    make_task,
)
from protocol import InvalidTask, PeerId, new_task_id


def test_a_task_needs_no_fields() -> None:
    """A test names only the fields that it is about, and each task has an id of its own."""
    task, other = make_task(), make_task("count", priority=9, id=(task_id := new_task_id()), sender="me")
    assert task.id != other.id
    assert (task.sender, task.priority) == (TEST_PEER, 5)
    assert (other.id, other.prompt, other.priority, other.sender) == (task_id, "count", 9, "me")
    with pytest.raises(InvalidTask, match="priority"):
        make_task(priority=999)


def test_an_execution_remembers_what_is_reported() -> None:
    """What an executor tells can be looked at afterwards."""
    execution = FakeExecution("count", attempt=3, holder=PeerId("me"), remaining_ms=40, params={"to": 10})
    execution.started()
    execution.progress(0.5)
    execution.progress(1.0, "done")
    assert (execution.task.prompt, execution.task.params) == ("count", {"to": 10})
    assert (execution.attempt, execution.holder, execution.remaining_ms()) == (3, "me", 40)
    assert (execution.starts, execution.reports) == (1, [(0.5, ""), (1.0, "done")])


def test_an_execution_takes_a_task_that_is_there() -> None:
    """A test may bring its own task."""
    task = make_task()
    assert FakeExecution(task).task is task


async def test_a_script_belongs_to_a_prompt() -> None:
    """Scripts for a prompt are played one after the other, and the last one again; other prompts come back."""
    executor = ScriptedExecutor().on("a", Return("first")).on("a", Return(Output("second")))
    texts = [(await executor.execute(FakeExecution(prompt))).text for prompt in ("a", "b", "a", "a")]
    assert texts == ["first", "b", "second", "second"]


async def test_outcomes_may_come_in_order_whatever_the_prompt() -> None:
    """Outcomes given with `then` are used once each; after the last one, tasks get their prompts back."""
    executor = ScriptedExecutor().then(Raise(OSError("disk full")), (Report(0.5, "half"), Return("ok")))
    with pytest.raises(OSError, match="disk full"):
        await executor.execute(FakeExecution("a"))
    execution = FakeExecution("b")
    assert await executor.execute(execution) == Output("ok")
    assert execution.reports == [(0.5, "half")]
    assert await executor.execute(FakeExecution("c")) == Output("c")


async def test_an_executor_remembers_what_it_saw(autojump_clock: MockClock) -> None:
    """Task, attempt, holder and ending of each execution can be looked at, and how many there were at once."""
    executor = (
        ScriptedExecutor()
        .on("hangs", Hang())
        .on("fails", Delay(5), Raise(ValueError("no such page")))
        .on("waits", Delay(10))
    )
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.execute, FakeExecution("hangs", attempt=2, holder=PeerId("me")))
            await executor.wait_until_begun(1)
            nursery.start_soon(executor.execute, FakeExecution("waits"))
            await executor.wait_until_ended(1)
            assert trio.current_time() == pytest.approx(0.01)
            assert executor.running == 1
    with pytest.raises(ValueError, match="no such page"):
        await executor.execute(FakeExecution("fails"))
    first, second, third = executor.seen
    assert (first.task.prompt, first.attempt, first.holder) == ("hangs", 2, "me")
    assert [first.ended, second.ended, third.ended] == ["cancelled", "returned", "raised"]
    assert (executor.most_at_once, executor.running) == (2, 0)


async def test_an_execution_may_wait_for_the_test() -> None:
    """An event of the test decides when an execution goes on."""
    event, outputs = trio.Event(), []
    executor = ScriptedExecutor().on("a", Until(event), Return("done"))

    async def run() -> None:
        outputs.append(await executor.execute(FakeExecution("a")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        assert outputs == []
        event.set()
    assert outputs == [Output("done")]


async def test_the_scripted_executor_keeps_the_contract_of_executors(autojump_clock: MockClock) -> None:
    """The double passes the checker of what it stands for."""
    await check_executor(
        lambda: ScriptedExecutor().on("hang", Hang()).on("fail", Raise(OSError())),
        make_task(),
        endless_task=make_task("hang"),
        failing_task=make_task("fail"),
    )
