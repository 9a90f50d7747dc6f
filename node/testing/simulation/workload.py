"""Work for the nodes of a simulation: executors that take their time and fail, and tasks for them."""

from __future__ import annotations

import random
from typing import Any

import trio

from node.interfaces import Execution, Executor, Output
from protocol import RetryPolicy

KIND = "work"
AGENT_KIND = "agent"
"""What no executor does, and agents do."""
DOOMED = "doomed"
"""The one of a task's params that makes every execution of it fail."""


class Worker(Executor):
    """Takes a while, tells how far it is, and fails now and then.

    Args:
        rng: draws how long it takes and whether it fails.
        slots: how many tasks it carries out at once.
        fails: how many of its executions fail; 0 to 1.
        longest_s: what the longest execution takes, in seconds; most are much shorter.
    """

    kind = KIND
    safe = True

    def __init__(self, rng: random.Random, *, slots: int = 4, fails: float = 0.1, longest_s: float = 10.0) -> None:
        self.slots = slots
        self._rng = rng
        self._fails = fails
        self._longest_s = longest_s
        self._number = 0

    async def execute(self, execution: Execution) -> Output:
        """Sleep and return a text that no other execution returns."""
        self._number += 1
        text = f"{execution.task.prompt}: {execution.holder}, {self._number}, {self._rng.getrandbits(32):08x}"
        seconds = self._longest_s * self._rng.random() ** 4
        fails = self._rng.random() < self._fails or execution.task.params.get(DOOMED, False)
        steps = self._rng.choice((0, 0, 0, 1, 3))
        for step in range(steps):
            await trio.sleep(seconds / (steps + 1))
            execution.progress((step + 1) / (steps + 1))
        await trio.sleep(seconds / (steps + 1))
        if fails:
            raise RuntimeError(f"drawn to fail: {text}")
        return Output(text)


def draw_task(rng: random.Random) -> dict[str, Any]:
    """Return fields of a task, without what it is and who is to do it."""
    policy = RetryPolicy(
        attempts=rng.choice((1, 3, 3, 5)),
        backoff_ms=rng.choice((0, 100, 500)),
        max_backoff_ms=5_000,
        elsewhere=rng.random() < 0.3,  # noqa: PLR2004 - three of ten
    )
    fields: dict[str, Any] = {"kind": KIND, "priority": rng.randrange(10), "retry": policy}
    if rng.random() < 0.1:  # noqa: PLR2004 - one of ten
        fields["timeout_ms"] = rng.randint(100, 8_000)
    return fields
