"""What every executor must do."""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.interfaces import Execution, Executor, Output
from node.testing.contract import ContractViolation, promise
from node.testing.executions import FakeExecution
from protocol import ErrorCode, PeerAdvert, PeertaskError, Task, TaskResult

# Long enough for a worker process to start on a busy machine.
RESULT_LIMIT_S = 60.0
# As many at once as shows that they do not wait for each other or share state; an executor may have 256 slots.
MANY_AT_ONCE = 4
# When an execution is cancelled: before it has done anything, while it still sets up, and when it is at work.
_MOMENTS_S = (0.0, 0.01, 1.0)


async def check_executor(
    make_executor: Callable[[], Executor],
    task: Task,
    *,
    endless_task: Task | None = None,
    failing_task: Task | None = None,
    stop_limit_s: float = 10.0,
) -> None:
    """Check that an executor keeps the contract of `Executor`.

    Args:
        make_executor: returns the executor, a fresh one each time.
        task: one that it completes.
        endless_task: one that it would work on for longer than a minute, when it has such tasks.
        failing_task: one that it fails, when it has such tasks.
        stop_limit_s: how long it may take to stop when it is cancelled, in seconds.

    Raises:
        ContractViolation: names the promise that is broken.
    """
    _check_attributes(make_executor())
    await _check_result(make_executor(), task)
    await _check_many_at_once(make_executor(), task)
    if failing_task is not None:
        await _check_failure(make_executor(), failing_task)
    if endless_task is not None:
        await _check_cancellation(make_executor(), task, endless_task, stop_limit_s)


def _check_attributes(executor: Executor) -> None:
    # What peers are told of it must be sayable.
    advert = PeerAdvert(kinds=(executor.kind,), slots=executor.slots)
    promise(advert.slots >= 1, "an executor has a slot at least")
    promise(isinstance(executor.safe, bool), "an executor says whether it is safe")


async def _check_result(executor: Executor, task: Task) -> None:
    execution = FakeExecution(task)
    output = await _execute(executor, execution)
    try:
        TaskResult(task.id, output.text, 0, output.artifacts)
    except ValueError as error:
        raise ContractViolation(f"an output fits a TaskResult: {error}") from error
    promise(all(0 <= fraction <= 1 for fraction, _ in execution.reports), "progress is a fraction from 0 to 1")


async def _check_many_at_once(executor: Executor, task: Task) -> None:
    outputs: list[Output] = []

    async def run() -> None:
        outputs.append(await _execute(executor, FakeExecution(task)))

    count = min(executor.slots, MANY_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(run)
    promise(len(outputs) == count, "an executor fills its slots")


async def _check_failure(executor: Executor, task: Task) -> None:
    for _ in range(executor.slots + 1):
        error = await _error_of(executor, task)
        promise(error is not None, "a task that cannot be done raises an error")
        busy = isinstance(error, PeertaskError) and error.code is ErrorCode.BUSY
        promise(not busy, "an execution that failed gives its slot back")


async def _check_cancellation(executor: Executor, task: Task, endless_task: Task, stop_limit_s: float) -> None:
    for begun_s in _MOMENTS_S:
        took_s = await _cancel_after(executor, endless_task, begun_s)
        promise(
            took_s <= stop_limit_s, f"an execution that is cancelled ends within {stop_limit_s} s, not {took_s:.1f} s"
        )
    await _execute(executor, FakeExecution(task))


async def _cancel_after(executor: Executor, task: Task, begun_s: float) -> float:
    """Return how long it took an execution to end after it was cancelled, in seconds."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.execute, FakeExecution(task))
        await trio.sleep(begun_s)
        ended_early = not nursery.child_tasks
        nursery.cancel_scope.cancel()
        cancelled_at = trio.current_time()
    promise(not ended_early, "the endless task does not end by itself")
    return trio.current_time() - cancelled_at


async def _error_of(executor: Executor, task: Task) -> Exception | None:
    try:
        await _execute(executor, FakeExecution(task))
    except Exception as error:  # noqa: BLE001 - any error fails the task, which is what was asked for
        return error
    return None


async def _execute(executor: Executor, execution: Execution) -> Output:
    with trio.fail_after(RESULT_LIMIT_S):
        return await executor.execute(execution)
