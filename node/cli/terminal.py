"""How results look: tables and colours on a terminal, tab-separated lines elsewhere, JSON when asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from node.gateways.http.response_models import ExplanationView, TaskSummary

STATUS_STYLES: Final = {
    "pending": "yellow",
    "blocked": "blue",
    "claimed": "yellow",
    "executing": "cyan",
    "cancelling": "magenta",
    "complete": "green",
    "failed": "red",
    "cancelled": "magenta",
}
# Enough of a peer id to tell a few dozen peers apart; all ids of the usual kind begin alike.
_SHORT_PEER_CHARS: Final = 8
_SHORT_TEXT_CHARS: Final = 60


def echo_json(value: Any) -> None:
    """Print a value as JSON on a line of its own, at once."""
    click.echo(json.dumps(value, ensure_ascii=False))


def echo_models(models: Iterable[BaseModel]) -> None:
    """Print models as JSON, one a line."""
    for model in models:
        click.echo(model.model_dump_json())


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows: as a table on a terminal, else with tabs between the cells.

    Args:
        columns: the headings.
        rows: the cells.
        empty: what to say, on standard error, when there are no rows.
    """
    rows = [tuple(row) for row in rows]
    if not rows:
        click.echo(empty, err=True)
    elif sys.stdout.isatty():
        _draw(columns, rows)
    else:
        for cells in (columns, *rows):
            click.echo("\t".join(_on_one_line(cell) for cell in cells))


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_on_one_line(cell), style=STATUS_STYLES.get(cell, "")) for cell in row))
    console().print(table)


def console(*, err: bool = False) -> Console:
    """Return a console of rich that writes to standard output or standard error."""
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def status_word(task: TaskSummary | ExplanationView) -> str:
    """Return the one word for where a task stands; one that waits for others is called blocked."""
    return "blocked" if task.blocked else task.status.value


def short_peer(peer_id: str | None) -> str:
    """Return the end of a peer id, which tells it from others; a dash for nobody."""
    if peer_id is None:
        return "–"
    return peer_id if len(peer_id) <= _SHORT_PEER_CHARS else f"…{peer_id[-_SHORT_PEER_CHARS:]}"


def short_text(text: str) -> str:
    """Return the beginning of a text, on one line."""
    line = _on_one_line(text)
    return line if len(line) <= _SHORT_TEXT_CHARS else line[: _SHORT_TEXT_CHARS - 1] + "…"


def short_time(milliseconds: float) -> str:
    """Return a duration for people."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02.0f} s" if minutes else f"{seconds:.1f} s"


def forget_stdout() -> None:
    """Let everything that is still to be printed go nowhere, because nobody reads the standard output any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
