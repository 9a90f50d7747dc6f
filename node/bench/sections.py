"""The benchmarks of a node; each is a function that gives figures."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from subprocess import PIPE

import psutil
import trio

from node.app import open_node
from node.bench.coordination import coordination
from node.bench.costs import costs
from node.bench.figures import (
    Figure,
    at_least,
    at_least_of_floor,
    at_most,
    at_most_of_floor,
    percentile,
)
from node.bench.pair import BODY, TURNS, WINDOW, Pair, open_pair
from node.bench.placement import placement
from node.bench.stores import stores
from node.collector import tune_collector
from node.config import NodeConfig

PAYLOAD_BYTES = 10_000_000
MANY_RECORDS = 1_000_000
FEW_RECORDS = 1_000
# By then the nodes have told each other of their peers.
IDLE_AFTER_S = 10.0
# Two beats of a session on which nothing is under way.
IDLE_S = 20.0
KIB, MIB = 1024, 1024 * 1024


async def latency(seconds: float) -> list[Figure]:
    """One no-op task at a time, beside the raw echo."""
    rounds = max(1, round(seconds * 300 / TURNS))
    async with open_pair() as pair:
        floor, tasks = [], []
        for _ in range(TURNS):
            floor += await pair.floor.echo_ms(rounds, len(BODY))
            tasks += await pair.latencies_ms(rounds)
    return [
        Figure(
            "latency", f"one task at a time, {name}", percentile(tasks, share), "ms", percentile(floor, share), (bound,)
        )
        for name, share, bound in (("p50", 0.5, at_most_of_floor(1.5)), ("p99", 0.99, at_most_of_floor(2)))
    ]


async def throughput(seconds: float) -> list[Figure]:
    """Many no-op tasks at once, beside the raw coalesced stream."""
    floor = loops = spawned = 0.0
    turn_s = seconds / TURNS
    async with open_pair() as pair:
        for _ in range(TURNS):
            floor = max(floor, await pair.floor.rate(turn_s, WINDOW, BODY))
            loops = max(loops, await pair.loops(turn_s))
            spawned = max(spawned, await pair.spawned(max(WINDOW, round(loops * turn_s / 2))))
    return [
        Figure("throughput", "256 loops", loops, "tasks/s", floor, (at_least(20_000), at_least_of_floor(0.5))),
        Figure("throughput", "spawned, 256 in flight", spawned, "tasks/s", floor, (at_least(10_000),)),
    ]


async def records(seconds: float) -> list[Figure]:
    """The rate with a million finished records, beside the rate with a thousand."""
    rates = {}
    for number in (FEW_RECORDS, MANY_RECORDS):
        async with open_pair(number) as pair:
            rates[number] = max([await pair.loops(seconds / TURNS) for _ in range(TURNS)])
    return [
        Figure(
            "records",
            f"256 loops, {MANY_RECORDS:,} records against {FEW_RECORDS:,}",
            rates[MANY_RECORDS],
            "tasks/s",
            rates[FEW_RECORDS],
            (at_least_of_floor(0.8),),
        )
    ]


async def parallel(_seconds: float) -> list[Figure]:
    """A hundred tasks that each take 0.3 s, at once."""
    async with open_pair() as pair:
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(_sleep_task, pair)
        taken = time.perf_counter() - begin
    return [Figure("parallel", "100 tasks of 0.3 s at once", taken, "s", 0.3, (at_most(0.35),))]


async def _sleep_task(pair: Pair) -> None:
    await pair.node.submit("300", to=pair.peer_id, kind="sleep")


async def calls(_seconds: float) -> list[Figure]:
    """What creating a task and reading a result cost their caller (CORE-33, CORE-35)."""
    rounds = 2_000
    async with open_node(NodeConfig(listen=())) as node:
        begin = time.perf_counter()
        tasks = [node.manager.create_task(BODY, kind="echo") for _ in range(rounds)]
        create_us = (time.perf_counter() - begin) / rounds * 1e6
        for task in tasks:
            await node.manager.wait(task.id)
        begin = time.perf_counter()
        for task in tasks:
            node.manager.get_result(task.id)
        get_us = (time.perf_counter() - begin) / rounds * 1e6
    return [
        Figure("calls", "create_task", create_us, "µs", None, (at_most(50),)),
        Figure("calls", "get_result", get_us, "µs", None, (at_most(5),)),
    ]


async def payload(_seconds: float) -> list[Figure]:
    """A large payload there and back, and small tasks beside it."""
    async with open_pair() as pair:
        floor_s = min([await pair.floor.payload_s(PAYLOAD_BYTES) for _ in range(5)])
        body = "y" * PAYLOAD_BYTES
        samples: list[float] = []
        best = float("inf")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_small_tasks, pair, samples)
            for _ in range(5):
                begin = time.perf_counter()
                await pair.node.submit(body, to=pair.peer_id, kind="echo")
                best = min(best, time.perf_counter() - begin)
            nursery.cancel_scope.cancel()
        alone = min([await _timed_payload(pair, body) for _ in range(5)])
    size = PAYLOAD_BYTES / 1e6
    return [
        Figure("payload", "10 MB there and back", size / alone, "MB/s", size / floor_s, (at_least_of_floor(0.5),)),
        Figure("payload", "10 MB beside small tasks", size / best, "MB/s", size / floor_s),
        Figure("payload", "small task beside it, p99", percentile(samples, 0.99), "ms", None, (at_most(10),)),
    ]


async def _timed_payload(pair: Pair, body: str) -> float:
    begin = time.perf_counter()
    await pair.node.submit(body, to=pair.peer_id, kind="echo")
    return time.perf_counter() - begin


async def _small_tasks(pair: Pair, samples: list[float]) -> None:
    while True:
        samples += await pair.latencies_ms(1)


async def memory(_seconds: float) -> list[Figure]:
    """What a node holds: idle, for each connected peer, for each finished task."""
    peers, tasks = 50, 20_000
    async with open_pair() as pair:
        worker = psutil.Process(pair.pid)
        idle = _node_process_rss()
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(open_node(NodeConfig(listen=()))) for _ in range(peers)]
            address = _address_of(pair)
            await others[0].connect(address)
            before = worker.memory_info().rss
            for other in others[1:]:
                await other.connect(address)
            per_peer = (worker.memory_info().rss - before) / (peers - 1)
        await pair.spawned(tasks // 4)
        before = worker.memory_info().rss
        await pair.spawned(tasks)
        per_task = (worker.memory_info().rss - before) / tasks
    return [
        Figure("memory", "a node process, idle", idle / MIB, "MB", None, (at_most(100),)),
        Figure("memory", "for each connected peer", per_peer / KIB, "KB", None, (at_most(150),)),
        Figure("memory", "for each finished task kept", per_task / KIB, "KB", None, (at_most(2),)),
    ]


def _address_of(pair: Pair) -> str:
    return next(peer.addresses[0] for peer in pair.node.peers() if peer.peer_id == pair.peer_id)


def _node_process_rss() -> int:
    """Start `peertask node` as a person would, and return what it holds once it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        process, _ = _start_node(folder)
        with process:
            try:
                return int(psutil.Process(process.pid).memory_info().rss)
            finally:
                process.terminate()


