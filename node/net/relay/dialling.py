"""Reaches a peer through a relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio
from libp2p.abc import INetConn
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectClientError

from node.coordination.diagnosis import Symptom, meaning_of
from node.net.addresses import Endpoint
from node.net.errors import CircuitFailed
from node.net.relay.messages import HOP, Answer, Connect, Message, Reserve, Status, decode_hop, encode_hop
from node.net.relay.streams import CancellableStream, Opener, open_stream, receive_body
from node.net.swarm import HardenedSwarm
from protocol import PeerId, PeertaskError, RemoteProtocolError

ANSWER_S: Final = 10.0
"""How long a relay may take to answer: it asks the other side first, which takes `node.net.relay.service.STOP_S`."""

_SYMPTOMS: Final[Mapping[int, Symptom]] = {
    Status.RESERVATION_REFUSED: Symptom.RELAY_FULL,
    Status.RESOURCE_LIMIT_EXCEEDED: Symptom.RELAY_FULL,
    Status.PERMISSION_DENIED: Symptom.RELAY_REFUSES,
    Status.CONNECTION_FAILED: Symptom.PEER_SILENT,
    Status.NO_RESERVATION: Symptom.NO_RESERVATION,
}


async def open_circuit(opener: Opener, swarm: HardenedSwarm, endpoint: Endpoint) -> CancellableStream:
    """Make a circuit to a peer; it is closed by the caller. Cancelling is safe.

    Args:
        opener: opens streams.
        swarm: the connections of this node.
        endpoint: leads through a relay, and names the peer.

    Raises:
        CircuitFailed: says why there is none.
    """
    connection = await connect_to_relay(swarm, (endpoint.relay,))
    stream, _ = await ask_relay(opener, swarm.nursery, connection, endpoint.relay_id, Connect(PeerId(endpoint.peer_id)))
    return stream


async def connect_to_relay(swarm: HardenedSwarm, relay: tuple[Endpoint, ...]) -> INetConn:
    """Return a connection with a relay that goes through no other; made when there is none.

    Raises:
        CircuitFailed: there is none and none can be made.
    """
    relay_id = relay[0].peer_id
    if relay_id == str(swarm.get_peer_id()):  # and that peer is not connected, else nobody would be dialled
        raise circuit_failed(relay_id, Symptom.NO_RESERVATION, "this node itself")
    try:
        return await swarm.dial_endpoints(ID.from_string(relay_id), relay, direct=True)
    except PeertaskError as error:
        raise circuit_failed(relay_id, Symptom.RELAY_UNREACHABLE, error.message) from None


async def ask_relay(
    opener: Opener, nursery: trio.Nursery, connection: INetConn, relay_id: str, question: Reserve | Connect
) -> tuple[CancellableStream, Answer]:
    """Ask a relay for something, and return the stream, to be closed by the caller, and the answer, which is good.

    Cancelling is safe.

    Raises:
        CircuitFailed: says why not.
    """
    try:
        with trio.fail_after(ANSWER_S):
            stream = await open_stream(opener, nursery, connection, HOP)
            try:
                answer = await _exchange(stream, question)
                _require_ok(answer, relay_id)
            except BaseException:
                stream.end()
                raise
    except CircuitFailed:
        raise
    except trio.TooSlowError:
        detail = f"it has said nothing for {ANSWER_S:.0f} s"
        raise circuit_failed(relay_id, Symptom.RELAY_UNREACHABLE, detail) from None
    except Exception as error:  # libp2p raises what it likes at what a relay sends
        refusal = error.__cause__
        if isinstance(refusal, MultiselectClientError) and "not supported" in str(refusal):
            raise circuit_failed(relay_id, Symptom.NO_RELAY) from error
        raise circuit_failed(relay_id, Symptom.RELAY_BROKEN, str(refusal or error)) from error
    return stream, answer


async def _exchange(stream: CancellableStream, question: Message) -> Answer:
    await stream.send_all(encode_hop(question))
    answer = decode_hop(await receive_body(stream))
    if not isinstance(answer, Answer):
        raise RemoteProtocolError("it asks where it has to answer")
    return answer


def _require_ok(answer: Answer, relay_id: str) -> None:
    if answer.status != Status.OK:
        symptom = _SYMPTOMS.get(answer.status, Symptom.RELAY_BROKEN)
        raise circuit_failed(relay_id, symptom, "" if answer.status in _SYMPTOMS else f"it answers {answer.status}")


def circuit_failed(relay_id: str, symptom: Symptom, detail: str = "") -> CircuitFailed:
    """Return the error for what went wrong at a relay, in words."""
    text, remedy = meaning_of(symptom)
    detail = f"relay {relay_id}: {detail}" if detail else f"relay {relay_id}"
    return CircuitFailed(text, symptom, detail, remedy=remedy)
