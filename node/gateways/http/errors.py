"""Errors as answers: one JSON shape, a fitting status, and never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from starlette.responses import Response

from node.gateways.http.response_models import ErrorBody, ErrorView
from protocol import ErrorCode, PeertaskError

STATUS_OF: Final[dict[ErrorCode, int]] = {
    ErrorCode.INVALID_TASK: 400,
    ErrorCode.INVALID_ADDRESS: 400,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.ILLEGAL_TRANSITION: 409,
    ErrorCode.STALE_ATTEMPT: 409,
    ErrorCode.CANCELLED: 410,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.NO_EXECUTOR: 422,
    ErrorCode.DEPENDENCY_FAILED: 424,
    ErrorCode.BUSY: 429,
    ErrorCode.INVALID_CONFIG: 500,
    ErrorCode.INTERNAL: 500,
    ErrorCode.EXECUTION_FAILED: 502,
    ErrorCode.LEASE_LOST: 502,
    ErrorCode.PEER_LOST: 502,
    ErrorCode.PEER_UNREACHABLE: 502,
    ErrorCode.WRONG_PEER: 502,
    ErrorCode.INCOMPATIBLE_VERSION: 502,
    ErrorCode.PROTOCOL: 502,
    ErrorCode.DRAINING: 503,
    ErrorCode.STORE_FAILED: 503,
    ErrorCode.NODE_UNAVAILABLE: 503,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.DEADLINE_EXCEEDED: 504,
}
"""The status of each code: 4xx when the client can put it right, 502 and 504 when a peer or an executor failed."""

_SHOWN_CHARS = 80


class RequestRefused(PeertaskError):
    """A request is not what this gateway takes; `status` says how, where the code alone does not."""

    default_code = ErrorCode.PROTOCOL

    def __init__(self, message: str, *, status: int = 400, code: ErrorCode | None = None, remedy: str = "") -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.status = status


def error_response(error: PeertaskError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for an error, with ``Retry-After`` in whole seconds where asking again makes sense."""
    status = error.status if isinstance(error, RequestRefused) else STATUS_OF[error.code]
    retry = {} if error.retry_after_ms is None else {"Retry-After": str(-(-error.retry_after_ms // 1000))}
    return Response(
        ErrorView(error=ErrorBody.of(error)).model_dump_json(),
        status_code=status,
        headers={**retry, **(headers or {})},
        media_type="application/json",
    )


def refuse_invalid(error: ValidationError, part: str, known: object, code: ErrorCode) -> RequestRefused:
    """Say in words what is wrong with a part of a request.

    Args:
        error: what pydantic found.
        part: which part of the request it is, such as ``the body``.
        known: the names of its fields.
        code: what kind of error it is.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return RequestRefused(f"{part} has the unknown field {where}", code=code, remedy=f"Known fields are: {known}")
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + "…"
    return RequestRefused(
        f"{f'field {where} of ' if where else ''}{part}: {first['msg'][:1].lower()}{first['msg'][1:]}, but got {shown}",
        code=code,
    )