def _start_node(folder: str) -> tuple[psutil.Popen, float]:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "node.cli", "node", "--data", folder, "--json"]
    process = psutil.Popen(command, stdout=PIPE, env={**os.environ, "PEERTASK_LOG_LEVEL": "error"})
    process.stdout.readline()
    return process, time.perf_counter() - begin


async def start(_seconds: float) -> list[Figure]:
    """How long `peertask node` takes to be ready."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            process, taken = _start_node(folder)
            with process:
                process.terminate()
            times.append(taken)
    return [Figure("start", "peertask node to ready", min(times), "s", None, (at_most(2),))]


async def idle(seconds: float) -> list[Figure]:
    """What fifty connected nodes in one process cost when nothing happens."""
    number, degree = 50, 5
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_node()) for _ in range(number)]
        for index, node in enumerate(nodes):
            for step in range(1, degree + 1):
                await node.connect(nodes[(index + step) % number].addresses[0])
        await trio.sleep(IDLE_AFTER_S)
        tune_collector()  # as each node does in a process of its own, once it has started
        begin, busy, sent = time.perf_counter(), time.process_time(), psutil.net_io_counters().bytes_sent
        await trio.sleep(max(IDLE_S, seconds * 4))
        taken = time.perf_counter() - begin
        share = (time.process_time() - busy) / taken * 100
        # All that the machine has sent: an upper bound, with the headers of TCP.
        rate = (psutil.net_io_counters().bytes_sent - sent) / taken / number
    name = f"{number} nodes, each connected to {degree} others"
    return [
        Figure("idle", name, share, "% of a core", None, (at_most(2),)),
        Figure("idle", f"{name}: what a node sends", rate / KIB, "KB/s", None, (at_most(2),)),
    ]


SECTIONS: dict[str, Callable[[float], Awaitable[list[Figure]]]] = {
    "latency": latency,
    "throughput": throughput,
    "records": records,
    "parallel": parallel,
    "calls": calls,
    "payload": payload,
    "memory": memory,
    "start": start,
    "idle": idle,
    "costs": costs,
    "stores": stores,
    "placement": placement,
    "coordination": coordination,
}
