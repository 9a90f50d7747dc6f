"""Functions in worker processes: what comes back, what fails, and that no process outlives its task or its node."""

import json
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import trio
import trio_parallel
from structlog.testing import capture_logs

from node.executors.callable import CallableExecutor
from node.interfaces import Output
from node.testing import FakeExecution, check_executor, make_task
from protocol import Artifact, ErrorCode, PeertaskError, TaskFailed
from tests.node.executors import functions

# A worker process takes about a second to start on a busy machine, and one that is killed is gone at once.
LIMIT_S = 30.0

PROJECT = Path(__file__).parents[3]


@pytest.fixture
async def line() -> AsyncIterator[trio.SocketListener]:
    """A port where `functions.hold_line` reports; the line is cut when the process that holds it is gone."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener


def port_of(line: trio.SocketListener) -> str:
    """Where `functions.hold_line` is to report, as a prompt."""
    return str(line.socket.getsockname()[1])


async def worker_of(line: trio.SocketListener) -> trio.SocketStream:
    """Return the line to the process that reports, once it is busy."""
    stream = await line.accept()
    assert await stream.receive_some() == b"busy"
    return stream


async def run(function: Callable[..., Any], prompt: str = "a prompt", **fields: Any) -> Output:
    """What a worker process makes of a prompt."""
    with trio.fail_after(LIMIT_S):
        return await CallableExecutor("work", function, run_in="process").execute(FakeExecution(prompt, **fields))


async def test_a_function_runs_in_another_process() -> None:
    """The work is done elsewhere, and idle workers are used again."""
    first, second = await run(functions.process_id), await run(functions.process_id)
    assert first.text != str(os.getpid())
    assert first == second


async def test_a_worker_process_imports_neither_libp2p_nor_trio() -> None:
    """A worker starts quickly and stays small: it has what the function needs, and no network."""
    modules = set(json.loads((await run(functions.modules)).text))
    assert "tests.node.executors.functions" in modules
    assert modules.isdisjoint({"libp2p", "trio", "node.app", "node.executors.callable"})


async def test_the_event_loop_goes_on_while_a_function_computes(tmp_path: Path) -> None:
    """A function that keeps a core busy does not keep the node from anything: here it is the loop that ends it."""
    there = tmp_path / "there"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, functions.compute_until_there, str(there))
        for _ in range(20):
            await trio.sleep(0.01)
        there.touch()


async def test_a_task_with_its_params_arrives_and_results_come_back_whole() -> None:
    """Tasks, params, models and artifacts cross between the processes without loss."""
    execution = FakeExecution("hé", params={"width": 3})
    output = await CallableExecutor("work", functions.describe, run_in="process").execute(execution)
    assert json.loads(output.text) == {"task": execution.task.to_dict(), "width": 3}
    assert json.loads((await run(functions.point, "4")).text)["x"] == 4
    assert await run(functions.with_artifact, "hé") == Output("hé", (Artifact(name="copy", content="hé"),))


async def test_what_a_function_logs_names_its_task() -> None:
    """The context of structlog has the task and the attempt in the worker process too."""
    execution = FakeExecution(attempt=3)
    output = await CallableExecutor("work", functions.log_context, run_in="process").execute(execution)
    assert json.loads(output.text) == {"task_id": execution.task.id, "attempt": 3}


async def test_an_exception_is_told_in_short_and_logged_in_full() -> None:
    """Also one that pickle cannot rebuild: type and message for the requester, the worker's traceback for the log."""
    execution = FakeExecution("one", attempt=2)
    with capture_logs() as logs, pytest.raises(PeertaskError, match=r"^NeedsTwo: one and nothing$") as failed:
        await CallableExecutor("work", functions.fail, run_in="process").execute(execution)
    assert failed.value.code is ErrorCode.EXECUTION_FAILED
    (record,) = logs
    assert (record["kind"], record["task_id"], record["attempt"]) == ("work", execution.task.id, 2)
    assert "in fail" in record["exception"]


