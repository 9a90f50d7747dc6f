"""A connection to a Redis server: the only place that knows the client library, and translates its errors.

Everything that goes wrong with a server leaves here as a `RedisFailure`, with code STORE_FAILED, which names the server
without its password, says why, and what to do.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import trio

from node.stores.redis.settings import RedisAddress, RedisSettings
from protocol import ErrorCode, PeertaskError

if TYPE_CHECKING:
    import coredis

# The client logs each attempt that fails, some with a traceback; a store says it once, in words.
_CLIENT_LOGGER: Final = "coredis"
# One for the writer, and some for readers at the same time; a server has ten thousand for all.
_MAX_CONNECTIONS: Final = 8
# As much of an answer as an error shows.
_SHOWN_CHARS: Final = 200
# What comes out of the client beside its own errors: of the system, of time, of bytes that are no answer (it asserts),
# and of a client that is being closed.
_FOREIGN: Final = (OSError, TimeoutError, trio.TooSlowError, ValueError, AssertionError, RuntimeError)


class RedisFailure(PeertaskError):
    """A server is away, or answers something else than what it should."""

    default_code = ErrorCode.STORE_FAILED


class RedisConnection:
    """An open client of a server.

    Args:
        client: the library's, entered.
        settings: where it leads to, and how long an answer may take.
    """

    def __init__(self, client: coredis.Redis[bytes], settings: RedisSettings) -> None:
        self._client = client
        self._settings = settings

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int] = ()) -> Any:
        """Let the server run a script, and return what it replies; values are bytes.

        Raises:
            RedisFailure: the script may have run or not.
        """
        async with translating(self._settings) as of_client:
            try:
                return await self._client.evalsha(digest_of(script), keys, arguments)
            except of_client.NoScriptError:
                await self._client.script_load(script)
                return await self._client.evalsha(digest_of(script), keys, arguments)

    async def command(self, name: str, *arguments: Any) -> Any:
        """Let the server carry out one command of the client by its name; raises as `run` does."""
        async with translating(self._settings):
            return await getattr(self._client, name)(*arguments)


@asynccontextmanager
async def connected(settings: RedisSettings) -> AsyncIterator[RedisConnection]:
    """Hold a client for the length of the context; it connects with the first command.

    An exception of the block comes out as it is.

    Raises:
        PeertaskError: code INVALID_CONFIG, when the client library is not installed.
    """
    failure: BaseException | None = None
    async with open_client(settings) as client:
        try:
            yield RedisConnection(client, settings)
        except BaseException as error:  # noqa: BLE001 - raised again below, outside of the group that would wrap it
            failure = error
    if failure is not None:
        raise failure


def open_client(settings: RedisSettings) -> coredis.Redis[bytes]:
    """Return a client that has not been entered; raises `PeertaskError` when the library is not installed."""
    try:
        import coredis  # noqa: PLC0415 - it is an extra, and half of the nodes do without
        from coredis.retry import NoRetryPolicy  # noqa: PLC0415
    except ImportError:
        raise PeertaskError(
            "the Redis store needs the package coredis, which is not installed here",
            code=ErrorCode.INVALID_CONFIG,
            remedy="Install peertask with its extra: pip install 'peertask[redis]'",
        ) from None
    logging.getLogger(_CLIENT_LOGGER).setLevel(logging.CRITICAL)
    address = settings.address
    tls: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True} if address.tls else {}
    return coredis.Redis(
        address.host,
        address.port,
        address.database,
        username=address.username,
        password=address.password,
        connect_timeout=settings.timeout_s,
        stream_timeout=settings.timeout_s,
        max_connections=_MAX_CONNECTIONS,
        retry_policy=NoRetryPolicy(),
        **tls,
    )


@cache
def digest_of(script: str) -> str:
    """Return what the server calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


@asynccontextmanager
async def translating(settings: RedisSettings) -> AsyncIterator[ModuleType]:
    """Translate what goes wrong in the block with the server, and bound how long it takes; yields its exceptions."""
    from coredis import exceptions  # noqa: PLC0415 - as in open_client

    try:
        # Connecting and answering have this time each; what takes longer than both hangs.
        with trio.fail_after(2 * settings.timeout_s) as limit:
            yield exceptions
    except (exceptions.RedisError, *_FOREIGN) as error:
        # A cancelled attempt to connect comes out of the client as one that failed.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise _translated(TimeoutError() if limit.cancel_called else error, settings) from error


def failure_of(address: RedisAddress, why: str, remedy: str) -> RedisFailure:
    """Return the error that names a server, without its password, and says what is wrong with it."""
    return RedisFailure(f"the Redis server at {address}: {why}", remedy=remedy)


def _translated(error: Exception, settings: RedisSettings) -> RedisFailure:
    layers = _layers_of(error)
    for layer in layers:
        for kinds, why, remedy in _explanations():
            if isinstance(layer, kinds):
                return failure_of(settings.address, why.format(ms=settings.connect_timeout_ms, error=layer), remedy)
    return failure_of(
        settings.address, f"it answers {str(layers[-1])[:_SHOWN_CHARS]!r}", "Look at the log of the server"
    )


def _explanations() -> list[tuple[tuple[type[BaseException], ...], str, str]]:
    from coredis import exceptions as of_client  # noqa: PLC0415 - as in open_client

    not_redis = (of_client.InvalidResponse, of_client.ProtocolError, of_client.UnknownCommandError)
    return [
        (
            (ssl.SSLError,),
            "no encrypted connection ({error})",
            "Check the name in connection_string and the server's certificate; SSL_CERT_FILE may name its authority",
        ),
        (
            (of_client.AuthenticationError, of_client.AuthorizationError),
            "it refuses the user or the password ({error})",
            "Put the right ones into connection_string: redis://user:password@host:port/database",
        ),
        (
            (*not_redis, AssertionError, ValueError),
            "what answers there is not a Redis server of version 6 or newer",
            "Check host and port in connection_string",
        ),
        (
            (TimeoutError, trio.TooSlowError),
            "it did not answer within {ms} ms",
            "Check that it is well, or raise connect_timeout_ms",
        ),
        (
            (of_client.BusyLoadingError,),
            "it is loading its data",
            "Wait until it has",
        ),
        (
            (OSError, of_client.ConnectionError, RuntimeError),
            "no connection ({error})",
            "Start the server, or check host and port in connection_string",
        ),
    ]


def _layers_of(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, the innermost first: the client wraps what the system says in several layers."""
    layers = [error]
    while cause := _cause_of(layers[0]):
        layers.insert(0, cause)
    return layers


def _cause_of(error: BaseException) -> BaseException | None:
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
