"""The doctor's dials: what each sort of trouble on the network looks like from here."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol

from node.background import open_background
from node.clock import SystemClock
from node.coordination.diagnosis import Probe, Symptom
from node.coordination.reach import Reach
from node.net import probing
from node.net.host import HostConfig, open_host
from node.net.identity import peer_id_of
from node.testing import FakeClock
from protocol import PROTOCOL_ID, Bye, ErrorCode, Frame, Hello, encode_frame
from tests.integration.hosts import LOOPBACK
from tests.integration.networks import side

ME = create_new_key_pair()
NOBODY = peer_id_of(create_new_key_pair())
LIMIT_S = 40.0
HOUR_MS = 3_600_000


async def probe(address: str) -> Probe:
    """Dial an address."""
    with trio.fail_after(LIMIT_S):
        return await probing.probe(address, ME, SystemClock())


@asynccontextmanager
async def tcp_server(handle: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """What is no node listens at an address."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with open_background() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield f"/ip4/127.0.0.1/tcp/{port}/p2p/{NOBODY}"


async def hang_up(stream: trio.SocketStream) -> None:
    """Close the connection at once."""
    await stream.aclose()


async def reset(stream: trio.SocketStream) -> None:
    """Close it with a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.socket.close()


async def speak_http(stream: trio.SocketStream) -> None:
    """Answer something else."""
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@asynccontextmanager
async def foreign_node(first: Frame) -> AsyncIterator[str]:
    """What speaks the protocol answers whoever opens a stream with one frame, and ends the stream."""

    async def answer(stream: INetStream) -> None:
        await stream.write(b"".join(encode_frame(first)))
        await stream.close()

    async with open_host(HostConfig(key_pair=create_new_key_pair(), listen=(LOOPBACK,))) as host:
        host.set_stream_handler(TProtocol(PROTOCOL_ID), answer)
        yield str(host.get_addrs()[0])


async def test_a_node_that_answers_is_described() -> None:
    """What it offers and takes, and how its clock goes."""
    async with side() as peer:
        found = await probe(peer.address)
    assert (found.symptom, found.reach, found.detail) == (Symptom.REACHED, Reach.LOCAL, "")
    assert found.introduction is not None
    assert found.introduction.kinds == ("echo", "mock")
    assert found.introduction.agent.startswith("peertask/")
    assert found.introduction.reaches == (Reach.LOCAL,)
    assert found.introduction.clock_offset_ms is not None
    assert abs(found.introduction.clock_offset_ms) < LIMIT_S * 1000


async def test_a_clock_that_goes_wrong_is_measured() -> None:
    """By what the Hello of the peer says."""
    async with side() as peer:
        with trio.fail_after(LIMIT_S):
            found = await probing.probe(peer.address, ME, FakeClock(SystemClock().now() + HOUR_MS))
    assert found.introduction is not None
    assert found.introduction.clock_offset_ms is not None
    assert abs(found.introduction.clock_offset_ms + HOUR_MS) < LIMIT_S * 1000


MALFORMED = ["nonsense", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1"]


@pytest.mark.parametrize("address", MALFORMED)
async def test_what_is_no_address_of_a_peer_is_not_dialled(address: str) -> None:
    """Nor one that does not say who is expected there."""
    found = await probe(address)
    assert found.symptom is Symptom.MALFORMED
    assert found.detail


async def test_a_closed_port_refuses() -> None:
    """Nothing listens there."""
    assert (await probe(f"/ip4/127.0.0.1/tcp/9/p2p/{NOBODY}")).symptom is Symptom.REFUSED


async def test_a_name_that_nobody_has_is_unknown() -> None:
    """The top-level domain is reserved for that."""
    assert (await probe(f"/dns4/nobody.invalid/tcp/9/p2p/{NOBODY}")).symptom is Symptom.NAME_UNKNOWN


@pytest.mark.parametrize(
    ("handle", "symptom"),
    [(hang_up, Symptom.CLOSED), (reset, Symptom.CLOSED), (speak_http, Symptom.NOT_LIBP2P)],
    ids=["hangs up", "resets", "speaks HTTP"],
)
async def test_what_is_no_node_is_told_apart(
    handle: Callable[[trio.SocketStream], Awaitable[None]], symptom: Symptom
) -> None:
    """Whether it closes the connection, or says something else."""
    async with tcp_server(handle) as address:
        assert (await probe(address)).symptom is symptom


async def test_another_peer_and_the_node_itself_are_told_apart() -> None:
    """By the identity that the handshake proves."""
    async with side() as peer, side(key_pair=ME) as own:
        wrong = await probe(peer.address.replace(peer.peer_id, NOBODY))
        itself = await probe(own.address)
    assert wrong.symptom is Symptom.WRONG_PEER
    assert peer.peer_id in wrong.detail
    assert itself.symptom is Symptom.ITSELF


async def test_a_node_of_another_version_is_incompatible() -> None:
    """It says Hello with versions that begin with another number."""
    async with foreign_node(Hello(versions=("7.0",))) as address:
        assert (await probe(address)).symptom is Symptom.INCOMPATIBLE


async def test_a_node_that_says_goodbye_instead_of_hello_gives_no_session() -> None:
    """Its words are passed on."""
    async with foreign_node(Bye(ErrorCode.BUSY, "no room today")) as address:
        found = await probe(address)
    assert found.symptom is Symptom.NO_SESSION
    assert "no room today" in found.detail


async def test_a_libp2p_host_that_is_no_node_is_incompatible() -> None:
    """It shakes hands, and does not know the protocol."""
    async with open_host(HostConfig(key_pair=create_new_key_pair(), listen=(LOOPBACK,))) as host:
        found = await probe(f"{host.get_addrs()[0]}")
    assert found.symptom is Symptom.INCOMPATIBLE


@pytest.mark.parametrize(
    ("error", "symptom"),
    [
        (OSError(113, "No route to host"), Symptom.NO_ROUTE),
        (OSError(101, "Network is unreachable"), Symptom.NO_ROUTE),
        (TimeoutError(110, "Connection timed out"), Symptom.TIMED_OUT),
        (ConnectionResetError(104, "Connection reset by peer"), Symptom.CLOSED),
    ],
)
def test_what_the_system_says_of_a_connection_is_told_apart(error: OSError, symptom: Symptom) -> None:
    """Trio puts the error of each address into a group below its own."""
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("several", [error])
    assert probing._connect_symptom(outer)[0] is symptom  # noqa: SLF001 - a network that does so is hard to make


async def test_silence_is_a_time_out(autojump_clock: trio.testing.MockClock) -> None:
    """Linux drops the packets of those for whom a listener has no room, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as waiting:
        port = server.getsockname()[1]
        for _ in range(2):
            visitor = waiting.enter_context(socket.socket())
            visitor.setblocking(False)
            visitor.connect_ex(("127.0.0.1", port))
        found = await probing.probe(f"/ip4/127.0.0.1/tcp/{port}/p2p/{NOBODY}", ME, SystemClock())
    assert found.symptom is Symptom.TIMED_OUT
