"""Two processes: a node here that asks, and one that works, with the raw floor beside both."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio

from node.app import Node, open_node
from node.bench.floor import Floor, open_floor
from node.bench.records import stored_records
from node.config import NodeConfig
from protocol import PeerId

WINDOW = 256
BODY = "x" * 200
WARM_UP_CALLS = 200
# More than any benchmark makes.
KEPT_RECORDS = 2_000_000
KEPT_BYTES = 4 * 1024 * 1024 * 1024
# A figure and its floor are measured by turns, so that both see the same noise. Of rates the best turn counts: whatever
# else the machine does only ever slows one down.
TURNS = 5


class Pair:
    """Two processes: a node here that asks, and one that works, with the floor beside both."""

    def __init__(self, node: Node, peer_id: PeerId, floor: Floor, pid: int) -> None:
        self.node = node
        self.peer_id = peer_id
        self.floor = floor
        self.pid = pid

    async def call(self) -> None:
        """Have one no-op task done."""
        await self.node.submit(BODY, to=self.peer_id, kind="echo")

    async def loops(self, seconds: float) -> float:
        """Return tasks per second of 256 callers, each one task after the other."""
        return await _rate_of_loops(self.call, seconds)

    async def spawned(self, tasks: int) -> float:
        """Return tasks per second when each is spawned, 256 in flight."""
        room = trio.CapacityLimiter(WINDOW)

        async def one() -> None:
            async with room:
                await self.call()

        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(one)
        return tasks / (time.perf_counter() - begin)

    async def latencies_ms(self, rounds: int) -> list[float]:
        """Return how long tasks take one at a time, in milliseconds."""
        samples = []
        for _ in range(rounds):
            begin = time.perf_counter()
            await self.call()
            samples.append((time.perf_counter() - begin) * 1000)
        return samples


async def _rate_of_loops(call: Callable[[], Awaitable[None]], seconds: float) -> float:
    done, begin = 0, time.perf_counter()

    async def loop() -> None:
        nonlocal done
        while True:
            await call()
            done += 1
            if time.perf_counter() - begin >= seconds:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(WINDOW):
            nursery.start_soon(loop)
    return done / (time.perf_counter() - begin)


@asynccontextmanager
async def open_pair(records: int = 0, store: str = "memory") -> AsyncIterator[Pair]:
    """Start the other process, and connect to it.

    Args:
        records: finished tasks that both nodes hold from the start, in memory.
        store: where both keep their tasks, as the setting says it.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours, theirs = (_settings(folder / name, store) for name in ("ours", "theirs"))
        command = [sys.executable, "-m", "node.bench.worker", json.dumps({**theirs, "records": records})]
        process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
        stack.push_async_callback(_end, process)
        kept = await stored_records(records) if store == "memory" else None
        node = await stack.enter_async_context(open_node(NodeConfig(**ours), store=kept, control=False))
        ready = json.loads(await _first_line(process))
        floor = await stack.enter_async_context(open_floor(ready["floor"]))
        peer_id = await node.connect(ready["node"])
        pair = Pair(node, peer_id, floor, process.pid)
        for _ in range(WARM_UP_CALLS):
            await pair.call()
        yield pair


def _settings(folder: Path, store: str) -> dict[str, Any]:
    """Return settings with which nothing is forgotten; a node that keeps its tasks in memory has no folder."""
    kept = {"retention_records": KEPT_RECORDS, "retention_bytes": KEPT_BYTES}
    return kept if store == "memory" else {**kept, "store": store, "data": str(folder)}


async def _first_line(process: trio.Process) -> bytes:
    line = b""
    if process.stdout is not None:
        while not line.endswith(b"\n") and (more := await process.stdout.receive_some()):
            line += more
    return line


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with trio.move_on_after(10):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
