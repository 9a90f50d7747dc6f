"""Who may be reached through a relay, and how many circuits there may be. Pure; the clock is a parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from node.net.allowance import Allowances, Rate
from protocol import PeerId

Line = TypeVar("Line")

# Each holds a connection, and half of those of a host are left for others.
MAX_RESERVATIONS: Final = 256
# An office or a lab behind one address; whoever draws many identities there gets no more than this of the places.
MAX_RESERVATIONS_PER_ADDRESS: Final = 32
# Each may have a megabyte on its way in each direction, while an end does not read.
MAX_CIRCUITS: Final = 256
# Both ends count. It is half of the streams that a node takes on one connection.
MAX_CIRCUITS_PER_PEER: Final = 64
# As go-libp2p has it; whoever reserves comes back long before.
RESERVATION_S: Final = 3_600.0
# A node renews every minute; peers that dial many others through one relay do so seldom and at once.
REQUEST_RATE: Final = Rate(per_second=2.0, burst=64)


class RelayLimits(NamedTuple):
    """What a relay does for others.

    Attributes:
        reservations: peers that can be reached through it at a time.
        reservations_per_address: of these from one network address.
        circuits: connections that it carries at a time.
        circuits_per_peer: of these with one peer at either end.
        reservation_s: how long a reservation holds, in seconds, unless it is renewed.
        requests: how often one peer may ask for something.
    """

    reservations: int = MAX_RESERVATIONS
    reservations_per_address: int = MAX_RESERVATIONS_PER_ADDRESS
    circuits: int = MAX_CIRCUITS
    circuits_per_peer: int = MAX_CIRCUITS_PER_PEER
    reservation_s: float = RESERVATION_S
    requests: Rate = REQUEST_RATE


class _Reservation(NamedTuple, Generic[Line]):
    line: Line
    place: str
    expires_at: float


class Reservations(Generic[Line]):
    """The peers that can be reached through a relay, and the circuits that it carries.

    Args:
        limits: how many.
        is_gone: tells of a line to a peer whether it has ended; its reservation has then, too.
    """

    def __init__(self, limits: RelayLimits, is_gone: Callable[[Line], bool]) -> None:
        self._limits = limits
        self._is_gone = is_gone
        self._reservations: dict[PeerId, _Reservation[Line]] = {}
        self._circuits: Counter[PeerId] = Counter()
        self._requests = Allowances(limits.requests)

    def held(self, now: float) -> int:
        """How many peers have a reservation; `now` is in seconds, here and below."""
        return sum(self._holds(kept, now) for kept in self._reservations.values())

    @property
    def circuits(self) -> int:
        """How many circuits there are."""
        return self._circuits.total() // 2

    def may_ask(self, peer_id: PeerId, now: float) -> bool:
        """Whether a peer may ask for something now, for once."""
        self._requests.forget_idle(now)
        return bool(self._requests.take(peer_id, 1, now))

    def reserve(self, peer_id: PeerId, line: Line, place: str, now: float) -> str:
        """Make or renew the reservation of a peer, and return why not; empty when it is made.

        Args:
            peer_id: the peer.
            line: how it is reached.
            place: the network address that it comes from; empty for this machine, which has no limit of its own.
            now: the time.
        """
        self._drop_ended(now)
        reason = self._objection(peer_id, place)
        if not reason:
            self._reservations[peer_id] = _Reservation(line, place, now + self._limits.reservation_s)
        return reason

    def line(self, peer_id: PeerId, now: float) -> Line | None:
        """Return how a peer with a reservation is reached; None when it has none."""
        kept = self._reservations.get(peer_id)
        return kept.line if kept is not None and self._holds(kept, now) else None

    def open_circuit(self, one: PeerId, other: PeerId) -> bool:
        """Count a circuit between two peers, to be ended by `close_circuit`; False when there are too many."""
        busiest = max(self._circuits[one], self._circuits[other])
        if self.circuits >= self._limits.circuits or busiest >= self._limits.circuits_per_peer:
            return False
        self._circuits.update((one, other))
        return True

    def close_circuit(self, one: PeerId, other: PeerId) -> None:
        """A circuit has ended."""
        self._circuits -= Counter((one, other))

    def _holds(self, kept: _Reservation[Line], now: float) -> bool:
        return kept.expires_at > now and not self._is_gone(kept.line)

    def _objection(self, peer_id: PeerId, place: str) -> str:
        others = [kept.place for other, kept in self._reservations.items() if other != peer_id]
        if len(others) >= self._limits.reservations:
            return f"already {self._limits.reservations} peers have a reservation"
        if place and others.count(place) >= self._limits.reservations_per_address:
            return f"already {self._limits.reservations_per_address} peers from {place} have a reservation"
        return ""

    def _drop_ended(self, now: float) -> None:
        for peer_id in [peer_id for peer_id, kept in self._reservations.items() if not self._holds(kept, now)]:
            del self._reservations[peer_id]
