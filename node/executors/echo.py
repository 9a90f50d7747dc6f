"""An executor that does nothing: the answer is the prompt. It shows what a node itself costs."""

from __future__ import annotations

from node.interfaces import Execution, Executor, Output

# As many as one peer may have in flight (DESIGN section 8): a task is done before the next one begins.
ECHO_SLOTS = 256


class EchoExecutor(Executor):
    """Returns the prompt at once; safe for any authenticated peer."""

    kind = "echo"
    slots = ECHO_SLOTS
    safe = True

    async def execute(self, execution: Execution) -> Output:
        """Return the prompt, without a checkpoint: there is nothing to cancel."""
        return Output(execution.task.prompt)
