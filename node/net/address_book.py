"""Which peers this node knows, where they can be dialled, and how the last dial went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.net.addresses import parse_endpoint
from node.net.errors import InvalidAddress
from protocol import PeerId

# A host has a handful of interfaces and transports; a peer that names more wants this node to dial for it.
MAX_ADDRESSES_PER_PEER = 16
# The oldest entries that nothing holds are dropped above it, so strangers cannot fill the book.
MAX_PEERS = 10_000


@dataclass(slots=True)
class Entry:
    """What is known about one peer.

    Attributes:
        addresses: where it can be dialled, with ``/p2p/ID``; those that this node was told by its operator first.
        kept: whether its session is to be kept up.
        last_error: why the last dial failed; empty when it did not.
    """

    addresses: tuple[str, ...] = ()
    kept: bool = False
    last_error: str = ""


class AddressBook:
    """The peers of one node."""

    def __init__(self) -> None:
        self._entries: dict[PeerId, Entry] = {}

    def __iter__(self) -> Iterator[tuple[PeerId, Entry]]:
        return iter(list(self._entries.items()))

    def entry(self, peer_id: PeerId) -> Entry:
        """Return what is known about a peer, which may be nothing yet; changes to it stay."""
        entry = self._entries.get(peer_id)
        if entry is None:
            entry = self._entries[peer_id] = Entry()
            self._drop_oldest()
        return entry

    def learn(self, address: str) -> PeerId:
        """Take a note of an address with ``/p2p/ID``, ahead of those that are known.

        Raises:
            InvalidAddress: it is malformed, or does not name a peer.
        """
        endpoint = parse_endpoint(address)
        if not endpoint.peer_id:
            raise InvalidAddress(
                f"{address!r} does not say which peer is expected there",
                remedy="Add /p2p/ and the peer id, which `peertask id` prints on that machine",
            )
        peer_id = PeerId(endpoint.peer_id)
        self._add(peer_id, (str(endpoint),), first=True)
        return peer_id

    def hear(self, peer_id: PeerId, addresses: tuple[str, ...]) -> None:
        """Take a note of what a peer says of its own addresses; what is malformed or another peer's is left out."""
        own = []
        for text in addresses:
            try:
                endpoint = parse_endpoint(text)
            except InvalidAddress:
                continue
            if endpoint.peer_id in {"", peer_id} and endpoint.port:
                own.append(f"{text.split('/p2p/', maxsplit=1)[0]}/p2p/{peer_id}")
        self._add(peer_id, tuple(own), first=False)

    def _add(self, peer_id: PeerId, addresses: tuple[str, ...], *, first: bool) -> None:
        entry = self.entry(peer_id)
        ordered = addresses + entry.addresses if first else entry.addresses + addresses
        entry.addresses = tuple(dict.fromkeys(ordered))[:MAX_ADDRESSES_PER_PEER]

    def _drop_oldest(self) -> None:
        if len(self._entries) <= MAX_PEERS:
            return
        for peer_id, entry in self._entries.items():
            if not entry.kept:
                del self._entries[peer_id]
                return
