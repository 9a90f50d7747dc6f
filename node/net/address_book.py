"""Which peers this node knows, where they can be dialled, and how the last dial went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address

from node.interfaces import PeerSource
from node.net.addresses import KEPT_ENDPOINTS, Endpoint, parse_endpoint
from node.net.errors import InvalidAddress
from protocol import PeerId

# A host has a handful of interfaces and transports; a peer that names more wants this node to dial for it. As many
# again may come from the operator.
MAX_ADDRESSES_PER_PEER = 16
# The oldest entries that nothing holds are dropped above it, so strangers cannot fill the book.
MAX_PEERS = 10_000


@dataclass(slots=True)
class Entry:
    """What is known about one peer.

    Attributes:
        told: where the operator says that it is, the latest word first.
        heard: where it says itself that it is, since its last Hello.
        source: how this node came to know it; None while only others say that it is there.
        kept: whether its session is to be kept up.
        last_error: why the last dial or session failed; empty when it did not.
    """

    told: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    source: PeerSource | None = None
    kept: bool = False
    last_error: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled, with ``/p2p/ID``; what the operator says first."""
        return tuple(dict.fromkeys(self.told + self.heard))


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

    def find(self, peer_id: PeerId) -> Entry:
        """Return what is known about a peer, to look at only: nothing is kept of one that is not known."""
        return self._entries.get(peer_id) or Entry()

    def keeps(self, peer_id: PeerId) -> bool:
        """Whether the session with a peer is to be kept up."""
        return self.find(peer_id).kept

    def learn(self, address: str, source: PeerSource = PeerSource.ASKED) -> PeerId:
        """Take a note of an address with ``/p2p/ID`` that the operator names, ahead of those that are known.

        Raises:
            InvalidAddress: it is malformed, or does not name a peer.
        """
        endpoint = parse_endpoint(address)
        peer_id = _named_peer(endpoint)
        entry = self.entry(peer_id)
        entry.told = tuple(dict.fromkeys((str(endpoint), *entry.told)))[:MAX_ADDRESSES_PER_PEER]
        entry.source = entry.source or source
        return peer_id

    def hear(self, peer_id: PeerId, addresses: tuple[str, ...]) -> None:
        """Take a note of what a peer says of its own addresses, in place of what it said before.

        What is malformed, cannot be dialled or is another peer's is left out.
        """
        self.entry(peer_id).heard = addresses_of(peer_id, addresses)

    def _drop_oldest(self) -> None:
        if len(self._entries) <= MAX_PEERS:
            return
        for peer_id, entry in self._entries.items():
            if not entry.kept:
                del self._entries[peer_id]
                return


def peers_at(addresses: Iterable[str]) -> frozenset[PeerId]:
    """Return who is named by addresses with ``/p2p/ID``.

    Raises:
        InvalidAddress: one is malformed, or names nobody.
    """
    return frozenset(_named_peer(parse_endpoint(address)) for address in addresses)


def _named_peer(endpoint: Endpoint) -> PeerId:
    if not endpoint.peer_id:
        raise InvalidAddress(
            f"'{endpoint}' does not say which peer is expected there",
            remedy="Add /p2p/ and the peer id, which `peertask id` prints on that machine",
        )
    return PeerId(endpoint.peer_id)


@lru_cache(maxsize=KEPT_ENDPOINTS)
def addresses_of(peer_id: PeerId, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some addresses that can be a peer's, with ``/p2p/ID``.

    What is malformed, cannot be dialled or is another peer's is left out.
    """
    own = (_own_address(peer_id, text) for text in addresses)
    return tuple(dict.fromkeys(filter(None, own)))[:MAX_ADDRESSES_PER_PEER]


def _own_address(peer_id: PeerId, text: str) -> str:
    try:
        endpoint = parse_endpoint(text)
    except InvalidAddress:
        return ""
    if endpoint.peer_id not in {"", peer_id} or not endpoint.port or _means_every_interface(endpoint):
        return ""
    return str(replace(endpoint, peer_id=peer_id))


def _means_every_interface(endpoint: Endpoint) -> bool:
    return endpoint.kind in {"ip4", "ip6"} and ip_address(endpoint.host).is_unspecified
