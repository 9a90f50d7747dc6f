"""An executor that stands for real work: it takes a random time and needs no model, so it shows all of a node."""

from __future__ import annotations

import random

import trio

from node.interfaces import Execution, Executor, Output
from protocol import ErrorCode, PeertaskError

# What the requirements ask of the mock (CORE-6).
MIN_DELAY_MS = 100
MAX_DELAY_MS = 500
# A task that sleeps costs about 2 KB, so one peer can have all that it may have in flight (DESIGN section 8) here.
MOCK_SLOTS = 256


class MockExecutor(Executor):
    """Waits for a random time and returns ``Mock result for: <prompt>``; safe for any authenticated peer.

    Args:
        seed: makes the delays repeatable: the same seed gives the same ones in the order in which tasks begin.
        min_ms: the shortest delay, in milliseconds.
        max_ms: the longest delay, in milliseconds.

    Raises:
        PeertaskError: code INVALID_CONFIG, when the delays are negative or the wrong way round.
    """

    kind = "mock"
    slots = MOCK_SLOTS
    safe = True

    def __init__(self, seed: int | None = None, min_ms: float = MIN_DELAY_MS, max_ms: float = MAX_DELAY_MS) -> None:
        if not 0 <= min_ms <= max_ms:
            raise PeertaskError(
                f"a mock executor cannot wait between {min_ms} and {max_ms} ms",
                code=ErrorCode.INVALID_CONFIG,
                remedy="Give delays that are not negative, the shorter one first",
            )
        self._random = random.Random(seed)
        self._delay_ms = (min_ms, max_ms)

    async def execute(self, execution: Execution) -> Output:
        """Wait, and return the mock result; cancellation ends the wait at once."""
        await trio.sleep(self._random.uniform(*self._delay_ms) / 1000)
        return Output(f"Mock result for: {execution.task.prompt}")
