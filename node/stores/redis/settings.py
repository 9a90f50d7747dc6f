"""Where the Redis server is, and how a node uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from node.config import (
    REDIS_CONNECT_RETRY_COUNT,
    REDIS_CONNECT_TIMEOUT_MS,
    REDIS_CONNECTION_STRING,
    REDIS_INSTANCE_NAME,
    REDIS_TASK_TTL_HOURS,
)
from protocol import ErrorCode, PeertaskError

DEFAULT_PORT: Final = 6379
# A year: what is to stay longer belongs in a store of its own.
MAX_TTL_HOURS: Final = 366 * 24.0
MAX_RETRIES: Final = 100
MAX_TIMEOUT_MS: Final = 600_000
MAX_INSTANCE_CHARS: Final = 128

_SCHEMES: Final = {"redis": False, "rediss": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a Redis server is; as text it has no password.

    Attributes:
        host: name or IP address.
        port: of TCP.
        database: the number of the database.
        username: for servers that know several users.
        password: nowhere shown.
        tls: whether the connection is encrypted, and the certificate of the server checked.
    """

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, text: str) -> RedisAddress:
        """Read ``host``, ``host:port`` or ``redis://user:password@host:port/database``; ``rediss`` for TLS.

        Raises:
            PeertaskError: code INVALID_CONFIG; the message does not repeat the text, which may hold a password.
        """
        try:
            url = urlsplit(text if "://" in text else f"redis://{text}")
            return cls(
                host=_checked_host(url),
                port=DEFAULT_PORT if url.port is None else url.port,
                database=int(url.path.strip("/") or 0),
                username=_unquoted(url.username),
                password=_unquoted(url.password),
                tls=_SCHEMES[url.scheme],
            )
        except (KeyError, ValueError):
            raise _invalid(
                "connection_string", "is not the address of a Redis server", "localhost:6379 or redis://host:6379/0"
            ) from None


def _checked_host(url: SplitResult) -> str:
    if not url.hostname or url.query or url.fragment:
        raise ValueError("no host, or more than an address")
    return url.hostname


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """How a node uses a Redis server. A mistake is a `PeertaskError` with code INVALID_CONFIG that names the setting.

    Attributes:
        connection_string: ``host:port`` or ``redis://user:password@host:port/database``; not shown, for the password.
        instance_name: what every key begins with.
        task_ttl_hours: how long a task is kept after its last change; a fraction is allowed.
        connect_retry_count: how often a connection that failed is tried again before the server counts as away.
        connect_timeout_ms: how long a connection or an answer may take, in milliseconds.
    """

    connection_string: str = field(default=REDIS_CONNECTION_STRING, repr=False)
    instance_name: str = REDIS_INSTANCE_NAME
    task_ttl_hours: float = REDIS_TASK_TTL_HOURS
    connect_retry_count: int = REDIS_CONNECT_RETRY_COUNT
    connect_timeout_ms: int = REDIS_CONNECT_TIMEOUT_MS

    def __post_init__(self) -> None:
        RedisAddress.parse(self.connection_string)
        if len(self.instance_name) > MAX_INSTANCE_CHARS or not self.instance_name.isprintable():
            raise _invalid("instance_name", f"must be printable, at most {MAX_INSTANCE_CHARS} characters", "peertask:")
        if not 0 < self.task_ttl_hours <= MAX_TTL_HOURS:
            raise _invalid("task_ttl_hours", f"must be more than 0 and at most {MAX_TTL_HOURS:g}", "24")
        if not 0 <= self.connect_retry_count <= MAX_RETRIES:
            raise _invalid("connect_retry_count", f"must be 0 to {MAX_RETRIES}", "3")
        if not 0 < self.connect_timeout_ms <= MAX_TIMEOUT_MS:
            raise _invalid("connect_timeout_ms", f"must be 1 to {MAX_TIMEOUT_MS}", "5000")

    @property
    def address(self) -> RedisAddress:
        """Where the server is."""
        return RedisAddress.parse(self.connection_string)

    @property
    def ttl_s(self) -> int:
        """How long a task is kept after its last change, in whole seconds, as Redis counts."""
        return max(1, round(self.task_ttl_hours * 3600))

    @property
    def timeout_s(self) -> float:
        """How long a connection or an answer may take, in seconds."""
        return self.connect_timeout_ms / 1000


def _invalid(setting: str, why: str, example: str) -> PeertaskError:
    return PeertaskError(
        f"the setting {setting} of the Redis store {why}",
        code=ErrorCode.INVALID_CONFIG,
        remedy=f"Use a value such as {example}",
    )
