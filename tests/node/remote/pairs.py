"""A requester and a worker, connected in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from node.interfaces import Change
from node.testing import (
    MemoryHub,
    MemoryNetwork,
    ScriptedExecutor,
)
from protocol import (
    ErrorCode,
    Frame,
    PeerId,
    TaskId,
    TaskRecord,
)
from tests.node.memory_node import MemoryNode

# Bounds a wait in which the test looks again every millisecond.
UNTIL_S = 60.0


class Pair:
    """A requester and a worker with a scripted executor."""

    def __init__(self, hub: MemoryHub, executor: ScriptedExecutor, **worker: Any) -> None:
        self.hub = hub
        self.executor = executor
        self.ann = MemoryNode(hub, "ann")
        self.ben = MemoryNode(hub, "ben", [executor], **worker)
        self.told: list[Change] = []
        self.ann.feed.listen(self.told.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pair]:
        """Run both, connected."""
        async with self.ann.running(), self.ben.running():
            await self.ann.connect(self.ben)
            yield self

    def submit(self, prompt: str = "a prompt", **options: Any) -> TaskId:
        """Let Ann ask Ben."""
        return self.ann.submit(prompt, to=self.ben, **{"kind": self.executor.kind, **options})

    async def run(self, prompt: str = "a prompt", **options: Any) -> TaskRecord:
        """Let Ann ask Ben, and return how it ended for her."""
        return await self.ann.wait(self.submit(prompt, **options))

    def cut(self) -> None:
        """Break the link."""
        self.hub.cut(self.ann.peer_id, self.ben.peer_id)

    def heal(self) -> None:
        """Mend it."""
        self.hub.heal(self.ann.peer_id, self.ben.peer_id)

    def facts(self, kind: type[Any]) -> list[Any]:
        """The facts of one kind that Ann has recorded."""
        return [change.fact for change in self.told if isinstance(change.fact, kind)]


@asynccontextmanager
async def pair_on(hub: MemoryHub, executor: ScriptedExecutor | None = None, **worker: Any) -> AsyncIterator[Pair]:
    """A pair that runs."""
    async with Pair(hub, executor or ScriptedExecutor(), **worker).running() as pair:
        yield pair


def code_of(record: TaskRecord) -> ErrorCode | None:
    """Why a task has no result."""
    return None if record.failure is None else record.failure.code


async def until(condition: Callable[[], bool]) -> None:
    """Return when something holds."""
    with trio.fail_after(UNTIL_S):
        while not condition():
            await trio.sleep(0.001)


async def say(speaker: MemoryNetwork, listener: PeerId, *frames: Frame) -> None:
    """Let a peer say something to another, and wait until it has arrived."""
    channel = speaker.channel(listener)
    assert channel is not None
    for frame in frames:
        channel.send(frame)
    await wait_all_tasks_blocked()
