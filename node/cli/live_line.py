"""One line on a terminal that tells how a task stands while somebody waits for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from node.background import open_background
from node.cli.requesters import Ending, Step
from node.cli.terminal import STATUS_STYLES, console, short_peer, short_time
from node.cli.waiting import FIRST_LOOK_S
from protocol import TaskId

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

# Ten pictures a second look alive, and cost next to nothing.
FRAME_S: Final = 0.1
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class LiveLine:
    """What the line says; drawn by `live_line` when standard error is a terminal."""

    def __init__(self, task_id: TaskId) -> None:
        self._task_id = task_id
        self._begun_at = trio.current_time()
        self._step: Step | None = None
        self._ending: Ending | None = None

    def tell(self, step: Step) -> None:
        """Take note of how the task stands now."""
        self._step = step

    def end(self, ending: Ending) -> None:
        """Take note of how it ended."""
        self._ending = ending

    def text(self) -> Text:
        """Return the line for this moment."""
        return self._last() if self._ending is not None else self._now()

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self._ending is not None

    @property
    def _elapsed(self) -> str:
        return short_time((trio.current_time() - self._begun_at) * 1000)

    def _now(self) -> Text:
        from rich.text import Text

        step = self._step
        status = step.status.value if step is not None else "connecting"
        spinner = _SPINNER[int(trio.current_time() / FRAME_S) % len(_SPINNER)]
        line = Text.assemble((f"{spinner} {status}", STATUS_STYLES.get(status, "yellow")))
        if step is not None and step.holder is not None:
            line.append(f" at {short_peer(step.holder)}")
        if step is not None and step.attempt > 1:
            line.append(f", attempt {step.attempt}")
        if step is not None and (step.progress or step.message):
            line.append(f"  {step.progress:.0%} {step.message}")
        line.append(f"  {self._elapsed}", style="dim")
        if status == "pending" and trio.current_time() - self._begun_at > FIRST_LOOK_S:
            line.append("  Ctrl-C cancels it", style="dim")
        return line

    def _last(self) -> Text:
        from rich.text import Text

        ending = self._ending
        complete = ending is not None and ending.result is not None
        holder = f"at {short_peer(ending.holder)} " if ending is not None and ending.holder is not None else ""
        mark = ("✓ complete", "green") if complete else ("✗ not complete", "red")
        return Text.assemble(mark, (f"  {holder}in {self._elapsed}, task {self._task_id}", "dim"))


@asynccontextmanager
async def live_line(task_id: TaskId) -> AsyncIterator[LiveLine]:
    """Show how a task stands for the length of the context, if standard error is a terminal."""
    line = LiveLine(task_id)
    if not sys.stderr.isatty():
        yield line
        return
    from rich.live import Live

    with Live(line.text(), console=console(err=True), auto_refresh=False) as live:
        async with open_background() as nursery:
            nursery.start_soon(_redraw, live, line)
            try:
                yield line
            finally:
                live.transient = not line.ended  # an error takes the place of a line that nothing more follows
                live.update(line.text(), refresh=True)


async def _redraw(live: Live, line: LiveLine) -> None:
    while True:
        live.update(line.text(), refresh=True)
        await trio.sleep(FRAME_S)
