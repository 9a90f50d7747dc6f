"""The node that is reached through relays: keeps its reservations, and takes in who comes through them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.peer.id import ID

from node.coordination.diagnosis import Symptom
from node.interfaces import RelayInfo
from node.net.addresses import Endpoint, circuit_through, parse_endpoint
from node.net.dialing import longest_pause_s
from node.net.errors import CircuitFailed, InvalidAddress, SelfDial
from node.net.muxer import hardened
from node.net.relay.dialling import ask_relay, circuit_failed, connect_to_relay
from node.net.relay.messages import Answer, Connect, Reserve, Status, decode_stop, encode_stop
from node.net.relay.streams import CancellableStream, Opener, cancellable, receive_body
from node.net.swarm import HardenedSwarm
from protocol import PeerId, RemoteProtocolError

RENEW_S: Final = 60.0
"""How often a reservation is renewed, long before its end: it shows that the relay is there, and keeps a NAT's door
open, which many close after some minutes."""

SHORTEST_RENEWAL_S: Final = 5.0
"""A relay that gives reservations for less, or whose clock is behind, is not asked more often."""

SETTLED_S: Final = 5.0
"""A reservation that is lost sooner counts as one that was not made: else it would be made and lost all the time."""

QUESTION_S: Final = 5.0
"""How long a relay may take to say who comes."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _State:
    """How it stands with one relay.

    Attributes:
        endpoints: where it is reached, one or more.
        reserved: whether this node can be reached through it.
        error: why not; empty when it can, or when it was not tried yet.
        tried: set when it has been tried.
    """

    endpoints: tuple[Endpoint, ...]
    reserved: bool = False
    error: str = ""
    tried: trio.Event = field(default_factory=trio.Event)


