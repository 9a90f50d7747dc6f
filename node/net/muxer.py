"""The multiplexer of a connection, so that its end is prompt and is nobody else's end."""

import struct
from contextlib import suppress
from typing import Final

import structlog
import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import GO_AWAY_NORMAL, TYPE_GO_AWAY, YAMUX_HEADER_FORMAT, Yamux
from libp2p.transport.upgrader import TransportUpgrader

GOODBYE_S: Final = 1.0
"""How long the go-away frame may wait: behind a write that a frozen peer blocks it would wait for ever."""

_log = structlog.get_logger(__name__)


class HardenedYamux(Yamux):
    """Yamux that always ends: `event_closed` is set and the socket closed whatever happens to it.

    libp2p's own waits for ever to say goodbye to a peer that does not read, and an unexpected exception in its reader
    stops the whole host.
    """

    def __init__(self, secured_conn: ISecureConn, peer_id: ID) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=secured_conn.is_initiator)

    @property
    def is_established(self) -> bool:
        """Whether the connection has started; libp2p's answer makes it log a warning for every peer that vanishes."""
        return self.event_started.is_set()

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
