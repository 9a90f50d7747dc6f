"""Functions that compute, each call in a worker process, so that the event loop stays free and all cores are used.

The processes belong to trio-parallel: it starts one when it needs one, keeps idle ones for the next call (they end by
themselves after 10 minutes, and with the program), and kills the process of a call that is cancelled. A program whose
main module registers such functions must guard what it runs with ``if __name__ == "__main__":``, because every worker
process imports the main module.

trio-parallel pickles between this process and its own children, over a pipe that nobody else can write to; nothing
pickled ever goes to or comes from the network.
"""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable

import structlog
import trio
import trio_parallel

from node.executors.binding import Binding, Source, function_name, not_callable
from node.executors.process_entry import WorkerFailure, call_by_name
from node.interfaces import Execution, Output
from protocol import ErrorCode, PeertaskError, TaskFailed

log = structlog.get_logger(__name__)


class ProcessRunner:
    """Calls one function in worker processes, by its name.

    Args:
        kind: what it is registered under.
        function: what to call.
        binding: its parameters.
        slots: how many processes there are at the most.

    Raises:
        PeertaskError: code INVALID_CONFIG, when another process cannot import the function, or it wants its
            `Execution`.
    """

    def __init__(self, kind: str, function: Callable[..., object], binding: Binding, slots: int) -> None:
        self._kind = kind
        self._module, self._qualified_name = importable_name(function)
        if binding.takes(Source.EXECUTION):
            raise not_callable(
                function_name(function),
                "an Execution cannot be used from a worker process",
                "Take the Task instead, or run the function in a thread",
            )
        self._binding = binding
        self._limiter = trio.CapacityLimiter(slots)

    async def run(self, execution: Execution) -> Output:
        """Call the function in a process and return its output.

        Cancellation kills the process and waits until it is gone. Programs that the function itself has started are not
        stopped with it.

        Raises:
            PeertaskError: the function failed, or its process died.
        """
        arguments = self._binding.bind(execution)
        try:
            outcome: Output | WorkerFailure = await trio_parallel.run_sync(
                call_by_name,
                self._module,
                self._qualified_name,
                arguments.args,
                arguments.kwargs,
                {"task_id": execution.task.id, "attempt": execution.attempt},
                kill_on_cancel=True,
                limiter=self._limiter,
            )
        except trio_parallel.BrokenWorkerError as error:
            raise self._died(error) from error
        if isinstance(outcome, WorkerFailure):
            raise self._failed(outcome, execution)
        return outcome

    def _failed(self, outcome: WorkerFailure, execution: Execution) -> PeertaskError:
        if outcome.traceback:
            log.warning(
                "function failed",
                kind=self._kind,
                task_id=execution.task.id,
                attempt=execution.attempt,
                exception=outcome.traceback,
            )
        error = TaskFailed(outcome.failure)
        error.retry_after_ms = outcome.retry_after_ms
        return error

    def _died(self, error: trio_parallel.BrokenWorkerError) -> PeertaskError:
        exit_code = getattr(error.args[-1], "exitcode", None)
        how = (
            f"killed by {signal.Signals(-exit_code).name}" if exit_code and exit_code < 0 else f"exit code {exit_code}"
        )
        return PeertaskError(
            f"the worker process of {self._qualified_name} died ({how})",
            code=ErrorCode.EXECUTION_FAILED,
            remedy="Look at what it wrote to stderr. SIGKILL often means that the machine ran out of memory, SIGSEGV a "
            'defect in a native library, exit code 1 a main module without: if __name__ == "__main__":',
        )


def importable_name(function: Callable[..., object]) -> tuple[str, str]:
    """Return the module and the qualified name by which another process finds a function.

    Raises:
        PeertaskError: code INVALID_CONFIG, when it does not, as with a lambda, a closure, or a method of an object.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    owner = getattr(function, "__self__", None)
    if (
        not module
        or not name
        or "<" in name
        or not (owner is None or inspect.isclass(owner) or inspect.ismodule(owner))
    ):
        raise not_callable(
            function_name(function),
            "a worker process imports it by name, and that works for functions at the top of a module only",
            "Define it with def outside any other function, or run it in a thread",
        )
    if module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise not_callable(
            name,
            "it was typed into an interpreter, and a worker process imports it from a file",
            "Put it in a module",
        )
    return module, name
