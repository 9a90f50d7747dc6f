"""What a node is to relays: one itself, or reached through some, or neither. Loads the rest only when it is either."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import trio

from node.interfaces import RelayInfo
from protocol import MAX_ADDRESSES, PeerId

if TYPE_CHECKING:
    from libp2p.abc import INetConn

    from node.net.host import HardenedHost
    from node.net.relay.client import RelayClient
    from node.net.relay.reservations import Reservations


class Relaying(NamedTuple):
    """How a node has to do with relays; by default it only dials peers that are behind some.

    Attributes:
        service: whether peers may be reached through it.
        users: the only ones that may; everybody when there is none.
        relays: the addresses, with ``/p2p/ID``, of those through which it is to be reached itself.
    """

    service: bool = False
    users: frozenset[PeerId] = frozenset()
    relays: tuple[str, ...] = ()


class RelayRoles:
    """The roles of one node, once it has taken them.

    Args:
        relaying: which.
    """

    def __init__(self, relaying: Relaying) -> None:
        self._relaying = relaying
        self._client: RelayClient | None = None
        self._served: Reservations[INetConn] | None = None

    async def take(
        self,
        host: HardenedHost,
        nursery: trio.Nursery,
        own_addresses: tuple[str, ...],
        on_change: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """Serve, and reserve, from now on; waits a moment for the relays, so that a node says at once where it is.

        Args:
            host: of the node.
            nursery: where what goes on runs.
            own_addresses: where the node is reached without a relay.
            on_change: called when the addresses at relays have changed.
            rng: spreads what is tried again.

        Raises:
            InvalidAddress: one of the addresses is not that of a relay.
        """
        service, users, relays = self._relaying
        if not (service or relays):
            return
        from node.net.relay import wiring  # noqa: PLC0415 - few nodes need it

        if service:
            self._served = wiring.serve_as_relay(host, users, lambda: own_addresses)
        if relays:
            self._client = await wiring.be_reached_through_relays(host, relays, nursery, on_change, rng)

    def leave(self) -> None:
        """The host has ended, and the roles with it."""
        self._client = self._served = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the node can be dialled through a relay, now."""
        return () if self._client is None else self._client.addresses

    def told(self, own_addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Return as many addresses as peers are told; a machine with many interfaces has those at relays in them."""
        relayed = self.addresses[:MAX_ADDRESSES]
        return own_addresses[: MAX_ADDRESSES - len(relayed)] + relayed

    @property
    def infos(self) -> tuple[RelayInfo, ...]:
        """How it stands with the relays through which the node is to be reached."""
        return () if self._client is None else self._client.relays

    @property
    def reservations(self) -> int:
        """How many peers others reach through the node."""
        return 0 if self._served is None else self._served.held(trio.current_time())

    @property
    def circuits(self) -> int:
        """How many connections between others the node carries."""
        return 0 if self._served is None else self._served.circuits
