"""What this gateway asks of a node beside its tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from node.coordination.explain import Explanation
from node.coordination_service import Coordination
from node.interfaces import PeerInfo, RelayInfo
from protocol import PeerAdvert, PeerId, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """What a node says about itself.

    Attributes:
        peer_id: who it is.
        addresses: where it can be dialled, with ``/p2p/ID``.
        agent: its program and version.
        advert: what it can do, and how busy it is.
        started_at: in milliseconds since the epoch.
        relays: those that it is to be reached through.
    """

    peer_id: PeerId
    addresses: tuple[str, ...]
    agent: str
    advert: PeerAdvert
    started_at: int
    relays: tuple[RelayInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a node does its work.

    Attributes:
        status: ``draining`` takes no new tasks; ``failing`` has problems.
        problems: what is wrong, a sentence each.
    """

    status: Literal["ok", "draining", "failing"]
    problems: tuple[str, ...] = ()


class NodeControl(ABC):
    """The node itself, as the HTTP gateway sees it.

    Attributes:
        coordination: what it coordinates with; None when it runs without.
    """

    coordination: Coordination | None = None

    @abstractmethod
    def info(self) -> NodeInfo:
        """Return what the node says about itself, now."""

    @abstractmethod
    def health(self) -> Health:
        """Return whether the node does its work, now."""

    @abstractmethod
    def metrics(self) -> str:
        """Return all metrics in the text format of Prometheus, version 0.0.4."""

    @abstractmethod
    async def receipt(self, task_id: str) -> Receipt:
        """Return the receipt of a task that is complete, from the peer that carried it out when it is not at hand.

        Raises:
            TaskNotFound: the node does not know the task.
            PeertaskError: ILLEGAL_TRANSITION when it is not complete; PEER_UNREACHABLE, NOT_FOUND, PROTOCOL, TIMEOUT or
                BUSY when the peer gives none.
        """

    @abstractmethod
    async def explain(self, task_id: str) -> Explanation:
        """Tell why a task is where it is; raises `TaskNotFound`."""

    @abstractmethod
    def peers(self) -> Sequence[PeerInfo]:
        """Return every peer that is known, the connected ones first."""

    @abstractmethod
    async def connect(self, address: str) -> PeerId:
        """Open a session with the peer at an address, or return at once when there is one; see `Network.connect`.

        Raises:
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE, WRONG_PEER or INCOMPATIBLE_VERSION, in words.
        """

    @abstractmethod
    async def disconnect(self, peer_id: PeerId) -> None:
        """End the session with a peer, if there is one, and do not dial it again by itself."""
