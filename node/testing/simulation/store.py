"""The disk of one node of a simulation: it takes its time, and outlives the node."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from node.interfaces import Change, Committed
from node.testing.held_store import HeldStore
from node.testing.simulation.virtual_time import Timeline
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How long a store takes to save.

    Attributes:
        instant_share: how many nodes have a store that takes no time at all, as memory does; 0 to 1.
        longest_s: what one write takes at the most, in seconds.
        stall_share: how many writes wait for something else that the disk does; 0 to 1.
        stall_s: what they take longer at the most, in seconds.
    """

    instant_share: float = 0.25
    longest_s: float = 0.02
    stall_share: float = 0.02
    stall_s: float = 3.0

    def draw(self, rng: random.Random) -> float:
        """Return how long a write takes, in seconds."""
        seconds = rng.uniform(0, self.longest_s)
        return seconds + rng.uniform(0, self.stall_s) if rng.random() < self.stall_share else seconds


class SimulatedStore(HeldStore):
    """Saves everything that waits in one write, as stores with a group commit do; a crash loses what is not written.

    Args:
        timeline: when.
        rng: draws how long a write takes.
        disk: how long it may take; None for no time at all.
        gate: called with what is to be done when the process does not stand still.
        saw: called with each change as soon as it cannot be lost any more, before the node is told.
    """

    def __init__(
        self,
        timeline: Timeline,
        rng: random.Random,
        disk: Disk | None,
        gate: Callable[[Callable[[], None]], None],
        saw: Callable[[Change], None],
    ) -> None:
        super().__init__()
        self._timeline = timeline
        self._rng = rng
        self._disk = disk
        self._gate = gate
        self._saw = saw
        self._writes = 0
        self._writing = False
        self._saved_some = trio.Event()

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Be open for the length of the context; what the last process has saved is there."""
        self._writes += 1
        self._writing = False
        if self._disk is not None:
            self.hold()
        async with super().running(committed):
            yield

    def append(self, changes: Sequence[Change]) -> None:
        """Take changes in; they are saved with the next write."""
        super().append(changes)
        if self._holding and not self._writing:
            self._write()

    def append_new(self, changes: Sequence[Change]) -> None:
        """Take the first changes of tasks in, together; they are saved with the next write."""
        super().append_new(changes)
        if self._holding and not self._writing:
            self._write()

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._saw(change)
        super()._tell(changes)

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record, when all that waits is saved."""
        await self._save_all()
        async for record in super().load():
            yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the facts of a task that are kept, when all that waits is saved."""
        await self._save_all()
        async for fact in super().facts(task_id, after_seq):
            yield fact

    async def _save_all(self) -> None:
        while self.held:
            await self._saved_some.wait()

    def fail(self) -> None:
        """Save nothing more until `mend`, as on a disk that is full; no effect on a store that takes no time.

        What is appended waits, and is lost with the process.
        """
        if self._disk is not None:
            problem = "the disk of the simulation is full"
            self.failure = PeertaskError(problem, code=ErrorCode.STORE_FAILED, remedy="Wait until it is not")

    def mend(self) -> None:
        """Save again; no effect when nothing is wrong."""
        if self.failure is not None:
            self.failure = None
            self._write()

    def release(self) -> None:
        """Save what waits, if that is possible."""
        if self.failure is None:
            super().release()
        else:
            self.lose()

    def crash(self) -> None:
        """Lose what waits; of a write that was under way, a part may have reached the disk."""
        self._writes += 1
        self._writing = False
        self.lose(but=self._rng.randint(0, len(self.held)) if self.failure is None else 0)

    def _write(self) -> None:
        if self._disk is None or self.failure is not None or not self.held:
            self._writing = False
            return
        self._writing = True
        done = partial(self._written, self._writes, len(self.held))
        self._timeline.after(self._disk.draw(self._rng), partial(self._gate, done))

    def _written(self, number: int, count: int) -> None:
        if number == self._writes and self.failure is None:  # else the process has died meanwhile
            self.commit_together(count)
            saved_some, self._saved_some = self._saved_some, trio.Event()
            saved_some.set()
            self._write()
