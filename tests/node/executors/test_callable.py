"""Functions as executors: where they run, what they may be, and async ones on the event loop."""

import functools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars
from structlog.testing import capture_logs
from trio.testing import MockClock

from node.executors.callable import LOOP_SLOTS, PROCESS_SLOTS, THREAD_SLOTS, CallableExecutor
from node.executors.retry import Retry
from node.interfaces import Execution, Output
from node.testing import FakeExecution, check_executor, make_task
from protocol import ErrorCode, InvalidTask, PeertaskError, TaskRejected
from tests.node.executors import functions

PROJECT = Path(__file__).parents[3]


async def _on_loop(prompt: str) -> str:
    await trio.sleep(0)
    return f"loop: {prompt}"


def _in_thread(prompt: str) -> str:
    return f"thread: {prompt}"


async def _yields(prompt: str) -> AsyncIterator[str]:
    yield prompt


def _generates(prompt: str) -> Iterator[str]:
    yield prompt


class _Callee:
    def __call__(self, prompt: str) -> str:
        return prompt

    def method(self, prompt: str) -> str:
        return prompt


class _AsyncCallee:
    async def __call__(self, prompt: str) -> str:
        return f"async object: {prompt}"


# --- registration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "run_in", "slots"),
    [
        (_on_loop, None, LOOP_SLOTS),
        (_on_loop, "loop", LOOP_SLOTS),
        (_AsyncCallee(), None, LOOP_SLOTS),
        (functools.partial(_on_loop, "x"), None, LOOP_SLOTS),
        (_in_thread, None, THREAD_SLOTS),
        (_in_thread, "thread", THREAD_SLOTS),
        (_Callee(), None, THREAD_SLOTS),
        (_in_thread, "process", PROCESS_SLOTS),
    ],
)
def test_a_function_says_where_it_runs(function: Callable[..., Any], run_in: Any, slots: int) -> None:
    """Async functions run on the loop, others in threads or, when asked for, in processes; each place has its slots."""
    executor = CallableExecutor("work", function, run_in=run_in)
    assert (executor.kind, executor.slots, executor.safe) == ("work", slots, False)


def test_slots_and_safety_can_be_chosen() -> None:
    """Whoever registers a function knows how many at once it bears, and whether anybody may use it."""
    executor = CallableExecutor("work", _in_thread, slots=3, safe=True)
    assert (executor.slots, executor.safe) == (3, True)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("no function", {}, "not callable"),
        (_yields, {}, "yields"),
        (_generates, {}, "yields"),
        (_on_loop, {"run_in": "thread"}, "async, and a thread runs no event loop"),
        (_on_loop, {"run_in": "process"}, "async, and a process runs no event loop"),
        (_in_thread, {"run_in": "loop"}, "not async, and would stop the whole node"),
        (_in_thread, {"run_in": "moon"}, "'moon' is no place to run"),
        (_in_thread, {"slots": 0}, "0 slots are too few"),
        (lambda prompt: prompt, {"run_in": "process"}, "<lambda> cannot carry tasks out: a worker process imports it"),
        (_Callee(), {"run_in": "process"}, "a worker process imports it by name"),
        (_Callee().method, {"run_in": "process"}, "a worker process imports it by name"),
        (functools.partial(_in_thread, "x"), {"run_in": "process"}, "a worker process imports it by name"),
    ],
)
def test_what_cannot_run_is_refused_at_registration(function: Any, options: dict[str, Any], message: str) -> None:
    """A mistake shows when the node is set up, in words and with a remedy, and not when the first task comes."""
    with pytest.raises(PeertaskError, match=message) as refused:
        CallableExecutor("work", function, **options)
    assert refused.value.code is ErrorCode.INVALID_CONFIG
    assert refused.value.remedy


def test_a_closure_is_refused_for_processes() -> None:
    """A function within another cannot be imported, whatever it is called."""

    def closure(prompt: str) -> str:
        return prompt

    with pytest.raises(PeertaskError, match="Define it with def outside any other function"):
        CallableExecutor("work", closure, run_in="process")


def test_a_function_that_was_typed_in_is_refused_for_processes() -> None:
    """What stands in no file cannot be imported by another process."""
    typed = """
from node.executors.callable import CallableExecutor
def typed(prompt): return prompt
CallableExecutor("work", typed, run_in="process")
"""
    python = subprocess.run(
        [sys.executable, "-c", typed], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert python.returncode == 1
    assert "typed cannot carry tasks out: it was typed into an interpreter" in python.stderr


def test_a_function_that_wants_its_execution_is_refused_for_processes() -> None:
    """Progress cannot be told from another process, so asking for the means is a mistake."""
    with pytest.raises(PeertaskError, match="Execution cannot be used from a worker process"):
        CallableExecutor("work", _wants_execution, run_in="process")


def _wants_execution(prompt: str, execution: Execution) -> str:
    execution.progress(0.5, "half")
    return prompt


@pytest.mark.parametrize("kind", ["", "two words", "x" * 200, "-x", 7])
def test_a_kind_that_no_task_can_name_is_refused(kind: Any) -> None:
    """A kind follows the same rules here as in a task."""
    with pytest.raises(PeertaskError, match="cannot be a kind"):
        CallableExecutor(kind, _in_thread)


# --- on the event loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "text"), [(_on_loop, "loop: hi"), (_AsyncCallee(), "async object: hi"), (_in_thread, "thread: hi")]
)
async def test_a_function_is_called_with_the_prompt(function: Callable[..., Any], text: str) -> None:
    """The simplest function takes text and returns text."""
    assert await CallableExecutor("work", function).execute(FakeExecution("hi")) == Output(text)


