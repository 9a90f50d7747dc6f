"""What it costs to keep tasks: each store beside the barest way to keep as much."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL

import trio

from node.app import open_node
from node.bench.figures import Bound, Figure, at_least, at_least_of_floor, at_most, at_most_of_floor, percentile
from node.bench.pair import BODY, TURNS, open_pair
from node.bench.records import finished_task
from node.config import NodeConfig
from node.interfaces import Change, Store, TaskFilter
from node.storage import SQLITE_FILE
from node.stores.files import FilesStore
from node.stores.sqlite import SqliteStore
from protocol import PeerId, PeertaskError, Submitted, Task, begin

IN_FLIGHT = 64
KEPT_RECORDS = 100_000
PAGE_RECORDS = 50
FILE_BYTES = 2_500  # as large as the file of a no-op task that has just come
SERVER_START_S = 20.0
_ME = PeerId("12D3KooWBenchmark")


async def stores(seconds: float) -> list[Figure]:
    """Tasks between two processes that keep them in SQLite; what is kept, at the start; saves of the other stores."""
    return [
        *await _sqlite_tasks(seconds),
        *await _sqlite_full(),
        *await _stalls(seconds),
        *await _start_with_records(),
        *await _files_saves(seconds),
        *await _redis_saves(seconds),
    ]


async def _sqlite_tasks(seconds: float) -> list[Figure]:
    turn_s, kept, floor = seconds / TURNS, 0.0, 0.0
    async with open_pair() as memory, open_pair(store="sqlite") as sqlite:
        for _ in range(TURNS):
            floor = max(floor, await memory.loops(turn_s))
            kept = max(kept, await sqlite.loops(turn_s))
        samples = await sqlite.latencies_ms(max(1, round(seconds * 100)))
    return [
        _figure("256 loops, SQLite on both sides", kept, "tasks/s", floor, at_least(8_000), at_least_of_floor(0.4)),
        _figure("one at a time, SQLite, p50", percentile(samples, 0.5), "ms", None, at_most(2)),
        _figure("one at a time, SQLite, p99", percentile(samples, 0.99), "ms", None, at_most(5)),
    ]


async def _sqlite_full() -> list[Figure]:
    rounds = 100
    with tempfile.TemporaryDirectory() as folder:
        floor = [_fsync_ms(Path(folder) / "floor") for _ in range(rounds)]
        config = NodeConfig(data=Path(folder) / "node", store="sqlite", synchronous="full", listen=())
        samples = []
        async with open_node(config, control=False) as node:
            for _ in range(rounds):
                begin_s = time.perf_counter()
                await node.submit(BODY, kind="echo")
                samples.append((time.perf_counter() - begin_s) * 1000)
    value, bare = percentile(samples, 0.5), percentile(floor, 0.5)
    return [_figure("one at a time, SQLite full, p50", value, "ms", bare, at_most_of_floor(10))]


def _fsync_ms(path: Path) -> float:
    begin_s = time.perf_counter()
    with path.open("ab") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
    return (time.perf_counter() - begin_s) * 1000


async def _stalls(seconds: float) -> list[Figure]:
    """Return how long a pass of the event loop takes while a store commits, and how long without one."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / SQLITE_FILE)
        busy = await _longest_passes_ms(store, seconds / 2)
        idle = await _longest_passes_ms(None, seconds / 2)
    return [_figure("event loop during commits, p99", percentile(busy, 0.99), "ms", percentile(idle, 0.99), at_most(2))]


async def _longest_passes_ms(store: Store | None, seconds: float) -> list[float]:
    saves = _Saves(store) if store is not None else None
    passes: list[float] = []
    async with trio.open_nursery() as nursery:
        if saves is not None:
            nursery.start_soon(saves.run_for, seconds)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            begin_s = time.perf_counter()
            await trio.lowlevel.checkpoint()
            passes.append((time.perf_counter() - begin_s) * 1000)
    return passes


async def _start_with_records() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await _fill(SqliteStore(folder / SQLITE_FILE))
        config = NodeConfig(data=folder, store="sqlite", listen=(), retention_records=2 * KEPT_RECORDS)
        begin_s = time.perf_counter()
        async with open_node(config, control=False) as node:
            loaded_s = time.perf_counter() - begin_s
            begin_s = time.perf_counter()
            node.list_tasks(TaskFilter(limit=PAGE_RECORDS))
            listed_ms = (time.perf_counter() - begin_s) * 1000
    return [
        _figure(f"start with {KEPT_RECORDS:,} records", loaded_s, "s", None, at_most(3)),
        _figure("list a page of them", listed_ms, "ms", None, at_most(20)),
    ]


