"""Multiaddresses that a node can dial or listen on: /ip4, /ip6 or /dns, then /tcp, optionally /ws, optionally /p2p.

That of a peer behind a relay is the relay's, with its /p2p, then /p2p-circuit and the peer's own /p2p.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import psutil
from multiaddr import Multiaddr

from node.net.errors import InvalidAddress

_HOST_KINDS = ("ip4", "ip6", "dns", "dns4", "dns6")
_SHAPES = {("tcp",): False, ("tcp", "ws"): True}

_CIRCUIT = "/p2p-circuit"

_WILDCARDS = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - recognised here, not bound

_EXAMPLES = (
    "An address looks like /ip4/192.0.2.7/tcp/4001/p2p/<peer id> or /dns4/node.example/tcp/4002/ws/p2p/<peer id>"
)


# Many peers tell of the same addresses, and reading one takes as long as all else that is done about it: 1 MB.
KEPT_ENDPOINTS = 4_096
# A node that starts asks for each task that was cancelled, and a handful of peers and agents had them: 100 KB.
KEPT_PEER_IDS = 1_024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is reached.

    Attributes:
        kind: what `host` is: ip4, ip6, dns, dns4 or dns6.
        host: an IP address or a name.
        port: a TCP port; 0 lets the operating system choose one (listening only).
        websocket: whether WebSocket lies between TCP and libp2p.
        peer_id: who is expected there, in base58; empty when the address does not say.
        relay_id: who is at the host and port, when that is a relay which passes on to the peer; else empty.
    """

    kind: str
    host: str
    port: int
    websocket: bool = False
    peer_id: str = ""
    relay_id: str = ""

    def __str__(self) -> str:
        relay = f"/p2p/{self.relay_id}{_CIRCUIT}" if self.relay_id else ""
        suffix = f"/p2p/{self.peer_id}" if self.peer_id else ""
        return f"/{self.kind}/{self.host}/tcp/{self.port}{'/ws' if self.websocket else ''}{relay}{suffix}"

    @property
    def relay(self) -> Endpoint:
        """Where the relay itself is reached, of an address that leads through one."""
        return replace(self, peer_id=self.relay_id, relay_id="")


@lru_cache(maxsize=KEPT_ENDPOINTS)
def parse_endpoint(text: str) -> Endpoint:
    """Read an address.

    Raises:
        InvalidAddress: it is malformed, or of a transport that a node does not speak.
    """
    carrier, circuit, rest = text.partition(_CIRCUIT)
    if circuit:
        return _through(parse_endpoint(carrier), rest, text)
    try:
        address = Multiaddr(text)
    except ValueError as error:
        raise InvalidAddress(f"{text!r} is not a multiaddress: {error}", remedy=_EXAMPLES) from error
    names = [protocol.name for protocol in address.protocols()]
    peer_id = str(address.value_for_protocol(names.pop())) if names[-1:] == ["p2p"] else ""
    websocket = _SHAPES.get(tuple(names[1:]))
    if names[:1] == [] or names[0] not in _HOST_KINDS or websocket is None:
        raise InvalidAddress(f"{text!r} is not of a transport that a node speaks (TCP, WebSocket)", remedy=_EXAMPLES)
    host = str(address.value_for_protocol(names[0]))
    return Endpoint(names[0], host, int(address.value_for_protocol("tcp")), websocket, peer_id)


def _through(relay: Endpoint, rest: str, text: str) -> Endpoint:
    """Return the address of a peer behind a relay; `rest` is what stands after the relay's own."""
    named = rest.removeprefix("/p2p/")
    if rest and (named in {"", rest} or "/" in named):
        raise InvalidAddress(f"{text!r} does not end with {_CIRCUIT} or {_CIRCUIT}/p2p/<peer id>", remedy=_EXAMPLES)
    if not relay.peer_id:
        raise InvalidAddress(
            f"{text!r} does not say who the relay is", remedy=f"Put /p2p/<peer id of the relay> before {_CIRCUIT}"
        )
    peer_id = parse_peer_id(named) if named else ""
    if peer_id == relay.peer_id:
        raise InvalidAddress(
            f"{text!r} names one peer as the relay and as who is behind it", remedy=f"Dial {relay} without a relay"
        )
    return circuit_through(relay, peer_id)


