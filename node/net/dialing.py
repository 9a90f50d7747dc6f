"""Which address of a peer to try when, and what a failed attempt means in words."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from errno import ECONNREFUSED
from typing import Final

import trio
from libp2p.abc import INetConn
from libp2p.io.exceptions import IOException
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from multiaddr import Multiaddr

from node.net.addresses import Endpoint
from node.net.errors import CircuitFailed, PeerUnreachable, WrongPeer
from protocol import PeertaskError

HEAD_START_S: Final = 0.25
"""How long an address is tried alone before the next one joins in (RFC 8305); a failure starts the next one at once."""

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
"""Waits between two dials of a peer that is away; full jitter keeps nodes from dialling in step."""

_DOUBLINGS = 7  # from the first to the longest; a float has no room for those of a month

Attempt = Callable[[Multiaddr, ID], Awaitable[INetConn]]


def longest_pause_s(failures: int) -> float:
    """Return how long to wait at the most after so many failures in a row, in seconds; none after none."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, _DOUBLINGS)) if failures else 0.0


async def first_connection(endpoints: Sequence[Endpoint], peer_id: ID, attempt: Attempt) -> INetConn:
    """Try the addresses of a peer in their order, overlapping; the first that works wins and the others are given up.

    Raises:
        PeerUnreachable: none works; the message has the reason for each.
        WrongPeer: at least one leads to another peer, and none to the right one.
    """
    connections: list[INetConn] = []
    failures: list[tuple[Endpoint, Exception]] = []

    async def try_one(endpoint: Endpoint, settled: trio.Event) -> None:
        try:
            connections.append(await attempt(Multiaddr(str(endpoint)), peer_id))
            nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - libp2p raises what it likes; all of it is reported below
            failures.append((endpoint, error))
        finally:
            settled.set()

    try:
        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                settled = trio.Event()
                nursery.start_soon(try_one, endpoint, settled)
                with trio.move_on_after(HEAD_START_S):
                    await settled.wait()
    except BaseException:  # the caller was cancelled in the very moment of success: nobody would own the connection
        await _close_all(connections)
        raise
    await _close_all(connections[1:])
    if not connections:
        raise _verdict(failures, str(peer_id))
    return connections[0]


async def _close_all(connections: Sequence[INetConn]) -> None:
    with trio.CancelScope(shield=True):
        for connection in connections:
            await connection.close()


def _verdict(failures: Sequence[tuple[Endpoint, Exception]], peer_id: str) -> PeertaskError:
    for endpoint, error in failures:
        if found := _found_instead(error):
            return WrongPeer(
                f"expected peer {peer_id} at {endpoint}, but {found} answers there",
                remedy="Check the address, and with its operator the peer id: it changes when the key file is replaced",
            )
    if len(failures) == 1 and isinstance(failures[0][1], CircuitFailed):
        return failures[0][1]
    reasons = "; ".join(f"{endpoint}: {explain(error)}" for endpoint, error in failures)
    return PeerUnreachable(
        f"cannot connect to peer {peer_id} ({reasons})",
        remedy="Check that the node runs, that it listens on that address and that no firewall is in between",
    )


def explain(error: BaseException) -> str:
    """Why an attempt failed, in words for the person who asked for it."""
    found = list(causes(error))
    if any(isinstance(cause, trio.TooSlowError) for cause in found):
        return "no answer in time"
    if any(isinstance(cause, OSError) and cause.errno == ECONNREFUSED for cause in found):
        return "nothing listens there (connection refused)"
    if any(isinstance(cause, IOException) for cause in found):
        return "it closed the connection during the handshake: it is full, limits connections from here, or is no node"
    system = [cause for cause in found if isinstance(cause, OSError)]
    if system:
        return system[-1].strerror or str(system[-1])
    if isinstance(error, SwarmException | PeertaskError):
        return str(error)
    return "what answers there does not speak libp2p with Noise and Yamux"


def _found_instead(error: BaseException) -> str:
    mismatches = [cause for cause in causes(error) if isinstance(cause, PeerIDMismatchesPubkey)]
    return str(mismatches[0]).rpartition("=")[2] if mismatches else ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything that brought it about."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from causes(part)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
