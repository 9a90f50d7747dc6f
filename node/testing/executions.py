"""Tasks and executions for tests of executors."""

from __future__ import annotations

from typing import Any

from node.interfaces import Execution
from node.personas import Persona
from node.testing.clocks import START_MS
from protocol import PeerId, Task

TEST_PEER = PeerId("12D3KooWTestPeer")
"""Who asks and who carries out, where a test does not care."""


def make_task(prompt: str = "a prompt", **fields: Any) -> Task:
    """Return a task; every field has a value, and any can be given by name.

    Raises:
        InvalidTask: a given field is wrong.
    """
    return Task.new(prompt, **{"sender": TEST_PEER, "timestamp": START_MS, **fields})


class FakeExecution(Execution):
    """One attempt at a task, without a dispatcher; remembers what the executor reports.

    Args:
        task: what to do; text makes a task with this prompt.
        attempt: which attempt it is.
        holder: the peer that carries it out.
        remaining_ms: how long the requester still cares.
        persona: who does it.
        fields: of the task, when it is made here.

    Attributes:
        starts: how often the executor said that it has begun.
        reports: the fractions and messages that it reported, in order.
    """

    def __init__(
        self,
        task: Task | str = "a prompt",
        *,
        attempt: int = 1,
        holder: PeerId = TEST_PEER,
        remaining_ms: int | None = None,
        persona: Persona | None = None,
        **fields: Any,
    ) -> None:
        self.task = make_task(task, **fields) if isinstance(task, str) else task
        self.attempt = attempt
        self.holder = holder
        self.starts = 0
        self.reports: list[tuple[float, str]] = []
        self._remaining_ms = remaining_ms
        self._persona = persona

    @property
    def persona(self) -> Persona | None:
        """Return what the test said."""
        return self._persona

    def remaining_ms(self) -> int | None:
        """Return what the test said."""
        return self._remaining_ms

    def started(self) -> None:
        """Count it."""
        self.starts += 1

    def progress(self, fraction: float, message: str = "") -> None:
        """Note it."""
        self.reports.append((fraction, message))
