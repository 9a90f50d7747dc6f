"""Listening sockets of this node: one port each, exclusive, with the accept loop inside the caller's nursery."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import trio
from libp2p.abc import IListener
from multiaddr import Multiaddr

from node.net.addresses import Endpoint, parse_endpoint
from node.net.errors import CannotListen

Welcome = Callable[[trio.SocketStream, Endpoint], Awaitable[None]]
"""What happens to an accepted connection; it is closed when this returns, and this must not raise."""


_NOWHERE: Final = Endpoint("ip4", "0.0.0.0", 0)  # noqa: S104 - what a listener has before it listens


class Listener(IListener):
    """Accepts connections on one endpoint.

    libp2p's own listeners share their port with any other process of the user that asks for it, run outside of the
    program's task tree, hide why they could not start and do not know the address of an IPv6 peer.

    Args:
        nursery: where the accept loop and the connections run.
        welcome: called in a task of its own for every connection.
    """

    def __init__(self, nursery: trio.Nursery, welcome: Welcome) -> None:
        self._endpoint = _NOWHERE
        self._nursery = nursery
        self._welcome = welcome
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def listen(self, maddr: Multiaddr) -> None:
        """Take the port of an address, a free one for port 0, and start to accept. To be called once.

        Raises:
            CannotListen: the operating system says no.
        """
        endpoint = parse_endpoint(str(maddr))
        try:
            listeners = await trio.open_tcp_listeners(endpoint.port, host=endpoint.host)
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {endpoint}: {error.strerror or error}",
                remedy="Choose another port (0 takes a free one) or an address of this machine, or stop what uses it",
            ) from error
        self._endpoint = replace(endpoint, port=int(listeners[0].socket.getsockname()[1]))
        self._nursery.start_soon(self._serve, listeners)

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
