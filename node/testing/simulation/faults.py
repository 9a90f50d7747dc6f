"""What goes wrong in a simulation, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each fault happens in a run, on the average, and for how long.

    Attributes:
        crashes: a process dies as by ``kill -9``, and comes back.
        stops: a process is stopped as by SIGTERM, and comes back.
        pauses: a process stands still as by SIGSTOP, and goes on.
        partitions: some nodes cannot reach the others, until it heals.
        breaks: all connections of a pair of nodes break.
        full_disks: nothing can be saved at a node for a while; not at those whose store takes no time.
        jumps: a clock is set forward or back.
        longest_s: what a fault lasts at the most, in seconds; most are much shorter.
        skew_ms: how far a node's clock is off at the most, in milliseconds.
        jump_ms: how far a clock is set at the most, in milliseconds.
        drift: how much too fast or slow a node's clock is at the most; 0.01 is one in a hundred.
    """

    crashes: float = 3.0
    stops: float = 1.0
    pauses: float = 2.0
    partitions: float = 2.0
    breaks: float = 5.0
    full_disks: float = 1.0
    jumps: float = 1.0
    longest_s: float = 30.0
    skew_ms: int = 600_000
    jump_ms: int = 120_000
    drift: float = 0.01


NO_FAULTS = Faults(crashes=0, stops=0, pauses=0, partitions=0, breaks=0, full_disks=0, jumps=0, skew_ms=0, drift=0)
"""Everything works."""
