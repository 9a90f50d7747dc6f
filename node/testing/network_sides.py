"""Two nodes at either end of a network, for the checkers of networks and channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from node.interfaces import Channel, Network
from node.testing.contract import ContractViolation
from node.testing.handlers import RecordingHandler
from protocol import PeerAdvert, PeerId

# A real session takes some 50 ms to open and to end; a busy machine takes its time.
CHECK_LIMIT_S = 30.0

MakePair = Callable[[], AbstractAsyncContextManager[tuple[Network, Network]]]
"""Makes two networks that can reach each other and do not run yet."""


class Side:
    """One of two nodes: its network, and what the network told it.

    Args:
        network: of the node.

    Attributes:
        worker: what peers asked.
        requester: what peers answered.
        advert: what the node tells its peers about itself.
        changes: how often the network said that something has changed.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.worker = RecordingHandler()
        self.requester = RecordingHandler()
        self.advert = PeerAdvert(kinds=("echo", "mock"), slots=8, load=3)
        self.changes = 0
        self._changed = trio.Event()
        network.on_change(self._count_change)

    @property
    def peer_id(self) -> PeerId:
        """Who the node is."""
        return self.network.peer_id

    @property
    def address(self) -> str:
        """Where the node can be dialled."""
        return self.network.addresses[0]

    @property
    def handlers(self) -> tuple[RecordingHandler, RecordingHandler]:
        """Both of the node's handlers."""
        return (self.worker, self.requester)

    def channel_to(self, other: Side) -> Channel:
        """Return the open session with the other node.

        Raises:
            ContractViolation: there is none.
        """
        channel = self.network.channel(other.peer_id)
        if channel is None:
            raise ContractViolation("a session that was opened is found by Network.channel")
        return channel

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds; it is looked at after each change that the network tells."""
        while not condition():
            await self._changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the network for the length of the context."""
        async with self.network.running(self.worker, self.requester, lambda _peer_id: self.advert):
            yield

    def _count_change(self) -> None:
        self.changes += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()


async def connect(one: Side, other: Side) -> tuple[Channel, Channel]:
    """Let one node connect to the other, and return the ends of the session."""
    await one.network.connect(other.address)
    await other.wait_until(lambda: other.network.channel(one.peer_id) is not None)
    return one.channel_to(other), other.channel_to(one)


async def run_checks(make_pair: MakePair, checks: Iterable[Callable[[Side, Side], Awaitable[None]]]) -> None:
    """Run each check with a fresh pair of nodes that run.

    Raises:
        ContractViolation: names the promise that is broken.
        trio.TooSlowError: what was to happen did not.
    """
    for check in checks:
        async with make_pair() as (network, other_network):
            one, other = Side(network), Side(other_network)
            with trio.fail_after(CHECK_LIMIT_S):
                async with one.running(), other.running():
                    await check(one, other)
