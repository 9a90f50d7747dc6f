"""Functions in worker threads: progress, cancellation, and those that do not look whether they are cancelled."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from node.executors.callable import CallableExecutor
from node.executors.threads import BUSY_RETRY_MS, CANCEL_GRACE_S
from node.interfaces import Execution
from node.testing import FakeExecution, check_executor, make_task
from protocol import ErrorCode, PeertaskError


class LoopExecution(FakeExecution):
    """Notes in which thread it is told things."""

    def __init__(self) -> None:
        super().__init__(remaining_ms=500)
        self.threads: set[int] = set()

    def started(self) -> None:
        """Note the thread."""
        super().started()
        self.threads.add(threading.get_ident())

    def progress(self, fraction: float, message: str = "") -> None:
        """Note the thread."""
        super().progress(fraction, message)
        self.threads.add(threading.get_ident())


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when a thread, which nothing in trio can wait for, has brought a condition about; 10 s at the most."""
    for _ in range(1_000):
        if condition():
            return
        await trio.to_thread.run_sync(time.sleep, 0.01)
    raise AssertionError("the condition did not come about")


async def test_a_function_that_blocks_leaves_the_event_loop_alone() -> None:
    """The loop goes on while a function waits: here it is the loop that lets the function go on."""
    opened = threading.Event()
    thread_ids = []

    def wait(prompt: str) -> str:
        thread_ids.append(threading.get_ident())
        opened.wait()
        return prompt

    async with trio.open_nursery() as nursery:
        nursery.start_soon(CallableExecutor("work", wait).execute, FakeExecution())
        await eventually(lambda: bool(thread_ids))
        opened.set()
    assert thread_ids != [threading.get_ident()]


async def test_progress_from_a_thread_arrives_on_the_event_loop_in_order() -> None:
    """A function may report from its thread: the reports are taken on the loop, and all before the end."""

    def work(prompt: str, execution: Execution) -> str:
        execution.started()
        for step in range(5):
            execution.progress(step / 5, f"step {step}")
        return f"{prompt} {execution.task.id} {execution.attempt} {execution.holder} {execution.remaining_ms()}"

    execution = LoopExecution()
    output = await CallableExecutor("work", work).execute(execution)
    assert output.text == f"a prompt {execution.task.id} 1 {execution.holder} 500"
    assert execution.starts == 1
    assert execution.reports == [(step / 5, f"step {step}") for step in range(5)]
    assert execution.threads == {threading.get_ident()}


async def test_a_thread_that_looks_is_gone_when_its_execution_ends() -> None:
    """`trio.from_thread.check_cancelled` raises in the function once the task is cancelled, within the grace."""
    steps = []

    def look(_prompt: str) -> None:
        steps.append("begun")
        try:
            while True:
                trio.from_thread.check_cancelled()
                time.sleep(0.001)
        finally:
            steps.append("ended")

    begun_at = trio.current_time()
    with trio.move_on_after(0.05) as scope:
        await CallableExecutor("work", look).execute(FakeExecution())
    assert scope.cancelled_caught
    assert steps == ["begun", "ended"]
    assert trio.current_time() - begun_at < CANCEL_GRACE_S


async def test_a_function_that_catches_exceptions_cannot_catch_the_cancellation() -> None:
    """``except Exception`` in a function does not keep it alive."""

    def stubborn(_prompt: str) -> None:
        while True:
            try:
                trio.from_thread.check_cancelled()
                time.sleep(0.001)
            except Exception:  # noqa: BLE001, S110 - what such functions do
                pass

    with trio.fail_after(10), trio.move_on_after(0.02) as scope:
        await CallableExecutor("work", stubborn).execute(FakeExecution())
    assert scope.cancelled_caught


async def test_a_thread_that_does_not_look_keeps_its_slot_until_it_ends(autojump_clock: MockClock) -> None:
    """Its task ends after the grace; until the thread does, the executor is busy; then its result is dropped."""
    release, threads = threading.Event(), []

    def blind(prompt: str) -> str:
        threads.append(prompt)
        if prompt == "blind":
            release.wait()
        return prompt

    executor = CallableExecutor("work", blind, slots=1)
    execution = FakeExecution("blind", attempt=2)
    with capture_logs() as logs:
        with trio.move_on_after(1) as scope:
            await executor.execute(execution)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1 + CANCEL_GRACE_S)
        with pytest.raises(PeertaskError, match="all 1 threads of kind work are taken") as busy:
            await executor.execute(FakeExecution("next"))
        assert (busy.value.code, busy.value.retry_after_ms) == (ErrorCode.BUSY, BUSY_RETRY_MS)
        release.set()
        await eventually(lambda: len(logs) == 2)
    assert [record["event"] for record in logs] == [
        "function does not look whether it is cancelled; its thread keeps a slot until it ends",
        "cancelled function has ended at last; what it returned is dropped",
    ]
    for record in logs:
        assert (record["kind"], record["task_id"], record["attempt"]) == ("work", execution.task.id, 2)
    assert (await executor.execute(FakeExecution("next"))).text == "next"
    assert threads == ["blind", "next"]


async def test_a_function_that_fails_after_it_was_left_behind_is_logged(autojump_clock: MockClock) -> None:
    """Nobody waits for it any more, but its error is not lost."""
    release = threading.Event()

    def blind(prompt: str) -> None:
        release.wait()
        raise ValueError(prompt)

    executor = CallableExecutor("work", blind, slots=1)
    with capture_logs() as logs:
        with trio.move_on_after(1):
            await executor.execute(FakeExecution("too late"))
        release.set()
        await eventually(lambda: len(logs) == 3)
    assert [record["event"] for record in logs][1] == "function failed"


async def test_a_task_that_is_cancelled_before_its_thread_begins_calls_nothing() -> None:
    """A cancelled execution does not start what it would have to stop."""
    calls: list[str] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await CallableExecutor("work", calls.append).execute(FakeExecution())
    assert scope.cancelled_caught
    assert calls == []


async def test_it_keeps_the_contract_of_executors() -> None:
    """A function that looks whether it is cancelled passes the checker as an executor."""

    def work(prompt: str) -> str:
        while prompt == "endless":
            trio.from_thread.check_cancelled()
            time.sleep(0.001)
        if prompt == "failing":
            raise ValueError(prompt)
        return prompt

    with capture_logs():
        await check_executor(
            partial(CallableExecutor, "work", work),
            make_task(),
            endless_task=make_task("endless"),
            failing_task=make_task("failing"),
        )
