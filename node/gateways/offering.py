"""Work for another node: this one opens the session, offers what it can do, and is given tasks over it.

The tasks come as they do from any peer. All that is different is who begins, so that a node that nobody can dial works
too.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from node.interfaces import Channel, Network
from protocol import Decline, Offer, PeerAdvert, PeerId, PeertaskError

log = structlog.get_logger(__name__)


class Offering:
    """What this node offers to the one that it works for, on each session anew.

    Args:
        network: whose channel leads there.
        owner: the peer whose tasks this node asks for.
        slots: how many it takes at once.
        advert: what it can do for a peer.

    Attributes:
        owner: the same.
        refusal: why there is no work, once the owner has said so; None before.
    """

    def __init__(self, network: Network, owner: PeerId, slots: int, advert: Callable[[PeerId], PeerAdvert]) -> None:
        self.owner = owner
        self._network = network
        self._slots = slots
        self._advert = advert
        self.refusal: PeertaskError | None = None
        self._refused = trio.Event()

    def make(self, channel: Channel) -> None:
        """Ask for work on a session that has just been opened, if it is the right one."""
        if channel.peer_id == self.owner:
            self._send(channel)

    def renew(self) -> None:
        """Say again what this node takes, because that has changed."""
        channel = self._network.channel(self.owner)
        if channel is not None:
            self._send(channel)

    def withdraw(self) -> None:
        """Ask for no more work; what was accepted goes on."""
        self._slots = 0
        self.renew()

    def take_decline(self, channel: Channel, decline: Decline) -> None:
        """Take note that there is no work here."""
        log.warning("an offer was declined", peer_id=channel.peer_id, code=decline.code.value, reason=decline.message)
        if channel.peer_id == self.owner:
            self.refusal = PeertaskError(
                f"peer {self.owner} gives this node no work: {decline.message}", code=decline.code
            )
            self._refused.set()

    async def declined(self) -> None:
        """Return once the owner has said that it has no work for this node; `refusal` says why."""
        await self._refused.wait()

    def _send(self, channel: Channel) -> None:
        advert = self._advert(self.owner)
        try:
            channel.send(Offer(slots=self._slots, kinds=advert.kinds, personas=advert.personas, pull=True))
        except PeertaskError as error:  # the session is over, and the next one gets an offer of its own
            log.info("offer not made", peer_id=self.owner, reason=str(error))
        else:
            log.info("work asked for", peer_id=self.owner, slots=self._slots, kinds=list(advert.kinds))
