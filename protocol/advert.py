"""What a node tells others about itself: what it can do, and how busy it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from protocol.task import Name

# A node with more kinds or personas than this is not one that a peer can choose between; the list is kept per peer.
MAX_ADVERTISED = 256
MAX_SLOTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAdvert:
    """What a node offers its peers.

    Attributes:
        kinds: the executors that this peer may use, by name.
        personas: who the node can act as.
        slots: how many tasks it executes at once.
        load: tasks queued and executing; above `slots` tasks wait.
    """

    kinds: Annotated[tuple[Name, ...], Field(max_length=MAX_ADVERTISED)] = ()
    personas: Annotated[tuple[Name, ...], Field(max_length=MAX_ADVERTISED)] = ()
    slots: Annotated[int, Field(ge=0, le=MAX_SLOTS, strict=True)] = 0
    load: Annotated[int, Field(ge=0, strict=True)] = 0
