"""The multiplexer of a connection: its end is prompt and is nobody else's end, and a write costs what it must.

Each lock of trio and each frame costs a pass of the scheduler, at one end or at both, and a small message is cheaper
than the passes that libp2p spends on it. What happens between two awaits needs no lock, and credit that the peer does
not miss need not be given back yet.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, cast

import structlog
import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    GO_AWAY_NORMAL,
    HEADER_SIZE,
    MAX_MESSAGE_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)
from libp2p.transport.upgrader import TransportUpgrader

from node.net.locks import make_prompt

GOODBYE_S: Final = 1.0
"""How long the go-away frame may wait: behind a write that a frozen peer blocks it would wait for ever."""

LARGEST_WINDOW_BYTES: Final = 1024 * 1024
"""What a stream may send ahead of its reader: small frames wait behind it, and 100 ms away it still gives 10 MB/s."""

RTT_AFTER_S: Final = 0.5
"""How long after its start a connection measures its round trip: the handshakes on it are over then."""

_log = structlog.get_logger(__name__)


class FrugalStream(YamuxStream):
    """A stream that takes no lock to write what fits, and gives credit back when half of the window is used up.

    libp2p's own answers each read with a frame of credit, which is encrypted, sent, and wakes the peer for nothing.
    """

    _unreported = 0

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for credit where there is none.

        Raises:
            MuxedStreamError: the stream is closed, or the peer has not read for five seconds.
        """
        size = len(data)
        if self.closed or self.send_closed or size > min(self.send_window, MAX_MESSAGE_SIZE - HEADER_SIZE):
            await super().write(data)
            return
        self.send_window -= size
        header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, self.stream_id, size)
        await self.conn._write_frame(header + data)  # noqa: SLF001 - the one way to write to the connection

    async def reset(self) -> None:
        """End the stream at once, in both directions; a reader of it wakes, which libp2p's own leaves waiting."""
        reading = self.conn.stream_events.get(self.stream_id)
        await super().reset()
        if reading is not None:
            reading.set()

    def _apply_autotune_epoch(self, buffered: int) -> int:
        return 0 if self.target_recv_window >= LARGEST_WINDOW_BYTES else super()._apply_autotune_epoch(buffered)

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        self._unreported += bytes_read
        if self._unreported < self.target_recv_window // 2:
            return
        bytes_read, self._unreported = self._unreported, 0
        await super()._auto_tune_and_send_window_update(bytes_read=bytes_read)


class HardenedYamux(Yamux):
    """Yamux that always ends: `event_closed` is set and the socket closed whatever happens to it.

    libp2p's own waits for ever to say goodbye to a peer that does not read, and an unexpected exception in its reader
    stops the whole host.

    Attributes:
        relay_id: the peer that it goes through; empty when it goes to the peer itself.
        users: how many rely on it beside the sessions that it carries.
        promised_until: until when this node has promised to keep it, in seconds of trio's clock.
    """

    relay_id = ""
    users = 0
    promised_until = 0.0

    def __init__(self, secured_conn: ISecureConn, peer_id: ID) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=secured_conn.is_initiator)
        make_prompt(self, "streams_lock", "_write_lock")

    @property
    def is_needed(self) -> bool:
        """Whether it has to stay open although no session has a use for it."""
        return self.users > 0 or trio.current_time() < self.promised_until

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Count one more user for the length of a block."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    @property
    def is_established(self) -> bool:
        """Whether the connection has started; libp2p's answer makes it log a warning for every peer that vanishes."""
        return self.event_started.is_set()

    @property
    def remote_host(self) -> str:
        """The IP address of the peer; empty when there is none."""
        remote = self.secured_conn.get_remote_address()
        return remote[0] if remote else ""

    async def open_stream(self) -> YamuxStream:
        """Open a stream to the peer."""
        return _frugal(await super().open_stream())

    async def accept_stream(self) -> IMuxedStream:
        """Wait for a stream that the peer opens."""
        return _frugal(await super().accept_stream())

    async def _write_frame(self, data: bytes) -> None:
        # libp2p's own also takes every frame apart for a log that nobody reads, and lets a pass of the scheduler go by.
        async with self._write_lock:
            await self.secured_conn.write(data)

    async def _measure_rtt_loop(self) -> None:
        # Once is enough to size windows; libp2p's own goes on for ever, and wakes both ends for it.
        await trio.sleep(RTT_AFTER_S)
        header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, 1)
        with suppress(IOException):  # the connection is gone, and its reader knows
            await self._write_frame(header)
        self._ping_sent_time = trio.current_time()

    async def _stale_stream_sweeper(self) -> None:
        """Leave it to `sweep`: a task and a timer for each connection is what an idle node is made of."""

    def sweep(self) -> None:
        """Forget streams that are closed and were never read to their end; to be called every minute or so."""
        self._sweep_stale_streams()
        # A reader that learns of the end of its stream leaves an event behind.
        for stream_id in self.stream_events.keys() - self.streams.keys():
            del self.stream_events[stream_id]

    async def start(self) -> None:
        """Carry frames until the connection ends; an error ends this connection only."""
        try:
            await super().start()
        except Exception:  # noqa: BLE001 - in libp2p it would end the host: this is the last place to catch it
            _log.exception("a connection broke on an unexpected error", peer_id=str(self.peer_id))
        finally:
            self.event_started.set()  # whoever registers the connection waits for this, also when it never started
            with trio.CancelScope(shield=True):
                await self._end()
            self._let_go()

    async def close(self, error_code: int = GO_AWAY_NORMAL) -> None:
        """Say goodbye, for a second at most, and close the socket. Idempotent."""
        if not self.event_shutting_down.is_set():
            with trio.move_on_after(GOODBYE_S), suppress(IOException):
                await self._write_frame(struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_GO_AWAY, 0, 0, error_code))
        await self._end()

    async def abort(self) -> None:
        """Close the socket without a word; blocked readers see the end of their stream, writers an error."""
        self.event_shutting_down.set()
        await self.secured_conn.close()

    def _let_go(self) -> None:
        # These three tie the connection, its keys and its buffers into a cycle, which would wait for the garbage
        # collector: in a burst of connections that is tens of megabytes.
        self.on_close = None
        self._nursery = None
        vars(self).pop("remove_stream", None)

    async def _end(self) -> None:
        if not self.event_closed.is_set():
            await self._cleanup_on_error()


def _frugal(stream: IMuxedStream) -> FrugalStream:
    # libp2p names the class of its streams in code; ours has no state that a constructor would have to make.
    stream.__class__ = FrugalStream
    make_prompt(stream, "window_lock")
    return cast("FrugalStream", stream)


def hardened(connection: IMuxedConn) -> HardenedYamux:
    """Return a connection of a host of ours as what it is.

    Raises:
        TypeError: it is no such connection.
    """
    if not isinstance(connection, HardenedYamux):
        raise TypeError("the connection was not made by node.net.host")
    return connection


class HardenedUpgrader(TransportUpgrader):
    """Makes every multiplexed connection one of our own kind; libp2p names its Yamux class in code."""

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Agree on Yamux over an encrypted connection.

        Raises:
            MultiselectError: the peer does not offer it.
            MultiselectClientError: likewise, when this node dialled.
        """
        muxer = await self.muxer_multistream.select_transport(conn)
        return muxer(conn, peer_id)
