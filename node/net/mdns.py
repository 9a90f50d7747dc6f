"""Finds nodes on the local network by multicast DNS, and lets them find this one; opt-in.

libp2p's own is not used: it blocks the event loop for 1.6 s at its start, announces 0.0.0.0 for a node that listens on
every interface, and tells its finds to the whole process. The library under it does well in threads of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

import structlog
import trio
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from node.coordination.reach import Reach, reach_of
from node.interfaces import Discovery
from node.net.addresses import Endpoint, parse_endpoint
from node.net.errors import InvalidAddress
from protocol import PeerId

log = structlog.get_logger(__name__)

SERVICE: Final = "_peertask._tcp.local."
# A TXT record has 255 bytes for each of its entries; a host has a handful of addresses.
MAX_ANNOUNCED: Final = 8
MAX_ENTRY_BYTES: Final = 255
# Announcements that wait to be looked at; a machine that floods the network with names loses its own.
MAX_WAITING: Final = 64
# How long a machine that has announced itself may take to say where it is.
ANSWER_MS: Final = 3_000
# Taking the announcement back takes a quarter of a second.
FAREWELL_S: Final = 3.0
# DNS has 63 characters for a name; the end of a peer id tells it from others.
_NAME_CHARS = 32


class MdnsDiscovery(Discovery):
    """The nodes of the local network.

    Args:
        peer_id: this node.
        addresses: its own; those that only this machine can reach are not announced.
        interfaces: IP addresses of the interfaces to use; none for all.
    """

    def __init__(self, peer_id: PeerId, addresses: Iterable[str], interfaces: Sequence[str] = ()) -> None:
        self._name = f"{peer_id[-_NAME_CHARS:]}.{SERVICE}"
        endpoints = (parse_endpoint(address) for address in addresses)
        self._announced = [endpoint for endpoint in endpoints if _is_of_others(endpoint)][:MAX_ANNOUNCED]
        self._interfaces = list(interfaces) or InterfaceChoice.All

    async def addresses(self) -> AsyncGenerator[str]:
        """Yield what other nodes announce, until cancelled; see `Discovery.addresses`.

        When multicast does not work here it says so in the log, and finds nobody.
        """
        try:
            zeroconf = await trio.to_thread.run_sync(lambda: Zeroconf(interfaces=self._interfaces))
        except (OSError, RuntimeError, ValueError) as error:  # what the library raises when no socket can be had
            log.warning(
                "mDNS does not work here, so nobody is found by it",
                reason=str(error),
                remedy="Check that the machine has a network with multicast, and the setting mdns_interfaces",
            )
            return
        try:
            async for address in self._search(zeroconf):
                yield address
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True):
                await trio.to_thread.run_sync(zeroconf.close, abandon_on_cancel=True)

    async def _search(self, zeroconf: Zeroconf) -> AsyncGenerator[str]:
        await trio.to_thread.run_sync(self._announce, zeroconf)
        send, receive = trio.open_memory_channel[str](MAX_WAITING)
        token = trio.lowlevel.current_trio_token()

        def note(name: str) -> None:
            try:
                send.send_nowait(name)
            except (trio.WouldBlock, trio.BrokenResourceError):  # there are too many, or this has ended
                log.debug("an announcement was not looked at", name=name)

        def on_change(
            zeroconf: Zeroconf,  # noqa: ARG001 - zeroconf passes all of them by name
            service_type: str,  # noqa: ARG001 - as above
            name: str,
            state_change: ServiceStateChange,
        ) -> None:
            if state_change is not ServiceStateChange.Removed and name != self._name:
                token.run_sync_soon(note, name)  # in a thread of zeroconf, which must not wait

        with receive:
            ServiceBrowser(zeroconf, SERVICE, handlers=[on_change])
            async for name in receive:
                for address in await trio.to_thread.run_sync(_ask, zeroconf, name, abandon_on_cancel=True):
                    yield address

    def _announce(self, zeroconf: Zeroconf) -> None:
        if not self._announced:
            log.info("nothing is announced by mDNS, because only this machine can reach this node")
            return
        entries = {f"a{number}": str(endpoint) for number, endpoint in enumerate(self._announced)}
        entries = {key: text for key, text in entries.items() if len(key) + 1 + len(text) <= MAX_ENTRY_BYTES}
        zeroconf.register_service(
            ServiceInfo(
                SERVICE,
                self._name,
                port=self._announced[0].port,
                server=f"{self._name[:_NAME_CHARS]}.local.",
                parsed_addresses=[endpoint.host for endpoint in self._announced],
                properties=entries,
            )
        )


def _is_of_others(endpoint: Endpoint) -> bool:
    """Whether others on the local network reach it there, and not somewhere else through a relay."""
    return (
        not endpoint.relay_id
        and endpoint.kind in {"ip4", "ip6"}
        and reach_of(endpoint.host) in {Reach.PRIVATE, Reach.PUBLIC}
    )


def _ask(zeroconf: Zeroconf, name: str) -> list[str]:
    """Return the addresses that an announcement names; in a thread."""
    info = zeroconf.get_service_info(SERVICE, name, ANSWER_MS)
    entries = list((info.decoded_properties if info is not None else {}).items())[:MAX_ANNOUNCED]
    return [text for _, text in entries if text is not None and _names_a_peer(text)]


def _names_a_peer(address: str) -> bool:
    try:
        return bool(parse_endpoint(address).peer_id)
    except InvalidAddress:
        return False
