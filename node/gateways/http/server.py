"""Runs the gateway: on the data folder's Unix socket, and on loopback TCP when asked.

hypercorn speaks HTTP on each connection. The connections are accepted and kept here, because hypercorn shields its
writes from cancellation: a client that stops reading would hold up the end of the node for as long as it likes. Closing
the socket under the write ends it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from node.gateways.http.access import TokenRequired
from node.gateways.http.app import create_app
from node.gateways.http.folder import ControlAddress, occupied
from node.gateways.http.gateway import Gateway
from protocol import ErrorCode, PeertaskError

# Far more than the command line and some dashboards need, and a quarter of the files that a process may open.
MAX_CONNECTIONS: Final = 256
# Longer than clients keep a connection for the next request, so that none is closed under one.
KEEP_ALIVE_S: Final = 75.0
# Answers that are being written when the node stops; events and long polls end at once.
GRACE_S: Final = 1.0
_BACKLOG = 128

log = structlog.get_logger(__name__)


async def serve(
    gateway: Gateway,
    folder: Path,
    *,
    stop: trio.Event,
    begin: trio.Event | None = None,
    bind: str | None = None,
    task_status: trio.TaskStatus[ControlAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until told to stop; reports where, once clients can connect.

    When `stop` is set, no more connections are taken, streams of events and long polls end at once, and other answers
    have `GRACE_S` to be written. Cancelling ends everything at once. Either way the socket is removed.

    Args:
        gateway: what is asked.
        folder: the data folder of the node; only one node may run there.
        stop: ends the serving.
        begin: lets requests be answered; those that come before wait. None when there is nothing to wait for.
        bind: where to listen on TCP too, as HOST:PORT on loopback; port 0 lets the system choose.
        task_status: gets the address, for ``nursery.start``.

    Raises:
        PeertaskError: code INVALID_CONFIG, when another node runs in the folder, or `bind` cannot be listened on.
    """
    app = create_app(gateway)
    connections = _Connections()
    with occupied(folder) as hold, ExitStack() as cleanup:
        unix = cleanup.enter_context(hold.bind_socket())
        listening: list[tuple[socket.socket, ASGIApp]] = [(unix, app)]
        if bind is not None:
            listening.append((cleanup.enter_context(_bind_tcp(bind)), TokenRequired(app, hold.token())))
        for sock, _ in listening:
            sock.listen(_BACKLOG)
        address = _address([sock for sock, _ in listening])
        hold.announce(address)
        async with trio.open_nursery() as handlers:
            try:
                async with trio.open_nursery() as accepting:
                    for sock, served in listening:
                        accepting.start_soon(_accept, sock, partial(connections.handle, served), handlers, begin)
                    task_status.started(address)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                gateway.stopping.begin()
                await connections.end()
            finally:
                connections.abort()
                handlers.cancel_scope.cancel()


Handle = Callable[[trio.SocketStream], Awaitable[None]]


async def _accept(sock: socket.socket, handle: Handle, handlers: trio.Nursery, begin: trio.Event | None) -> None:
    if begin is not None:
        await begin.wait()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    await trio.serve_listeners(handle, [listener], handler_nursery=handlers)


class _Connections:
    """The connections that are open, of all listeners."""

    def __init__(self) -> None:
        self._open: set[trio.SocketStream] = set()
        self._one_less = trio.Event()
        self._context = WorkerContext(max_requests=None)
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = logging.getLogger("hypercorn.error")
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE_S

    async def handle(self, app: ASGIApp, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection; nothing that goes wrong there leaves it."""
        if len(self._open) >= MAX_CONNECTIONS:
            log.warning("too many connections", limit=MAX_CONNECTIONS)
            return
        self._open.add(stream)
        try:
            # Its types ask for TLS, and for its own names of what ASGI sends.
            asgi = ASGIWrapper(app)  # type: ignore[arg-type]
            await _Server(asgi, self._config, self._context, ConnectionState({}), stream)  # type: ignore[arg-type]
        except Exception:
            log.exception("a connection failed")
        finally:
            self._open.discard(stream)
            self._one_less.set()

    async def end(self) -> None:
        """Close idle connections, and wait for the others at most `GRACE_S`."""
        await self._context.terminated.set()
        with trio.move_on_after(GRACE_S):
            while self._open:
                self._one_less = trio.Event()
                await self._one_less.wait()

    def abort(self) -> None:
        """Close all connections; a write that waits for its reader fails."""
        for stream in self._open:
            stream.socket.close()


class _Server(TCPServer):
    """Forgets a connection when its client goes; hypercorn waits for the end of the time that an idle one is kept."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


def _bind_tcp(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise PeertaskError(
            f"cannot listen on {bind} for HTTP: {error.strerror}",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Choose another port in the setting http; port 0 lets the system choose",
        ) from error
    return sock


def _address(sockets: list[socket.socket]) -> ControlAddress:
    path = str(sockets[0].getsockname())
    if len(sockets) == 1:
        return ControlAddress(path, None, os.getpid())
    host, port = sockets[1].getsockname()[:2]
    return ControlAddress(path, f"http://{f'[{host}]' if ':' in host else host}:{port}", os.getpid())
