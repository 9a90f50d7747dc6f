"""The progress bar of a map, and of a graph."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from node.background import open_background
from node.cli.live_line import FRAME_S
from node.cli.terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@dataclass(slots=True)
class MapProgress:
    """How far a map is, or a graph.

    Attributes:
        total: lines in all; of a graph, tasks.
        complete: lines that have a result.
        failed: lines that failed.
        known: lines that had a result before.
        name: what it is called.
    """

    total: int
    complete: int = 0
    failed: int = 0
    known: int = 0
    name: str = "map"


@asynccontextmanager
async def show_progress(progress: MapProgress, *, quiet: bool = False) -> AsyncIterator[None]:
    """Show a bar for the length of the context, if standard error is a terminal.

    Args:
        progress: what it shows; changed by others.
        quiet: whether results go to the same terminal as JSON, which a bar would only disturb.
    """
    if not sys.stderr.isatty() or (quiet and sys.stdout.isatty()):
        yield
        return
    bar, task = _bar(progress)
    with bar:
        async with open_background() as nursery:
            nursery.start_soon(_redraw, bar, task, progress)
            try:
                yield
            finally:
                _draw(bar, task, progress)


def _bar(progress: MapProgress) -> tuple[Progress, TaskID]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        console=console(err=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
    )
    return bar, bar.add_task(progress.name, total=progress.total, failed="")


async def _redraw(bar: Progress, task: TaskID, progress: MapProgress) -> None:
    while True:
        _draw(bar, task, progress)
        await trio.sleep(FRAME_S)


def _draw(bar: Progress, task: TaskID, progress: MapProgress) -> None:
    failed = f"{progress.failed} failed" if progress.failed else ""
    bar.update(task, completed=progress.complete + progress.failed, failed=failed, refresh=True)