async def test_an_error_with_a_code_keeps_it() -> None:
    """Code, message and waiting time of a `PeertaskError` come back; there is no traceback to log."""
    with capture_logs() as logs, pytest.raises(PeertaskError, match="not on Sundays") as refused:
        await run(functions.refuse, "not on Sundays")
    assert (refused.value.code, refused.value.retry_after_ms) == (ErrorCode.FORBIDDEN, 70)
    assert logs == []


async def test_a_function_can_ask_for_another_attempt() -> None:
    """`Retry` comes back as a failure that is retryable."""
    with pytest.raises(TaskFailed, match="still loading") as failed:
        await run(functions.ask_for_another_attempt, "still loading")
    assert failed.value.failure.retryable


@pytest.mark.parametrize(
    ("function", "prompt", "message"),
    [
        (functions.leave, "", "SystemExit: 3"),
        (functions.return_an_object, "", "returned a lock, which is not a result"),
        (functions.exit_at_once, "", r"worker process of exit_at_once died \(exit code 4\)"),
        (functions.die, "SIGKILL", r"worker process of die died \(killed by SIGKILL\)"),
        (functions.die, "SIGSEGV", r"worker process of die died \(killed by SIGSEGV\)"),
    ],
)
async def test_a_function_that_ends_badly_fails_its_task_only(
    function: Callable[..., Any], prompt: str, message: str
) -> None:
    """Whatever a function does to its process, the requester gets a reason, and the next task runs."""
    with capture_logs(), pytest.raises(PeertaskError, match=message) as failed:
        await run(function, prompt)
    assert failed.value.code is ErrorCode.EXECUTION_FAILED
    assert (await run(functions.process_id)).text


async def test_a_function_that_the_worker_cannot_find_fails_with_the_reason() -> None:
    """A function under a name that its module does not have cannot be imported, and the error says so."""
    ghost = FunctionType(functions.process_id.__code__, {"__name__": functions.__name__}, "ghost")
    ghost.__qualname__ = "ghost"
    with capture_logs(), pytest.raises(PeertaskError, match=r"AttributeError: .*ghost"):
        await run(ghost)


async def test_cancelling_kills_the_process(line: trio.SocketListener) -> None:
    """A function that computes without end is gone when its execution ends, and the slot is free."""
    executor = CallableExecutor("work", functions.hold_line, run_in="process", slots=1)
    for _ in range(2):
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(executor.execute, FakeExecution(port_of(line)))
                worker = await worker_of(line)
                nursery.cancel_scope.cancel()
            async with worker:
                assert await worker.receive_some() == b""


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.5])
async def test_a_timeout_leaves_no_process_behind(seconds: float, line: trio.SocketListener) -> None:
    """A deadline ends a worker whenever it passes: before it starts, while it starts, while it computes."""
    with trio.move_on_after(seconds) as scope:
        await CallableExecutor("work", functions.hold_line, run_in="process").execute(FakeExecution(port_of(line)))
    assert scope.cancelled_caught
    assert len(multiprocessing.active_children()) == trio_parallel.default_context_statistics().idle_workers


async def test_a_busy_worker_dies_with_a_node_that_is_killed(line: trio.SocketListener) -> None:
    """``kill -9`` of the node leaves no process that computes for nobody."""
    command = [sys.executable, "-m", "tests.node.executors.process_parent", port_of(line)]
    with trio.fail_after(LIMIT_S):
        node = await trio.lowlevel.open_process(command, cwd=PROJECT)
        worker = await worker_of(line)
        node.kill()
        await node.wait()
        async with worker:
            assert await worker.receive_some() == b""


async def test_it_keeps_the_contract_of_executors() -> None:
    """A function in worker processes passes the checker as an executor."""
    with capture_logs():
        await check_executor(
            partial(CallableExecutor, "work", functions.process_id, run_in="process", slots=2), make_task()
        )
        await check_executor(
            partial(CallableExecutor, "work", functions.obey, run_in="process", slots=2),
            make_task("return"),
            endless_task=make_task("hang"),
            failing_task=make_task("fail"),
        )
