"""How a function that carries tasks out says that another attempt may help."""

from __future__ import annotations

from dataclasses import replace

from protocol import ErrorCode, Failure, TaskFailed


class Retry(TaskFailed):
    """Raise this from a task's function when the same task may succeed later.

    The attempt fails with EXECUTION_FAILED and this message, and spends one of the attempts of the task's retry policy,
    which also says how long to wait. When none is left, the task fails.

    Args:
        message: what stands in the way, for people.
    """

    def __init__(self, message: str) -> None:
        super().__init__(replace(Failure.of(ErrorCode.EXECUTION_FAILED, message), retryable=True))
