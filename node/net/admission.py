"""Who may come in: limits on inbound connections, per remote address and in all. Pure; the clock is a parameter."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

IPV6_SITE_BITS = 64
"""An IPv6 subscriber gets at least a /64, so addresses inside one count as one."""


@dataclass(frozen=True, slots=True)
class AddressLimits:
    """What one remote address may do.

    Attributes:
        per_second: connections that it may open in the long run.
        burst: connections that it may open at once after a quiet time.
        connections: connections that it may hold at the same time.
    """

    per_second: float
    burst: int
    connections: int


REMOTE_ADDRESS = AddressLimits(
    per_second=20,  # a handshake costs some 3 ms of CPU: one address can use up 6 % of a core
    burst=100,  # an office or a lab behind one address that comes back at once after a power cut
    connections=128,  # a quarter of the default capacity: one address cannot fill a node
)
LOOPBACK_ADDRESS = AddressLimits(
    per_second=500,  # beyond what handshakes cost: programs on this machine have its CPU anyway
    burst=2_000,  # a whole test network that starts at once
    connections=10_000,  # no limit but the capacity of the node
)

CONCURRENT_HANDSHAKES = 256
"""Sockets that have not authenticated yet, in all: at 3 ms each, this is the work of a second."""

STALE_HANDSHAKE_S = 1.0
"""A handshake takes milliseconds and five round trips; one that has lasted longer gives way when room is short."""

OUTBOUND_SHARE = 8
"""One in so many connections is kept for peers that this node dials, so that visitors cannot cut it off."""


@dataclass(frozen=True, slots=True)
class InboundLimits:
    """The limits of a host on inbound connections.

    Attributes:
        remote: for an address of another machine.
        loopback: for an address of this machine.
        handshakes: connections that may be in their handshake at the same time.
    """

    remote: AddressLimits = REMOTE_ADDRESS
    loopback: AddressLimits = LOOPBACK_ADDRESS
    handshakes: int = CONCURRENT_HANDSHAKES


@dataclass(slots=True, eq=False)
class Visit:
    """One inbound connection, from its first packet to its end.

    Attributes:
        address: the key that it is counted under (see `address_key`).
        since: when it came, in seconds of the caller's clock.
        displaces: the visit that must end so that this one has room; it is in its handshake, and has had its time.
    """

    address: str
    since: float
    displaces: "Visit | None" = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a visitor was turned away, in words."""

    address: str
    reason: str


@dataclass(slots=True)
class _Account:
    limits: AddressLimits
    allowance: float
    counted_at: float
    connections: int = 0

    def refill(self, now: float) -> None:
        earned = (now - self.counted_at) * self.limits.per_second
        self.allowance = min(self.limits.burst, self.allowance + earned)
        self.counted_at = now

    def is_blank(self) -> bool:
        return self.connections == 0 and self.allowance >= self.limits.burst


@dataclass(slots=True)
class InboundGate:
    """Counts inbound connections and decides about the next one.

    Every visit that `enter` returns must end with `leave`. Memory is bounded by the connections of the last few
    seconds: an address that has its full allowance back is forgotten.

    Args:
        limits: the limits.
        capacity: inbound connections in all.
    """

    limits: InboundLimits
    capacity: int
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _visits: set[Visit] = field(default_factory=set)
    _handshakes: dict[Visit, None] = field(default_factory=dict)

    def enter(self, host: str, now: float) -> Visit | Refusal:
        """Decide about a new connection from an IP address.

        A refusal costs nothing, so that honest peers behind the address of a flood still get their share of its rate.
        """
        self._forget_blank_accounts(now)
        key = address_key(host)
        account = self._accounts.setdefault(key, self._new_account(host, now))
        account.refill(now)
        reason = self._objection(account, now)
        return Refusal(key, reason) if reason else self._admit(Visit(key, now, self._stale_handshake(now)), account)

    def end_handshake(self, visit: Visit) -> None:
        """The handshake of a visit is over, well or not."""
        self._handshakes.pop(visit, None)

    def leave(self, visit: Visit) -> None:
        """A visit is over."""
        self._handshakes.pop(visit, None)
        self._visits.discard(visit)
        self._accounts[visit.address].connections -= 1

    def __len__(self) -> int:
        return len(self._visits)

    def _stale_handshake(self, now: float) -> Visit | None:
        if len(self._handshakes) < self.limits.handshakes:
            return None
        oldest = next(iter(self._handshakes))
        return oldest if now - oldest.since >= STALE_HANDSHAKE_S else None

    def _admit(self, visit: Visit, account: _Account) -> Visit:
        account.allowance -= 1
        account.connections += 1
        self._visits.add(visit)
        if visit.displaces:
            self._handshakes.pop(visit.displaces, None)
        self._handshakes[visit] = None
        return visit

    def _objection(self, account: _Account, now: float) -> str:
        limits = account.limits
        if account.allowance < 1:
            return f"more than {limits.per_second:g} connections a second from one address"
        if account.connections >= limits.connections:
            return f"already {limits.connections} connections from one address"
        if len(self._visits) >= self.capacity:
            return f"the node has all of its {self.capacity} inbound connections"
        if len(self._handshakes) >= self.limits.handshakes and not self._stale_handshake(now):
            return f"already {self.limits.handshakes} handshakes under way"
        return ""

    def _new_account(self, host: str, now: float) -> _Account:
        limits = self.limits.loopback if _is_loopback(host) else self.limits.remote
        return _Account(limits, float(limits.burst), now)

    def _forget_blank_accounts(self, now: float) -> None:
        for key in list(self._oldest_accounts(2)):  # two for every new one: the table shrinks when it can
            account = self._accounts.pop(key)
            account.refill(now)
            if not account.is_blank():
                self._accounts[key] = account

    def _oldest_accounts(self, number: int) -> Iterator[str]:
        return (key for key, _ in zip(self._accounts, range(number), strict=False))


def address_key(host: str) -> str:
    """What an IP address is counted under: itself, or its /64 with IPv6; anything else stands for itself."""
    address = _parse(host)
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> IPV6_SITE_BITS << IPV6_SITE_BITS)}/{IPV6_SITE_BITS}"
    return str(address or host)


def _is_loopback(host: str) -> bool:
    address = _parse(host)
    return address is not None and address.is_loopback


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
