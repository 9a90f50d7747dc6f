"""Notes in the audit log which peers come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.audit.log import AuditLog
from node.interfaces import Channel
from protocol import PeerId


class PeerEntries:
    """Compares the peers that are connected with those before.

    Args:
        log: where it notes the difference.
        channels: returns the open sessions.
    """

    def __init__(self, log: AuditLog, channels: Callable[[], Sequence[Channel]]) -> None:
        self._log = log
        self._channels = channels
        self._connected: frozenset[PeerId] = frozenset()

    def look(self) -> None:
        """Note who has come and who is gone; made to be a listener of the network."""
        connected = frozenset(channel.peer_id for channel in self._channels())
        for peer_id in sorted(connected - self._connected):
            self._log.note("PeerConnected", peer_id=peer_id)
        for peer_id in sorted(self._connected - connected):
            self._log.note("PeerDisconnected", peer_id=peer_id)
        self._connected = connected