def circuit_through(relay: Endpoint, peer_id: str) -> Endpoint:
    """Return the address of a peer behind a relay.

    Args:
        relay: where the relay is reached, with its peer id, and through no other.
        peer_id: whom it passes on to.
    """
    return replace(relay, peer_id=peer_id, relay_id=relay.peer_id)


def parse_peer_id(text: str) -> str:
    """Read a peer id, in base58 or as a CID, and return it in base58.

    Raises:
        InvalidAddress: it is malformed.
    """
    malformed = InvalidAddress(
        f"{text!r} is not a peer id",
        remedy="A peer id looks like 12D3KooW… and has 52 characters; `peertask id` prints that of a node",
    )
    if "/" in text:
        raise malformed
    try:
        return str(Multiaddr(f"/p2p/{text}").value_for_protocol("p2p"))
    except ValueError as error:
        raise malformed from error


@lru_cache(maxsize=KEPT_PEER_IDS)
def is_peer_id(text: str) -> bool:
    """Whether a text is a peer id in base58."""
    try:
        return parse_peer_id(text) == text
    except InvalidAddress:
        return False


def dialable_endpoints(addresses: Sequence[str]) -> tuple[Endpoint, ...]:
    """Read the addresses of a peer, each once, in the given order, those through a relay behind the others.

    Raises:
        InvalidAddress: one of them is malformed, has port 0, or there is none.
    """
    endpoints = tuple(sorted(dict.fromkeys(map(parse_endpoint, addresses)), key=lambda one: bool(one.relay_id)))
    if not endpoints:
        raise InvalidAddress("there is no address to dial", remedy=_EXAMPLES)
    for endpoint in endpoints:
        if endpoint.port == 0:
            raise InvalidAddress(f"{endpoint} has port 0, which nobody can dial", remedy=_EXAMPLES)
    return endpoints


def listening_endpoints(addresses: Iterable[str]) -> tuple[Endpoint, ...]:
    """Read the addresses that a node shall listen on.

    Raises:
        InvalidAddress: one is malformed, is a name, names a peer, or two of them want the same port.
    """
    endpoints = tuple(parse_endpoint(text) for text in addresses)
    for endpoint in endpoints:
        if endpoint.peer_id or endpoint.relay_id or endpoint.kind not in {"ip4", "ip6"}:
            raise InvalidAddress(
                f"{endpoint} cannot be listened on: only an IP address of this machine, without /p2p, can",
                remedy="Use /ip4/0.0.0.0/tcp/4001 for every IPv4 interface, /ip4/127.0.0.1/tcp/0 for this machine only",
            )
    _refuse_shared_ports(endpoints)
    return endpoints


def reachable_endpoints(endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """Return where others reach what listens on an address: a wildcard stands for every interface of this machine."""
    family = _WILDCARDS.get(endpoint.host)
    if family is None:
        return (endpoint,)
    hosts = (item.address for items in psutil.net_if_addrs().values() for item in items if item.family == family)
    # Link-local IPv6 addresses need the name of the dialler's own interface, which nobody here knows.
    return tuple(replace(endpoint, host=host) for host in hosts if "%" not in host)


def _refuse_shared_ports(endpoints: Iterable[Endpoint]) -> None:
    # On a shared port libp2p tells TCP from WebSocket by the first packet, and fails when that is a short one.
    taken: dict[tuple[str, int], Endpoint] = {}
    for endpoint in endpoints:
        place = (endpoint.host, endpoint.port)
        if endpoint.port and place in taken:
            raise InvalidAddress(
                f"{endpoint} and {taken[place]} want the same port",
                remedy="Give WebSocket a port of its own, for example the next one, or port 0 for a free one",
            )
        taken[place] = endpoint
