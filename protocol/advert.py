"""What a node tells others about itself: what it can do, and how busy it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import FailFast, Field
from pydantic.dataclasses import dataclass

from protocol.task import Count, Name

# A node with more kinds or personas than this is not one that a peer can choose between; the list is kept per peer.
MAX_ADVERTISED = 256
# More than any machine executes at once.
MAX_SLOTS = 1_000_000

# At the first wrong one: a list of all errors would take far more room than the names.
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_ADVERTISED), FailFast()]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAdvert:
    """What a node offers its peers.

    Attributes:
        kinds: the executors that this peer may use, by name.
        personas: who the node can act as.
        slots: how many tasks it executes at once.
        load: tasks queued and executing; above `slots` tasks wait.
    """

    kinds: Names = ()
    personas: Names = ()
    slots: Annotated[int, Field(ge=0, le=MAX_SLOTS, strict=True)] = 0
    load: Count = 0