class RelayClient:
    """Keeps a reservation at each of some relays.

    Args:
        opener: opens streams.
        swarm: the connections of this node.
        relays: where the relays are reached, with their peer ids.
        on_change: called when `addresses` has changed.
        epoch_s: the time, in seconds since the epoch.
        rng: keeps nodes that have lost the same relay from coming back in step.

    Raises:
        InvalidAddress: an address does not name a relay, leads through another, or to this node itself.
    """

    def __init__(
        self,
        opener: Opener,
        swarm: HardenedSwarm,
        relays: Iterable[str],
        *,
        on_change: Callable[[], None],
        epoch_s: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._opener = opener
        self._swarm = swarm
        self._own_id = str(swarm.get_peer_id())
        self._on_change = on_change
        self._epoch_s = epoch_s
        self._rng = rng
        self._states = {relay_id: _State(endpoints) for relay_id, endpoints in relays_at(relays, self._own_id).items()}

    @property
    def relays(self) -> tuple[RelayInfo, ...]:
        """How it stands with each of the relays, now."""
        return tuple(RelayInfo(relay_id, state.reserved, state.error) for relay_id, state in self._states.items())

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled through a relay, now."""
        reserved = (endpoint for state in self._states.values() if state.reserved for endpoint in state.endpoints)
        return tuple(str(circuit_through(endpoint, self._own_id)) for endpoint in reserved)

    async def run(self) -> None:
        """Reserve and renew, until cancelled."""
        async with trio.open_nursery() as nursery:
            for relay_id, state in self._states.items():
                nursery.start_soon(self._keep, relay_id, state)

    async def wait_tried(self) -> None:
        """Return when every relay has answered, or could not be reached."""
        for state in self._states.values():
            await state.tried.wait()

    async def _keep(self, relay_id: PeerId, state: _State) -> None:
        failures = 0
        while True:
            since = trio.current_time()
            try:
                await self._stay(relay_id, state)
            except CircuitFailed as error:
                settled = state.reserved and trio.current_time() - since >= SETTLED_S
                failures = 1 if settled else failures + 1
                if error.message != state.error:
                    _log.warning("no reservation at a relay", relay=relay_id, reason=error.message, remedy=error.remedy)
                state.error = error.message
                self._set_reserved(state, reserved=False)
                state.tried.set()
            await trio.sleep(self._rng.uniform(0, longest_pause_s(failures)))

    async def _stay(self, relay_id: PeerId, state: _State) -> None:
        """Connect, reserve, and renew for as long as that works; what it raises is why it does not any more."""
        connection = await connect_to_relay(self._swarm, state.endpoints)
        carrier = hardened(connection.muxed_conn)
        with carrier.in_use():
            while not carrier.is_closed:
                expires_at = await self._reserve(relay_id, connection)
                if not state.reserved:
                    _log.info("others reach this node through a relay", relay=relay_id)
                    state.error = ""
                    self._set_reserved(state, reserved=True)
                    state.tried.set()
                with trio.move_on_after(renewal_in_s(expires_at, self._epoch_s())):
                    await carrier.event_closed.wait()
        raise circuit_failed(relay_id, Symptom.RELAY_UNREACHABLE, "the connection with it has ended")

    async def _reserve(self, relay_id: PeerId, connection: INetConn) -> int | None:
        try:
            stream, answer = await ask_relay(self._opener, self._swarm.nursery, connection, relay_id, Reserve())
        except CircuitFailed as error:
            if error.symptom is Symptom.RELAY_UNREACHABLE:  # frozen: nothing goes over this connection any more
                await hardened(connection.muxed_conn).abort()
            raise
        stream.end()
        return answer.expires_at

    def _set_reserved(self, state: _State, *, reserved: bool) -> None:
        if state.reserved != reserved:
            state.reserved = reserved
            self._on_change()

    # --- who comes ---------------------------------------------------------------------------------------------------

    async def accept(self, stream: INetStream) -> None:
        """Take in a visitor that a relay announces, and return when it has gone."""
        relay_id = PeerId(str(stream.muxed_conn.peer_id))
        is_ours = relay_id in self._states and not hardened(stream.muxed_conn).relay_id
        async with cancellable(stream) as circuit:
            try:
                visitor = await _announced(circuit, relay_id, may_announce=is_ours)
            except (trio.TooSlowError, trio.BrokenResourceError) as error:
                _log.info("a relay announced nobody", relay=relay_id, reason=type(error).__name__)
                return
            if visitor is not None:
                await self._swarm.accept_circuit(circuit, ID.from_string(relay_id), ID.from_string(visitor))


async def _announced(circuit: CancellableStream, relay_id: PeerId, *, may_announce: bool) -> PeerId | None:
    """Return who is at the other end by the word of a relay, when that is well, and tell it so, or why not."""
    status, visitor = Status.PERMISSION_DENIED, None
    if may_announce:
        try:
            with trio.fail_after(QUESTION_S):
                question = decode_stop(await receive_body(circuit))
            visitor = question.peer_id if isinstance(question, Connect) else None
            status = Status.OK if visitor is not None else Status.UNEXPECTED_MESSAGE
        except RemoteProtocolError as error:
            _log.info("a relay sent what cannot be read", relay=relay_id, reason=error.message)
            status = Status.MALFORMED_MESSAGE
    await circuit.send_all(encode_stop(Answer(status)))
    return visitor


def renewal_in_s(expires_at: int | None, now_s: float) -> float:
    """Return when to renew a reservation, in seconds from now: half way to its end, and every minute anyway.

    Args:
        expires_at: its end, by the relay's clock, in seconds since the epoch; None when the relay does not say.
        now_s: the time, by this node's.
    """
    if expires_at is None:
        return RENEW_S
    return min(RENEW_S, max(SHORTEST_RENEWAL_S, (expires_at - now_s) / 2))


def relays_at(addresses: Iterable[str], own_id: str) -> dict[PeerId, tuple[Endpoint, ...]]:
    """Return the relays that addresses name, and where each is reached.

    Raises:
        InvalidAddress: one does not name a relay, or leads through another.
        SelfDial: one leads to this node itself.
    """
    relays: dict[PeerId, tuple[Endpoint, ...]] = {}
    for address in addresses:
        endpoint = parse_endpoint(address)
        if not endpoint.peer_id or endpoint.relay_id:
            raise InvalidAddress(
                f"{address!r} is not the address of a relay",
                remedy="Give the address of the relay itself, with /p2p/ and its peer id, without /p2p-circuit",
            )
        if endpoint.peer_id == own_id:
            raise SelfDial(f"{address} is this node itself", remedy="Give the address of another node as the relay")
        relay_id = PeerId(endpoint.peer_id)
        relays[relay_id] = (*relays.get(relay_id, ()), endpoint)
    return relays
