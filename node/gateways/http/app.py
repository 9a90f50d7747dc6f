"""The application: a route for each operation, which reads the request, calls the handler and writes the answer."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Final

import structlog
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from node.gateways.http.errors import RequestRefused, error_response, refuse_invalid
from node.gateways.http.gateway import Call, Gateway, Reply
from node.gateways.http.limits import ENVELOPE_BYTES
from node.gateways.http.openapi import OPENAPI_PATH, openapi_document
from node.gateways.http.operations import OPERATIONS, Operation
from node.gateways.http.request_models import BatchRequest, GraphRequest, TaskRequest
from protocol import ErrorCode, PeertaskError, TaskResult, TooLarge

_NOT_FOUND: Final = 404

log = structlog.get_logger(__name__)


def create_app(gateway: Gateway) -> Starlette:
    """Return the ASGI application that answers for a node."""
    routes = [
        Route(operation.path, partial(_answer, gateway, operation), methods=[operation.method])
        for operation in OPERATIONS
    ]
    return Starlette(
        routes=[*routes, Route(OPENAPI_PATH, _describe)],
        exception_handlers={HTTPException: _refuse_unrouted},
    )


async def _describe(_request: Request) -> Response:
    return JSONResponse(openapi_document())


async def _answer(gateway: Gateway, operation: Operation, request: Request) -> Response:
    try:
        call = await _read(operation, request, gateway.payload_bytes + ENVELOPE_BYTES)
        return _write(operation, await operation.handler(gateway, call))
    except PeertaskError as error:
        return error_response(error)
    except ClientDisconnect:
        return Response()  # nobody reads it
    except Exception:
        log.exception("a request failed", operation=operation.name)
        return error_response(PeertaskError(code=ErrorCode.INTERNAL))


async def _refuse_unrouted(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    missing = error.status_code == _NOT_FOUND
    return error_response(
        RequestRefused(
            f"{request.method} {request.url.path[:200]}: {'there is no such path' if missing else error.detail}",
            status=error.status_code,
            code=ErrorCode.NOT_FOUND if missing else ErrorCode.PROTOCOL,
            remedy=f"GET {OPENAPI_PATH} describes what there is",
        ),
        error.headers,
    )


async def _read(operation: Operation, request: Request, limit: int) -> Call:
    query = None if operation.query is None else _checked(operation.query, "the query", dict(request.query_params))
    body = None if operation.body is None else _checked(operation.body, "the body", await _body(request, limit))
    return Call(request.path_params, query, body, request.headers, partial(_gone, request))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, limit: int) -> bytes:
    body, size = bytearray(), int(request.headers.get("content-length", 0))
    seen = 0
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            seen += len(part)
            if seen <= limit:
                body += part
            elif seen > 2 * limit:
                break  # up to here the rest is read and thrown away, because a client that still writes hears no answer
    if max(seen, size) > limit:
        raise TooLarge(
            f"the body is larger than {limit:,} bytes", remedy="Put large input into files, and let the task name them"
        )
    return bytes(body)


def _checked(model: type[BaseModel], part: str, given: dict[str, str] | bytes) -> BaseModel:
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        about_tasks = model in {TaskRequest, BatchRequest, GraphRequest}
        code = ErrorCode.INVALID_TASK if about_tasks else ErrorCode.PROTOCOL
        raise refuse_invalid(error, part, ", ".join(model.model_fields), code) from None


def _write(operation: Operation, reply: Reply | Response) -> Response:
    if isinstance(reply, Response):
        return reply
    content = reply.content
    if content is None:
        return Response(status_code=reply.status)
    text = content if isinstance(content, str) else _to_json(content)
    return Response(text, status_code=reply.status, media_type=operation.media_type)


def _to_json(content: BaseModel | TaskResult) -> str:
    return content.to_json() if isinstance(content, TaskResult) else content.model_dump_json()
