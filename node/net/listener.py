"""Listening sockets of this node: one port each, exclusive, with the accept loop inside the caller's nursery."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio
from libp2p.abc import IListener
from multiaddr import Multiaddr

from node.net.addresses import Endpoint
from node.net.errors import CannotListen

Welcome = Callable[[trio.SocketStream, Endpoint], Awaitable[None]]
"""What happens to an accepted connection; it is closed when this returns, and this must not raise."""


class Listener(IListener):
    """Accepts connections on one endpoint.

    libp2p's own listeners share their port with any other process of the user that asks for it, run outside of the
    program's task tree, hide why they could not start and do not know the address of an IPv6 peer.

    Args:
        endpoint: where to listen; port 0 takes a free one.
        nursery: where the accept loop and the connections run.
        welcome: called in a task of its own for every connection.
    """

    def __init__(self, endpoint: Endpoint, nursery: trio.Nursery, welcome: Welcome) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._welcome = welcome
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def open(self) -> None:
        """Take the port and start to accept.

        Raises:
            CannotListen: the operating system says no.
        """
        try:
            listeners = await trio.open_tcp_listeners(self._endpoint.port, host=self._endpoint.host)
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {self._endpoint}: {error.strerror or error}",
                remedy="Choose another port (0 takes a free one) or an address of this machine, or stop what uses it",
            ) from error
        self._endpoint = replace(self._endpoint, port=int(listeners[0].socket.getsockname()[1]))
        self._nursery.start_soon(self._serve, listeners)

    async def listen(self, maddr: Multiaddr) -> None:
        """Part of libp2p's interface only: a listener knows its endpoint, and `open` starts it."""
        raise NotImplementedError(f"open() starts a listener, not listen({maddr})")

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """Where this listener is reached, with its real port."""
        return (Multiaddr(str(self._endpoint)),)

    async def close(self) -> None:
        """Give the port back and end every connection that came through it."""
        self._scope.cancel()
        await self._stopped.wait()

    async def _serve(self, listeners: list[trio.SocketListener]) -> None:
        try:
            with self._scope:
                await trio.serve_listeners(self._handle, listeners)
        finally:
            self._stopped.set()

    async def _handle(self, stream: trio.SocketStream) -> None:
        await self._welcome(stream, self._endpoint)
