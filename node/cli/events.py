"""How what happened to a task is told: a line for each fact."""

from __future__ import annotations

import click

from node.cli.terminal import short_peer
from node.gateways.http.client import WatchItem
from node.gateways.http.response_models import EventView, LaggedView


def tell_event(item: WatchItem, *, as_json: bool) -> None:
    """Print one; that facts are missing is said on standard error for people."""
    if isinstance(item, EventView):
        click.echo(item.model_dump_json() if as_json else _line(item))
    elif isinstance(item, LaggedView):
        missed = f"… {item.missed or 'some'} facts are not kept or were missed"
        click.echo(item.model_dump_json() if as_json else missed, err=not as_json)


def _line(event: EventView) -> str:
    parts = [event.at_iso, event.task_id, f"{event.seq:>3}", f"{event.fact:<15}", f"{event.status.value:<10}"]
    if event.holder is not None:
        parts.append(f"by {short_peer(event.holder)}")
    if event.progress:
        parts.append(f"{event.progress:.0%}")
    if event.code is not None:
        parts.append(event.code.value)
    if event.message:
        parts.append(event.message)
    return "  ".join(parts)
