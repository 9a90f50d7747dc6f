"""Byte streams over trio's in-memory streams."""

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from trio.testing import memory_stream_pair

from node.net.streams import ByteStream

REMOTE = ("192.0.2.1", 4001)


async def test_a_read_is_exact_however_small_the_pieces_are() -> None:
    """libp2p gives up after a hundred short reads, and a slow link needs more for one frame."""
    here, there = memory_stream_pair()
    stream = ByteStream(here, REMOTE)

    async def trickle() -> None:
        for number in range(1_000):
            await there.send_all(bytes([number % 256]))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await stream.read(1_000) == bytes(number % 256 for number in range(1_000))


async def test_one_delivery_may_serve_many_reads() -> None:
    """Bytes that came early wait for whoever asks, and a read without a number takes all that is there."""
    here, there = memory_stream_pair()
    stream = ByteStream(here, REMOTE)
    await there.send_all(b"header-body-rest")
    assert await stream.read(6) == b"header"
    assert await stream.read(0) == b""
    assert await stream.read(5) == b"-body"
    assert await stream.read() == b"-rest"


async def test_the_end_of_a_connection_is_an_error_for_whoever_waits_for_more() -> None:
    """A peer that hangs up in the middle of a frame."""
    here, there = memory_stream_pair()
    stream = ByteStream(here, REMOTE)
    await there.send_all(b"half")
    await there.aclose()
    with pytest.raises(ConnectionClosedError):
        await stream.read(8)
    assert await stream.read(4) == b"half"


async def test_closing_wakes_a_reader_and_refuses_a_writer() -> None:
    """Both see the same error as when the peer had closed."""
    here, _ = memory_stream_pair()
    stream = ByteStream(here, REMOTE)

    async def read() -> None:
        with pytest.raises(ConnectionClosedError):
            await stream.read(1)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await stream.close()
            await stream.close()
        with pytest.raises(ConnectionClosedError):
            await stream.write(b"late")


async def test_a_cancelled_read_loses_nothing() -> None:
    """What had arrived is still there for the next one."""
    here, there = memory_stream_pair()
    stream = ByteStream(here, REMOTE)
    await there.send_all(b"first")
    with trio.move_on_after(0.01):
        await stream.read(10)
    await there.send_all(b"-rest")
    assert await stream.read(10) == b"first-rest"
    assert stream.get_remote_address() == REMOTE
