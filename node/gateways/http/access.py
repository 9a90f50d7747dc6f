"""Who may speak over TCP: whoever shows the token, from this machine, to a host that is this machine.

On the Unix socket the mode of the file decides instead.
"""

from __future__ import annotations

import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from node.config import is_loopback
from node.gateways.http.errors import RequestRefused, error_response
from protocol import ErrorCode

_UNAUTHORIZED: Final = 401
_MISDIRECTED: Final = 421


class TokenRequired:
    """Lets a request through that has the token, and names a loopback host.

    The host is checked because of DNS rebinding: a page of anybody can give its own name the address 127.0.0.1, and the
    browser then takes the node for a part of that page.

    Args:
        app: what answers the requests that are let through.
        token: the secret; compared in constant time.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        refused = self._refused(Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            response = error_response(
                refused, {"WWW-Authenticate": "Bearer"} if refused.status == _UNAUTHORIZED else None
            )
            await response(scope, receive, send)

    def _refused(self, headers: Headers) -> RequestRefused | None:
        host = headers.get("host", "")
        if not is_loopback(_without_port(host)):
            return RequestRefused(
                f"the host {host[:80]!r} is not this machine",
                status=_MISDIRECTED,
                code=ErrorCode.FORBIDDEN,
                remedy="Use 127.0.0.1 or localhost",
            )
        if not hmac.compare_digest(headers.get("authorization", "").encode(), self._expected):
            return RequestRefused(
                "the request has no valid token",
                status=_UNAUTHORIZED,
                code=ErrorCode.FORBIDDEN,
                remedy="Send the header `Authorization: Bearer …` with the token in the data folder of the node",
            )
        return None


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host
