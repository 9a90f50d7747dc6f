"""The doubles that a simulation is made of keep the contracts of the seams that they stand for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from node.background import open_background
from node.interfaces import Change, Network
from node.testing import Disk, Latency, SimulatedStore, check_channels, check_network, check_store
from node.testing.simulation.links import Links
from node.testing.simulation.network import SimulatedNetwork
from node.testing.simulation.process import Process, Processes
from node.testing.simulation.trace import Trace
from node.testing.simulation.virtual_time import NodeClock, Timeline, VirtualClock


def in_virtual_time(main: Callable[[Timeline], Awaitable[None]], *instruments: trio.abc.Instrument) -> float:
    """Run something on a clock that jumps, with a timeline, and return how long it took by that clock, in seconds."""
    timeline = Timeline()
    clock = VirtualClock(timeline)

    async def run() -> None:
        async with open_background() as nursery:
            nursery.start_soon(timeline.run)
            await main(timeline)

    trio.run(run, clock=clock, instruments=instruments)
    return clock.current_time()


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [check_network, check_channels])
def test_the_network_keeps_the_contract(check: Callable[..., Awaitable[None]]) -> None:
    """With latency, and frames that overtake each other where they may."""

    async def main(timeline: Timeline) -> None:
        @asynccontextmanager
        async def pair() -> AsyncIterator[tuple[Network, Network]]:
            async with open_background() as nursery:
                rng = random.Random(1)
                links = Links(nursery, timeline, rng, Trace(trio.current_time), Latency(large_share=0))
                yield SimulatedNetwork(links, "ann", rng), SimulatedNetwork(links, "ben", rng)

        await check(pair)

    in_virtual_time(main)


# --- stores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [None, Disk(stall_share=0.5)])
def test_the_store_keeps_the_contract(disk: Disk | None) -> None:
    """With or without a disk that takes its time."""

    async def main(timeline: Timeline) -> None:
        await check_store(lambda: _store(timeline, disk, []))

    in_virtual_time(main)


def _store(timeline: Timeline, disk: Disk | None, seen: list[Change]) -> SimulatedStore:
    return SimulatedStore(timeline, random.Random(1), disk, lambda action: action(), seen.append)


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_jumps_to_what_is_due_next() -> None:
    """Deadlines of trio and things of the timeline, in their order."""
    happened: list[tuple[float, str]] = []

    async def main(timeline: Timeline) -> None:
        def note(text: str) -> None:
            happened.append((trio.current_time(), text))

        timeline.at(3_000.0, lambda: note("third"))
        timeline.at(1_000.0, lambda: note("first"))
        await trio.sleep(2_000)
        note("second")
        await trio.sleep(2_000)

    assert in_virtual_time(main) == 4_000.0
    assert happened == [(1_000.0, "first"), (2_000.0, "second"), (3_000.0, "third")]


def test_a_thread_is_waited_for_when_nothing_else_is_due() -> None:
    """The clock does not make trio spin when there is no next moment."""

    async def main(_timeline: Timeline) -> None:
        assert await trio.to_thread.run_sync(lambda: 7) == 7

    assert in_virtual_time(main) == 0.0


def test_a_clock_that_is_fast_gains() -> None:
    """By as much as its rate says."""

    async def main(_timeline: Timeline) -> None:
        right, fast = NodeClock(), NodeClock(offset_ms=500, rate=1.01)
        assert fast.now() - right.now() == 500
        await trio.sleep(100)
        assert fast.now() - right.now() == 1_500

    in_virtual_time(main)


# --- processes -------------------------------------------------------------------------------------------------------


class _Clockwork:
    """A process with a task that counts seconds, and one that is woken from outside."""

    def __init__(self) -> None:
        self.process = Process()
        self.seconds = 0
        self.woken = trio.Event()
        self.heard = False
        self.cancelled = False
        self.scope = trio.CancelScope()

    async def live(self, processes: Processes) -> None:
        processes.adopt(self.process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)
            nursery.start_soon(self._listen)

    async def _count(self) -> None:
        with self.scope:
            while True:
                await trio.sleep(1)
                self.seconds += 1
        self.cancelled = True

    async def _listen(self) -> None:
        await self.woken.wait()
        self.heard = True


def test_a_frozen_process_takes_no_step() -> None:
    """Neither for a deadline nor for an event nor for a cancel; all of them when it goes on."""
    processes = Processes()

    async def main(_timeline: Timeline) -> None:
        work = _Clockwork()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.live, processes)
            await trio.sleep(3.5)
            assert work.seconds == 3
            work.process.freeze()
            work.woken.set()
            await trio.sleep(10)
            work.process.thaw()
            work.process.freeze()  # before anything could go on
            await trio.sleep(10)
            assert (work.seconds, work.heard) == (3, False)
            work.process.thaw()
            await trio.sleep(0.1)
            assert (work.seconds, work.heard) == (4, True)
            work.process.freeze()
            work.scope.cancel()
            await trio.sleep(10)
            assert not work.cancelled
            work.process.thaw()
            await trio.sleep(0)
        assert work.cancelled

    in_virtual_time(main, processes)
