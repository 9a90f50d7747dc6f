"""Runs a demo from its first process to its summary."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click
import trio
from rich.console import Console
from rich.live import Live

from node.background import open_background
from node.cli.demo.chaos import SETTINGS, Chaos
from node.cli.demo.fleet import Fleet, open_fleet
from node.cli.demo.tally import summarise
from node.cli.demo.traffic import Traffic
from node.cli.demo.view import Picture, chaos_line, summary_lines
from node.cli.demo.workload import Workload
from node.cli.exit_codes import ExitCode
from node.cli.live_line import FRAME_S
from node.cli.terminal import console

# Late enough for everything to flow, and early enough that a good part is still to be done.
KILL_AFTER = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demo shows.

    Attributes:
        nodes: how many nodes.
        tasks: how many tasks.
        in_flight: how many tasks each node has asked for at a time.
        kill: whether a node is killed on the way.
        chaos: whether nodes are killed, frozen and cut off at random.
        as_json: whether the summary is told as JSON.
    """

    nodes: int
    tasks: int
    in_flight: int
    kill: bool
    chaos: bool
    as_json: bool


class Stage:
    """Shows a demo: as a live picture on a terminal, else as a line for each phase."""

    def __init__(self, output: Console, picture: Picture) -> None:
        self.traffic: Traffic | None = None
        self._output = output
        self._picture = picture
        self._phase = ""

    def phase(self, name: str) -> None:
        """Tell what the demo does from now on."""
        self._phase = name
        if not self._output.is_terminal:
            self._output.print(name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Show it for the length of the context."""
        if not self._output.is_terminal:
            yield
            return
        draw: Callable[[], None]
        with Live(console=self._output, auto_refresh=False) as live:
            draw = lambda: live.update(self._picture.draw(self._phase, self.traffic), refresh=True)  # noqa: E731
            async with open_background() as nursery:
                nursery.start_soon(_redraw, draw)
                try:
                    yield
                finally:
                    draw()


async def run_demo(options: DemoOptions) -> ExitCode:
    """Run a demo and print its summary; the exit code is 0 only when every task has exactly one result.

    Raises:
        PeertaskError: a node could not be started, or broke.
    """
    workload = Workload(options.nodes, options.tasks)
    output = console(err=options.as_json)
    async with open_fleet(options.nodes, SETTINGS if options.chaos else {}) as fleet:
        chaos = Chaos(fleet, random.Random()) if options.chaos else None
        stage = Stage(output, Picture(fleet, workload, trio.current_time()))
        async with stage.open():
            traffic = await _perform(fleet, workload, options, stage, chaos)
    summary = summarise(
        workload.jobs,
        nodes=options.nodes,
        duplicates=traffic.recorded.duplicates,
        wall_s=traffic.ended_at - traffic.begun_at,
    )
    output.print()
    for line in summary_lines(summary, fleet, workload.jobs, len(traffic.orphans)):
        output.print(line)
    if chaos is not None:
        output.print(chaos_line(chaos.counts))
    if options.as_json:
        click.echo(json.dumps(summary.to_dict()))
    return ExitCode.OK if summary.nothing_lost else ExitCode.FAILED


async def _perform(
    fleet: Fleet, workload: Workload, options: DemoOptions, stage: Stage, chaos: Chaos | None
) -> Traffic:
    stage.phase(f"starting {options.nodes} nodes, each in a process of its own")
    await fleet.ready()
    pairs = options.nodes * (options.nodes - 1) // 2
    stage.phase(f"connecting them to each other: {pairs} encrypted connections")
    await fleet.connect_all()
    stage.phase(f"{options.tasks} tasks between {options.nodes} nodes, over {pairs} encrypted connections")
    stage.traffic = Traffic(fleet, workload, options.in_flight)
    await stage.traffic.run(kill_at=round(options.tasks * KILL_AFTER) if options.kill else None, chaos=chaos)
    stage.phase("done; the nodes are being stopped")
    return stage.traffic


async def _redraw(draw: Callable[[], None]) -> None:
    while True:
        draw()
        await trio.sleep(FRAME_S)
