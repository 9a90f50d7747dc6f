"""Python functions as executors: what ``@node.task("summarise")`` makes of a function."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from pydantic import ValidationError
from structlog.contextvars import bind_contextvars, reset_contextvars

from node.executors.binding import Binding, function_name, not_callable
from node.executors.outcome import output_of, told_error
from node.executors.processes import ProcessRunner
from node.executors.threads import ThreadRunner
from node.interfaces import Execution, Executor, Output
from protocol import ErrorCode, PeerAdvert, PeertaskError

RunIn = Literal["loop", "thread", "process"]
"""Where a function runs: on the event loop, in a worker thread, or in a worker process."""

# A task that awaits costs a few KB, so one peer can have all that it may have in flight (DESIGN section 8) here.
LOOP_SLOTS: Final = 256
# As the standard library's thread pool: enough to wait for files and sockets, few enough not to fight over the cores.
THREAD_SLOTS: Final = min(32, (os.cpu_count() or 1) + 4)
# One process a core: more would only take turns.
PROCESS_SLOTS: Final = os.cpu_count() or 1

_DEFAULT_SLOTS: dict[RunIn, int] = {"loop": LOOP_SLOTS, "thread": THREAD_SLOTS, "process": PROCESS_SLOTS}


class CallableExecutor(Executor):
    """Carries the tasks of one kind out by calling a Python function.

    The function is called with what its parameters name: ``def f(prompt)``, ``def f(task: Task)``,
    ``def f(prompt, language="en")`` with ``language`` from the task's params; `node.executors.binding` has the rules.
    It returns text, None (the empty text), a pydantic model, dict, list or number (as JSON), an `Output`, or a tuple of
    text and artifacts. What it raises fails the task with EXECUTION_FAILED and ``TypeName: message``; the traceback
    goes to this node's log only. A `PeertaskError` keeps its code, and `Retry` asks for another attempt.

    An async function runs on the event loop, as trio code. Any other runs in a worker thread, or, when it computes, in
    a worker process (``run_in="process"``): then it must stand at the top of a module, and `node.executors.processes`
    says what the program's main module must mind.

    Cancellation, by the requester, a timeout or the end of the node, stops an async function at its next await, and
    kills a worker process. A thread cannot be stopped: its function should call ``trio.from_thread.check_cancelled()``
    now and then, which raises once the task is cancelled. A thread that has not ended 2 s later is left behind: the
    task ends, but the slot stays taken until the function does, and what it returns is dropped.

    Args:
        kind: the name that tasks ask for.
        function: what carries them out.
        run_in: where it runs; by default on the event loop when it is async, and in a thread when it is not.
        slots: how many tasks at once; by default 256 on the loop, the number of cores and 4 more (32 at the most) in
            threads, and the number of cores in processes.
        safe: whether any authenticated peer may use it; otherwise the operator lists the peers that may.

    Raises:
        PeertaskError: code INVALID_CONFIG, in words, when the function cannot be called so.
    """

    def __init__(
        self,
        kind: str,
        function: Callable[..., Any],
        *,
        run_in: RunIn | None = None,
        slots: int | None = None,
        safe: bool = False,
    ) -> None:
        _check_kind(kind)
        place = _place(function, run_in)
        self.kind = kind
        self.slots = _DEFAULT_SLOTS[place] if slots is None else slots
        self.safe = safe
        if self.slots < 1:
            raise PeertaskError(
                f"kind {kind}: {slots} slots are too few",
                code=ErrorCode.INVALID_CONFIG,
                remedy="Give at least 1, or leave slots out",
            )
        self._run = _runner(place, kind, function, self.slots)

    async def execute(self, execution: Execution) -> Output:
        """Call the function and return its output; see the class for its errors and for what cancellation does."""
        log_context = bind_contextvars(task_id=execution.task.id, attempt=execution.attempt)
        try:
            return await self._run(execution)
        finally:
            reset_contextvars(**log_context)


class LoopRunner:
    """Calls one async function on the event loop.

    Args:
        kind: what it is registered under.
        function: what to call.
        binding: its parameters.
    """

    def __init__(self, kind: str, function: Callable[..., Awaitable[object]], binding: Binding) -> None:
        self._kind = kind
        self._function = function
        self._binding = binding

    async def run(self, execution: Execution) -> Output:
        """Await the function and return its output.

        Raises:
            PeertaskError: the function failed.
        """
        arguments = self._binding.bind(execution)
        try:
            return output_of(await self._function(*arguments.args, **arguments.kwargs))
        except PeertaskError:
            raise
        except (Exception, SystemExit) as error:
            raise told_error(error, self._kind, execution) from error


def _runner(
    place: RunIn, kind: str, function: Callable[..., Any], slots: int
) -> Callable[[Execution], Awaitable[Output]]:
    binding = Binding(function)
    match place:
        case "loop":
            return LoopRunner(kind, function, binding).run
        case "thread":
            return ThreadRunner(kind, function, binding, slots).run
        case "process":
            return ProcessRunner(kind, function, binding, slots).run


def _place(function: Callable[..., Any], run_in: RunIn | None) -> RunIn:
    """Return where a function is to run; refuses what can run nowhere, or not there."""
    name = function_name(function)
    if not callable(function):
        raise not_callable(name, "it is not callable", "Register a function")
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise not_callable(name, "it yields", "Return the whole result; report how far it is through its Execution")
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
    if run_in not in (None, *_DEFAULT_SLOTS):
        raise not_callable(name, f"{run_in!r} is no place to run", "Use run_in='loop', 'thread' or 'process'")
    if is_async and run_in in ("thread", "process"):
        raise not_callable(
            name, f"it is async, and a {run_in} runs no event loop", "Leave run_in out, or make it a plain def"
        )
    if not is_async and run_in == "loop":
        raise not_callable(
            name, "it is not async, and would stop the whole node while it runs", "Leave run_in out, or make it async"
        )
    return run_in or ("loop" if is_async else "thread")


def _check_kind(kind: str) -> None:
    try:
        # Peers see the kind in the advert, so what stands there decides.
        PeerAdvert(kinds=(kind,))
    except ValidationError as error:
        raise PeertaskError(
            f"{kind!r:.80} cannot be a kind: {error.errors()[0]['msg']}",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Use a name such as summarise or image.resize-2",
        ) from error