async def test_a_function_gets_params_and_reports_progress() -> None:
    """Params come by name, and the execution takes reports."""

    async def summarise(prompt: str, *, language: str, execution: Execution) -> dict[str, str]:
        execution.progress(0.5, "half")
        await trio.sleep(0)
        return {"prompt": prompt, "language": language}

    execution = FakeExecution("hi", params={"language": "en"})
    output = await CallableExecutor("summarise", summarise).execute(execution)
    assert output.text == '{"prompt":"hi","language":"en"}'
    assert execution.reports == [(0.5, "half")]


async def test_params_that_do_not_fit_fail_the_task_as_invalid() -> None:
    """A param that the function does not take is the requester's mistake."""
    with pytest.raises(InvalidTask, match="does not take language"):
        await CallableExecutor("work", _on_loop).execute(FakeExecution(params={"language": "en"}))


async def _async_fail(prompt: str) -> None:
    async with trio.open_nursery():
        raise ValueError(prompt)


def _sync_fail(prompt: str) -> None:
    raise ValueError(prompt)


@pytest.mark.parametrize("function", [_async_fail, _sync_fail])
async def test_an_exception_is_told_in_short_and_logged_in_full(function: Callable[..., Any]) -> None:
    """The requester gets type and message; the traceback, the task and the attempt stand in this node's log."""
    execution = FakeExecution("no such page", attempt=2)
    with capture_logs() as logs, pytest.raises(PeertaskError) as failed:
        await CallableExecutor("work", function).execute(execution)
    assert failed.value.code is ErrorCode.EXECUTION_FAILED
    assert str(failed.value) == "ValueError: no such page"
    (record,) = logs
    assert record["event"] == "function failed"
    assert (record["kind"], record["task_id"], record["attempt"]) == ("work", execution.task.id, 2)
    assert record["exc_info"].__traceback__ is not None


async def _async_leave(_prompt: str) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("function", [_async_leave, functions.leave])
async def test_a_function_cannot_end_the_node(function: Callable[..., Any]) -> None:
    """``sys.exit()`` in a function fails its task, and nothing else."""
    with capture_logs(), pytest.raises(PeertaskError, match="SystemExit: 3"):
        await CallableExecutor("work", function).execute(FakeExecution())


async def _async_stop(_prompt: str) -> None:
    raise StopAsyncIteration


def _sync_stop(_prompt: str) -> None:
    raise StopIteration


@pytest.mark.parametrize(("function", "name"), [(_async_stop, "StopAsyncIteration"), (_sync_stop, "StopIteration")])
async def test_an_exception_that_python_treats_specially_is_told_like_others(
    function: Callable[..., Any], name: str
) -> None:
    """An iteration that ends where it should not is a failure with its own name."""
    with capture_logs(), pytest.raises(PeertaskError, match=f"^{name}$"):
        await CallableExecutor("work", function).execute(FakeExecution())


async def _async_refuse(prompt: str) -> None:
    raise TaskRejected(prompt, retry_after_ms=70)


@pytest.mark.parametrize("function", [_async_refuse, functions.refuse])
async def test_an_error_with_a_code_passes_unchanged(function: Callable[..., Any]) -> None:
    """A function that raises a `PeertaskError` decides itself what follows, and its traceback is nobody's business."""
    with capture_logs() as logs, pytest.raises(TaskRejected, match="not on Sundays") as refused:
        await CallableExecutor("work", function).execute(FakeExecution("not on Sundays"))
    assert (refused.value.code, refused.value.retry_after_ms) == (ErrorCode.FORBIDDEN, 70)
    assert logs == []


async def test_a_function_can_ask_for_another_attempt() -> None:
    """`Retry` comes out as a failure that is retryable."""
    with pytest.raises(Retry) as failed:
        await CallableExecutor("work", functions.ask_for_another_attempt).execute(FakeExecution("still loading"))
    assert failed.value.failure.retryable


async def _async_log_context(_prompt: str) -> dict[str, Any]:
    return get_contextvars()


@pytest.mark.parametrize("function", [_async_log_context, functions.log_context])
async def test_what_a_function_logs_names_its_task(function: Callable[..., Any]) -> None:
    """The context of structlog has the task and the attempt while the function runs, and is as before afterwards."""
    execution = FakeExecution(attempt=3)
    clear_contextvars()
    bind_contextvars(attempt="outside")
    output = await CallableExecutor("work", function).execute(execution)
    assert json.loads(output.text) == {"task_id": execution.task.id, "attempt": 3}
    assert get_contextvars() == {"attempt": "outside"}
    clear_contextvars()


async def test_cancelling_stops_an_async_function_at_once(autojump_clock: MockClock) -> None:
    """A function that awaits is gone, its ``finally`` included, when the execution ends."""
    # covers CORE-21
    steps = []

    async def sleep(prompt: str) -> str:
        try:
            await trio.sleep(3600)
        finally:
            steps.append("cleaned up")
        return prompt

    with trio.move_on_after(1) as scope:
        await CallableExecutor("work", sleep).execute(FakeExecution())
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert steps == ["cleaned up"]


async def test_it_keeps_the_contract_of_executors(autojump_clock: MockClock) -> None:
    """An async function passes the checker as an executor."""

    async def work(prompt: str) -> str:
        await trio.sleep({"endless": 3600}.get(prompt, 0.01))
        if prompt == "failing":
            raise ValueError(prompt)
        return prompt

    with capture_logs():
        await check_executor(
            lambda: CallableExecutor("work", work),
            make_task(),
            endless_task=make_task("endless"),
            failing_task=make_task("failing"),
        )
