"""Peers as workers of the plan."""

from __future__ import annotations

from node.coordination.roster import Worker
from node.interfaces import Channel

# What a peer that has said nothing of its limits is given at once.
SIMPLE_PEER_SLOTS = 1


def worker_at(channel: Channel, known: Worker | None) -> Worker:
    """Return a peer as the plan sees it.

    Args:
        channel: the session with it, and what it says of itself.
        known: what this node has counted of it so far; None when it is new.
    """
    advert, told = channel.advert, channel.advert.load if channel.advert is not None else 0
    slots = min(channel.in_flight, SIMPLE_PEER_SLOTS) if advert is None else channel.in_flight
    worker = Worker(
        channel.peer_id,
        frozenset(advert.kinds) if advert is not None else None,
        slots if channel.offered is None else min(slots, channel.offered),
        load=told,
        personas=frozenset(advert.personas) if advert is not None else frozenset(),
        capacity=advert.slots if advert is not None else 0,
        latency_ms=channel.latency_ms or 0.0,
    )
    if known is not None:
        worker.busy, worker.busy_until, worker.turn = known.busy, known.busy_until, known.turn
        worker.own_load = known.own_load if known.load == told else known.busy
    return worker
