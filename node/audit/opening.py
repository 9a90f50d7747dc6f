"""Which audit log a node keeps, by its settings."""

from __future__ import annotations

from node.audit.log import AuditLog
from node.audit.peers import PeerEntries
from node.audit.segments import AUDIT_FOLDER, Segments
from node.config import NodeConfig
from node.feed import Feed
from node.interfaces import Clock, Network
from protocol import Sign


def audit_of(config: NodeConfig, clock: Clock, feed: Feed, network: Network, sign: Sign) -> AuditLog | None:
    """Return the audit log that the settings ask for; it hears of everything, and writes when it runs.

    Args:
        config: the settings.
        clock: tells the time.
        feed: tells what happens to tasks.
        network: tells which peers come and go, and who this node is.
        sign: signs with the key of this node.
    """
    if config.data is None or not config.audit:
        return None
    audit = AuditLog(Segments(config.data / AUDIT_FOLDER, keep_bytes=config.audit_bytes), clock, network.peer_id, sign)
    feed.listen(audit.observe)
    network.on_change(PeerEntries(audit, network.channels).look)
    return audit
