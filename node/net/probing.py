"""Dials an address as a node does, and finds out what stands in the way when that fails."""

from __future__ import annotations

import socket
from errno import ECONNREFUSED, ECONNRESET
from pathlib import Path
from typing import Final

import trio
from libp2p.crypto.keys import KeyPair

from node.coordination.diagnosis import Introduction, Probe, Symptom
from node.coordination.reach import Reach, reach_of
from node.interfaces import Channel, ChannelHandler, Clock
from node.net.addresses import Endpoint, parse_endpoint
from node.net.dialing import causes
from node.net.errors import CircuitFailed, InvalidAddress, PeerUnreachable, SelfDial
from node.net.finder import Finding
from node.net.host import HostConfig
from node.net.identity import create_identity, load_or_create_identity, peer_id_of
from node.net.network import PeerNetwork
from node.net.session import Session
from protocol import ErrorCode, Frame, PeerAdvert, PeerId, PeertaskError

PROBE_S: Final = 20.0
"""How long one address may take: connecting and shaking hands have 5 s each, and the greeting 10."""

RELAYED_PROBE_S: Final = 40.0
"""How long one that leads through a relay may take: the same with the relay, and what it does with the peer."""

CONNECT_S: Final = 5.0
"""After so long without an answer packets are being dropped; a lost one is sent again after 1 s, and after 3."""

QUIET_S: Final = 1.0
"""What closes a connection at once does so in less; what waits to be spoken to is silent for longer."""

_BY_CODE: Final = {ErrorCode.WRONG_PEER: Symptom.WRONG_PEER, ErrorCode.INCOMPATIBLE_VERSION: Symptom.INCOMPATIBLE}


class _NoNode(ChannelHandler):
    """Takes nothing: whoever probes offers nothing, and says goodbye at once."""

    def opened(self, channel: Channel) -> None:
        """Do nothing."""

    def received(self, channel: Channel, frame: Frame) -> None:
        """Do nothing: what the peer has asked is free for others when the session ends."""

    def closed(self, channel: Channel, reason: str) -> None:
        """Do nothing."""


class Prober:
    """Probes addresses as one peer.

    Args:
        clock: compared with those of the peers.
        folder: the data folder whose node is to be the one that asks; no node may run there. None to ask as a stranger.

    Attributes:
        peer_id: who asks.
    """

    def __init__(self, clock: Clock, folder: Path | None = None) -> None:
        self._key_pair = create_identity() if folder is None else load_or_create_identity(folder)
        self._clock = clock
        self.peer_id = peer_id_of(self._key_pair)

    async def probe(self, address: str) -> Probe:
        """Dial an address; see `probe`."""
        return await probe(address, self._key_pair, self._clock)


async def probe(address: str, key_pair: KeyPair, clock: Clock) -> Probe:
    """Open a session with the peer at an address, hear what it says about itself, and end it.

    Never raises because of what the network or the peer does.

    Args:
        address: with ``/p2p/ID``.
        key_pair: as whom to ask; no node may run with it, for its sessions would be replaced.
        clock: compared with the peer's.
    """
    try:
        endpoint = parse_endpoint(address)
    except InvalidAddress as error:
        return Probe(address=address, symptom=Symptom.MALFORMED, detail=error.message)
    reach, began = reach_of(endpoint.host), trio.current_time()
    network = PeerNetwork(HostConfig(key_pair=key_pair), finding=Finding(share=False), clock=clock)
    async with network.running(_NoNode(), _NoNode(), _nothing):
        limit_s = RELAYED_PROBE_S if endpoint.relay_id else PROBE_S
        symptom, detail = Symptom.TIMED_OUT, f"gave up after {limit_s:.0f} s"
        with trio.move_on_after(limit_s):
            try:
                peer_id = await network.connect(address)
                elapsed_ms = (trio.current_time() - began) * 1000
                return Probe(
                    address=address,
                    symptom=Symptom.REACHED,
                    reach=reach,
                    elapsed_ms=elapsed_ms,
                    introduction=_introduction(network.channel(peer_id)),
                )
            except PeertaskError as error:
                symptom, detail = await _symptom(endpoint, error)
    elapsed_ms = (trio.current_time() - began) * 1000
    return Probe(address=address, symptom=symptom, reach=reach, elapsed_ms=elapsed_ms, detail=detail)


def _introduction(channel: Channel | None) -> Introduction:
    hello = channel.hello if isinstance(channel, Session) else None
    if hello is None or not isinstance(channel, Session):  # it went as it came, and was there all the same
        return Introduction()
    reaches = (reach_of_address(address) for address in hello.addresses)
    return Introduction(
        agent=hello.agent,
        versions=hello.versions,
        kinds=hello.advert.kinds,
        limits=hello.limits,
        reaches=tuple(reach for reach in reaches if reach is not None),
        clock_offset_ms=channel.clock_offset_ms,
    )


def reach_of_address(address: str) -> Reach | None:
    """Return from how far a multiaddress can be reached; None when it is malformed, or no machine's."""
    try:
        return reach_of(parse_endpoint(address).host)
    except InvalidAddress:
        return None


async def _symptom(endpoint: Endpoint, error: PeertaskError) -> tuple[Symptom, str]:
    if isinstance(error, SelfDial):
        return Symptom.ITSELF, ""
    if isinstance(error, InvalidAddress):
        return Symptom.MALFORMED, error.message
    if isinstance(error, CircuitFailed):
        return error.symptom, error.detail
    if error.code in _BY_CODE:
        return _BY_CODE[error.code], error.message
    if endpoint.relay_id:
        return Symptom.NO_SESSION, error.message
    if isinstance(error, PeerUnreachable) and error.__cause__ is None:  # no connection; else there was no stream on it
        return await _tcp_symptom(endpoint)
    return Symptom.NO_SESSION, error.message


async def _tcp_symptom(endpoint: Endpoint) -> tuple[Symptom, str]:
    """Find out how far a connection gets that libp2p could not use."""
    try:
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except trio.TooSlowError:
        return Symptom.TIMED_OUT, f"no answer for {CONNECT_S:.0f} s"
    except OSError as error:
        return _connect_symptom(error)
    async with stream:
        try:
            with trio.move_on_after(QUIET_S):
                if not await stream.receive_some():
                    return Symptom.CLOSED, ""
        except trio.BrokenResourceError:
            return Symptom.CLOSED, "reset"
    return Symptom.NOT_LIBP2P, ""


def _connect_symptom(error: OSError) -> tuple[Symptom, str]:
    found = [cause for cause in causes(error) if isinstance(cause, OSError)]
    if any(isinstance(cause, socket.gaierror) for cause in found):
        return Symptom.NAME_UNKNOWN, ""
    if any(cause.errno == ECONNREFUSED for cause in found):
        return Symptom.REFUSED, ""
    if any(cause.errno == ECONNRESET for cause in found):
        return Symptom.CLOSED, "reset"
    if any(isinstance(cause, TimeoutError) for cause in found):
        return Symptom.TIMED_OUT, "the system gave up"
    return Symptom.NO_ROUTE, next((cause.strerror for cause in found if cause.strerror), str(error))


def _nothing(_peer_id: PeerId) -> PeerAdvert:
    return PeerAdvert()
