"""The multiplexer of a connection ends whatever happens, and ends nothing else."""

import trio
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from trio.testing import memory_stream_pair

from node.net.muxer import HardenedYamux
from node.net.streams import ByteStream


class Unencrypted(ByteStream):
    """Messages as they are, in place of Noise."""

    async def read_msg(self) -> bytes:
        """Whatever has arrived."""
        return await self.read()

    async def write_msg(self, msg: bytes) -> None:
        """Send a message."""
        await self.write(msg)


def secured(transport: trio.abc.Stream) -> tuple[ISecureConn, ID]:
    """A connection that claims to be authenticated."""
    key_pair = create_new_key_pair()
    peer_id = ID.from_pubkey(key_pair.public_key)
    session = SecureSession(
        local_peer=peer_id,
        local_private_key=key_pair.private_key,
        remote_peer=peer_id,
        remote_permanent_pubkey=key_pair.public_key,
        is_initiator=True,
        conn=Unencrypted(transport, None),  # type: ignore[arg-type] # has the methods that a session uses
    )
    return session, peer_id


class Broken(HardenedYamux):
    """A multiplexer with a defect in its reader."""

    async def handle_incoming(self) -> None:
        """Fail."""
        raise RuntimeError("a defect")


async def test_an_unexpected_error_ends_the_connection_and_is_contained() -> None:
    """In libp2p it would stop the host with all of its other connections."""
    here, there = memory_stream_pair()
    connection = Broken(*secured(here))
    with trio.fail_after(10):
        await connection.start()
        assert connection.event_closed.is_set()
        assert connection.event_started.is_set()
        assert await there.receive_some() == b""


async def test_a_goodbye_that_nobody_reads_is_cut_short(autojump_clock: trio.testing.MockClock) -> None:
    """Closing waits a second for a frozen peer, and then closes the socket."""
    del autojump_clock
    here, _ = memory_stream_pair()
    here.send_stream.send_all_hook = trio.sleep_forever
    connection = HardenedYamux(*secured(here))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        with trio.fail_after(2):
            await connection.close()
    assert connection.event_closed.is_set()


async def test_aborting_ends_the_connection_without_a_word() -> None:
    """Its reader ends by itself, and the peer sees nothing but the end."""
    here, there = memory_stream_pair()
    connection = HardenedYamux(*secured(here))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.start)
            await connection.event_started.wait()
            await connection.abort()
        assert connection.event_closed.is_set()
        assert await there.receive_some() == b""


async def test_closing_twice_says_goodbye_once() -> None:
    """Closing is idempotent, and the first goodbye reaches the peer."""
    here, there = memory_stream_pair()
    connection = HardenedYamux(*secured(here))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.start)
            await connection.event_started.wait()
            await connection.close()
            await connection.close()
        stream, goodbye = ByteStream(there, None), b""
        try:
            while True:
                goodbye += await stream.read()
        except ConnectionClosedError:
            assert goodbye == bytes([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