async def _fill(store: Store) -> None:
    saved, window = 0, trio.Event()

    def committed(changes: Sequence[Change]) -> None:
        nonlocal saved, window
        saved += len(changes)
        window.set()
        window = trio.Event()

    async with store.running(committed):
        for number in range(KEPT_RECORDS):
            changes = finished_task(number)
            store.append(changes)
            while (number + 1) * len(changes) - saved > IN_FLIGHT * 100:
                await window.wait()


async def _files_saves(seconds: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = await trio.to_thread.run_sync(_bare_files_rate, folder, seconds / 4)
        ours = await _Saves(FilesStore(folder)).run_for(seconds / 4)
    return [_figure("files store, saves", ours, "/s", bare, at_least_of_floor(0.5))]


def _bare_files_rate(folder: Path, seconds: float) -> float:
    """Write, fsync and rename one file after the other, and fsync the folder each time."""
    done, begin_s = 0, time.perf_counter()
    directory = os.open(folder, os.O_RDONLY)
    try:
        while time.perf_counter() - begin_s < seconds:
            draft = folder / "draft"
            with draft.open("wb") as file:
                file.write(bytes(FILE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(folder / f"bare-{done}")
            os.fsync(directory)
            done += 1
    finally:
        os.close(directory)
    return done / (time.perf_counter() - begin_s)


async def _redis_saves(seconds: float) -> list[Figure]:
    """Start a server of its own; without the program, or the client, there is nothing to measure."""
    try:
        import coredis  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return []
    if shutil.which("redis-server") is None:
        return []
    from node.stores.redis import RedisSettings, RedisStore  # noqa: PLC0415 - needs the extra

    async with _redis_server() as port:
        bare = await _bare_redis_rate(port, seconds / 4)
        store = RedisStore(RedisSettings(connection_string=f"127.0.0.1:{port}"), owner=_ME)
        ours = await _Saves(store).run_for(seconds / 4)
    return [_figure("Redis store, saves", ours, "/s", bare, at_least_of_floor(0.5))]


@asynccontextmanager
async def _redis_server() -> AsyncIterator[int]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = await trio.lowlevel.open_process(command, stdout=DEVNULL)
        try:
            with trio.fail_after(SERVER_START_S):
                while not await _answers(port):  # noqa: ASYNC110 - another process: there is no event to wait for
                    await trio.sleep(0.02)
            yield port
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                await process.wait()


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def _bare_redis_rate(port: int, seconds: float) -> float:
    import coredis  # noqa: PLC0415 - an extra

    done, value = 0, bytes(FILE_BYTES)
    async with coredis.Redis(host="127.0.0.1", port=port) as client:
        begin_s = time.perf_counter()

        async def save() -> None:
            nonlocal done
            while time.perf_counter() - begin_s < seconds:
                done += 1
                await client.set(f"bare{done}", value, ex=86_400)

        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(save)
        return done / (time.perf_counter() - begin_s)


class _Saves:
    """Saves new tasks with a store, each as soon as another is saved."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._saved = 0
        self._news = trio.Event()

    async def run_for(self, seconds: float) -> float:
        """Return saves per second.

        Raises:
            PeertaskError: the store cannot save.
        """
        asked = 0
        async with self._store.running(self._committed):
            begin_s = time.perf_counter()
            while time.perf_counter() - begin_s < seconds:
                while asked - self._saved < IN_FLIGHT:
                    self._store.append((_submitted(asked),))
                    asked += 1
                await self._news.wait()
                self._check()
            return self._saved / (time.perf_counter() - begin_s)

    def _committed(self, changes: Sequence[Change]) -> None:
        self._saved += len(changes)
        self._news.set()
        self._news = trio.Event()

    def _check(self) -> None:
        failure: PeertaskError | None = self._store.failure
        if failure is not None:
            raise failure


def _submitted(number: int) -> Change:
    task = Task.new(str(number).rjust(len(BODY), "x"), _ME, timestamp=number, kind="echo")
    fact = Submitted(task, number, _ME, _ME)
    return Change(begin(fact), fact)


def _figure(name: str, value: float, unit: str, floor: float | None, *bounds: Bound) -> Figure:
    return Figure("stores", name, value, unit, floor, bounds)
