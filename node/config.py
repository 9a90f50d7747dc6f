"""The settings of a node: plain values in a program, or read from the environment and a TOML file.

`NodeConfig(...)` takes exactly what it is given, so a program that embeds a node is not changed by the environment that
it happens to run in. `NodeConfig.load` is for the command line: what it is given wins over ``PEERTASK_*`` variables,
and they over the TOML file. Either way a mistake is a `PeertaskError` with code INVALID_CONFIG that names the setting,
its value, what is allowed, and the place that it came from.

The sources are read here and not by pydantic-settings: that one costs a fifth of a second of every start, forgets where
a value came from, and takes a misspelt variable for somebody else's.
"""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from node.coordination.quotas import EVERY_KIND
from node.coordination.receipts import ReceiptMode
from protocol import (
    CHUNK_BYTES,
    MAX_ADVERTISED,
    MAX_FRAME_BYTES,
    MAX_IN_FLIGHT,
    MAX_PAYLOAD_BYTES,
    MAX_SLOTS,
    ErrorCode,
    Limits,
    Name,
    PeerId,
    PeertaskError,
)

ENVIRONMENT_PREFIX: Final = "PEERTASK_"
FILE_VARIABLE: Final = "PEERTASK_CONFIG"
"""Names the TOML file, as the argument of `NodeConfig.load` does; it is not a setting."""
FILE_NAME: Final = "config.toml"

# Loopback and a port that is free: a node that nobody configured must not be reachable from elsewhere.
DEFAULT_LISTEN: Final = ("/ip4/127.0.0.1/tcp/0",)
# A worker that is silent for half a minute is gone; six heartbeats must have been lost.
LEASE_MS: Final = 30_000
# Finds a frozen peer in three intervals, and costs an idle session some ten bytes a second.
HEARTBEAT_MS: Final = 5_000
# Three heartbeats: one may be late, and two in a row are no accident.
SILENCE_MS: Final = 15_000
# While nothing is under way a session is asked about at every other heartbeat, and the answer takes its time.
MIN_SILENT_HEARTBEATS: Final = 3
# Half a second of work at 20,000 tasks/s; a longer queue only makes everybody wait longer.
MAX_QUEUED: Final = 10_000
# Long enough to fetch a result the next morning.
RETENTION_HOURS: Final = 24.0
# About 200 MB of small records at 2 KB each.
RETENTION_RECORDS: Final = 100_000
# Sixteen results of the largest size: finished tasks must not crowd out the work.
RETENTION_BYTES: Final = 256 * 1024 * 1024
# Where Redis listens when nobody configured it.
REDIS_CONNECTION_STRING: Final = "localhost:6379"
REDIS_INSTANCE_NAME: Final = "peertask:"
# As the other stores keep a finished task.
REDIS_TASK_TTL_HOURS: Final = RETENTION_HOURS
# With the pauses between them, the tries of a restarting server's few tenths of a second.
REDIS_CONNECT_RETRY_COUNT: Final = 3
REDIS_CONNECT_TIMEOUT_MS: Final = 5_000
# Most executions end by themselves in that time, and service managers wait longer before they kill.
DRAIN_S: Final = 10.0

# Some two million tasks.
AUDIT_BYTES: Final = 4 * 1024 * 1024 * 1024

# Two of the log's files.
_MIN_AUDIT_BYTES = 32 * 1024 * 1024
_MAX_INTERVAL_MS = 24 * 60 * 60 * 1000  # a day: intervals beyond it are mistakes of unit
_MIN_FRAME_BYTES = 1024  # an empty task with its names takes a third of this
_MAX_FRAME_BYTES = 64 * 1024 * 1024  # what the protocol lets a Hello announce
_MAX_PORT = 65_535
_SHOWN_CHARS = 80


class _WrongAddress(ValueError):
    """An address that cannot be one, and what one looks like."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


_PEER_ADDRESS = "An address looks like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…; `peertask id` at that node prints its own"


def _check_listen_address(text: str) -> str:
    if not text.startswith("/"):
        raise _WrongAddress("not a multiaddress", "An address to listen on looks like /ip4/0.0.0.0/tcp/4001")
    return text


def _check_peer_address(text: str) -> str:
    if not text.startswith("/"):
        raise _WrongAddress("not a multiaddress", _PEER_ADDRESS)
    if "/p2p/" not in text:
        raise _WrongAddress("a peer's address ends with /p2p/ and its peer id", _PEER_ADDRESS)
    return text


def _check_loopback(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and int(port) <= _MAX_PORT):
        raise ValueError("not HOST:PORT, such as 127.0.0.1:8080")
    if not is_loopback(host):
        raise ValueError("only loopback is allowed: 127.0.0.1, [::1] or localhost")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in a URL, is this machine and no other can reach it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _peers_by_kind(value: object) -> object:
    """Take a list of peers as a list for every kind."""
    return {EVERY_KIND: value} if isinstance(value, list | tuple) else value


ListenAddress = Annotated[str, AfterValidator(_check_listen_address)]
PeerAddress = Annotated[str, AfterValidator(_check_peer_address)]
LoopbackAddress = Annotated[str, AfterValidator(_check_loopback)]
PeersByKind = Annotated[Mapping[str, tuple[PeerId, ...]], BeforeValidator(_peers_by_kind)]
IntervalMs = Annotated[int, Field(ge=1, le=_MAX_INTERVAL_MS)]
FrameBytes = Annotated[int, Field(ge=_MIN_FRAME_BYTES, le=_MAX_FRAME_BYTES)]


class _Settings(BaseModel):
    """The settings and what is allowed in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Annotated[Path, AfterValidator(Path.expanduser)] | None = None
    """The folder that keeps the node's key, its control socket and what it stores. Without one nothing is written to
    disk, and the node draws a fresh identity."""
    listen: tuple[ListenAddress, ...] = DEFAULT_LISTEN
    """The multiaddresses to listen on; port 0 lets the system choose. Empty for a node that only dials."""
    peers: tuple[PeerAddress, ...] = ()
    """Peers to stay connected to, as multiaddresses with `/p2p/ID`."""
    bootstrap: tuple[PeerAddress, ...] = ()
    """Peers to find others through, as multiaddresses with `/p2p/ID`."""
    share_peers: bool = True
    """Whether the node tells its peers of each other, and takes note of those that they tell of. A peer that it was
    only told of is not dialled before somebody asks for it."""
    rendezvous: bool = False
    """Whether peers may register at this node, so that others find them."""
    rendezvous_at: tuple[PeerAddress, ...] = ()
    """Nodes that offer rendezvous, as multiaddresses with `/p2p/ID`: this node stays connected to them, registers, and
    asks who else has."""
    relays: tuple[PeerAddress, ...] = ()
    """Relays, as multiaddresses with `/p2p/ID`: this node stays connected to them, and others reach it through them, as
    a node behind NAT needs it."""
    relay_service: bool = False
    """Whether peers that nobody can dial may be reached through this node."""
    relay_for: tuple[PeerId, ...] = ()
    """The only peers that may be reached through this node, when it serves as a relay; empty for all that ask."""
    mdns: bool = False
    """Whether the node announces itself on the local network, and takes note of the nodes that are announced there."""
    mdns_interfaces: tuple[str, ...] = ()
    """The interfaces to do so on, by their IP addresses; all when there is none."""
    allow: PeersByKind = Field(default_factory=dict)
    """Who may use the kinds that are not safe: peer ids by kind, where `*` stands for every kind. A plain list of peer
    ids is a list for every kind."""
    workers: tuple[PeerId, ...] = ()
    """Peers that may be given tasks that did not name them, when they are connected or ask for work; so may those of
    `peers` and `allow`."""
    work_for: PeerAddress | None = None
    """The peer that this node works for, as a multiaddress with `/p2p/ID`: it stays connected to it, asks it for work,
    and takes tasks from nobody else."""
    work_slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = None
    """How many tasks this node takes at once from the peer that it works for; by default as many as the machine has
    processors."""
    kinds: tuple[Name, ...] = ()
    """The only kinds that this node carries out; empty for all that it can."""
    store: Literal["memory", "sqlite", "files", "redis"] = "memory"
    """Where tasks are kept. `memory` forgets them when the process ends; `sqlite` is one file in the data folder;
    `files` is one for each task, which people can read; `redis` is a server that several nodes may share (it needs the
    extra `redis`). `peertask node` takes `sqlite` unless it is told otherwise."""
    synchronous: Literal["normal", "full"] = "normal"
    """What the `sqlite` store waits for: with `normal` what it has saved survives the death of the process, with `full`
    also the loss of power, and each commit waits for the disk."""
    redis_connection_string: str = REDIS_CONNECTION_STRING
    """Where the server of the `redis` store is: `HOST:PORT`, or `redis://USER:PASSWORD@HOST:PORT/DATABASE`."""
    redis_instance_name: str = REDIS_INSTANCE_NAME
    """What every key of the `redis` store begins with."""
    redis_task_ttl_hours: float = REDIS_TASK_TTL_HOURS
    """How long the `redis` store keeps a task after its last change, in hours."""
    redis_connect_retry_count: int = REDIS_CONNECT_RETRY_COUNT
    """How often the `redis` store tries a connection that failed again, before the server counts as away."""
    redis_connect_timeout_ms: int = REDIS_CONNECT_TIMEOUT_MS
    """How long a connection to the server of the `redis` store, or an answer, may take, in milliseconds."""
    lease_ms: IntervalMs = LEASE_MS
    """How long an outside worker may be silent before its tasks are taken from it, and how long it has to start what it
    has claimed, in milliseconds."""
    heartbeat_ms: IntervalMs = HEARTBEAT_MS
    """How often a session shows that it is alive, in milliseconds; half as often while nothing is under way."""
    silence_ms: IntervalMs = SILENCE_MS
    """After how much silence the session with a peer is ended, in milliseconds."""
    max_in_flight: int = Field(default=MAX_IN_FLIGHT, ge=1)
    """How many tasks one peer may have open at this node."""
    max_queued: int = Field(default=MAX_QUEUED, ge=1)
    """How many open tasks of its own the node holds, and how many of all its peers; above, it answers BUSY."""
    frame_bytes: FrameBytes = MAX_FRAME_BYTES
    """The largest frame that this node takes from a peer, in bytes."""
    chunk_bytes: FrameBytes = CHUNK_BYTES
    """The size above which this node takes payloads in chunks, in bytes; never more than `frame_bytes`."""
    payload_bytes: int = Field(default=MAX_PAYLOAD_BYTES, ge=_MIN_FRAME_BYTES, le=MAX_PAYLOAD_BYTES)
    """The largest task or result in all that this node takes, in bytes."""
    receipts: ReceiptMode = "auto"
    """When a result carries the signed receipt of its executor. `auto`: when the execution took 100 ms or longer;
    `always`: each, and this node asks peers for those of its tasks; `asked`: none by itself. In every mode the receipt
    of any complete task can be asked for."""
    retention_hours: float = Field(default=RETENTION_HOURS, ge=0, allow_inf_nan=False)
    """How long a finished task is kept, in hours."""
    retention_records: int = Field(default=RETENTION_RECORDS, ge=0)
    """How many finished tasks are kept in memory; beyond, the oldest are forgotten."""
    retention_bytes: int = Field(default=RETENTION_BYTES, ge=0)
    """How many bytes of prompts and results of finished tasks are kept in memory; beyond, the oldest are forgotten."""
    audit: bool = False
    """Whether what happens to tasks and peers is written to the audit log in the data folder. `peertask node` does so
    unless it is told otherwise."""
    audit_bytes: int = Field(default=AUDIT_BYTES, ge=_MIN_AUDIT_BYTES)
    """How many bytes of the audit log are kept; beyond, its oldest files are removed, and it says so."""
    coordination: bool = True
    """Whether the node coordinates: a task that names a persona goes only to a worker that acts as it, and programs of
    this machine can ask about personas. Without it the node does what it is given, whatever persona a task names."""
    personas: tuple[Name, ...] = Field(default=(), max_length=MAX_ADVERTISED)
    """Whom the node acts as: the personas whose tasks it takes, beside those that name none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe records that are logged."""
    log_format: Literal["console", "json"] = "console"
    """How records are written to standard error: for people, or one JSON object a line."""
    mock_seed: int | None = None
    """Makes the delays of the `mock` executor repeatable."""
    http: LoopbackAddress | None = None
    """Where the HTTP gateway listens beside its Unix socket: HOST:PORT on loopback, port 0 lets the system choose.
    Requests need the token that is kept in the data folder."""
    drain_s: float = Field(default=DRAIN_S, ge=0, allow_inf_nan=False)
    """How long a node that is asked to stop lets its executions go on, in seconds."""

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for name, interval in (("silence_ms", self.silence_ms), ("lease_ms", self.lease_ms)):
            if interval < MIN_SILENT_HEARTBEATS * self.heartbeat_ms:
                raise ValueError(
                    f"{name} is {interval}, but must be at least {MIN_SILENT_HEARTBEATS} times heartbeat_ms, "
                    f"{self.heartbeat_ms}"
                )
        if self.store in {"sqlite", "files"} and self.data is None:
            raise ValueError(f"store is {self.store}, but there is no data folder to keep tasks in; set data")
        if self.http is not None and self.data is None:
            raise ValueError(f"http is {self.http}, but there is no data folder to keep the token in; set data")
        if self.relay_for and not self.relay_service:
            raise ValueError("relay_for names peers, but this node is no relay; set relay_service")
        if self.audit and self.data is None:
            raise ValueError("audit is on, but there is no data folder to keep the log in; set data")
        return self


class NodeConfig(_Settings):
    """The settings of one node; frozen.

    Raises:
        PeertaskError: code INVALID_CONFIG; names the setting, its value and what is allowed.
    """

    if not TYPE_CHECKING:  # the type checker makes a signature from the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explain(error, [_Source("the arguments", values)]) from None

    @property
    def works_for(self) -> PeerId | None:
        """The peer that this node works for; None when it works for nobody in particular."""
        return None if self.work_for is None else PeerId(self.work_for.rpartition("/p2p/")[2])

    @property
    def in_flight(self) -> int:
        """How many tasks one peer may have open at the node: what it offers, when it works for one."""
        if self.work_for is None:
            return self.max_in_flight
        return min(self.max_in_flight, self.work_slots or os.cpu_count() or 1)

    @property
    def limits(self) -> Limits:
        """What the node announces to a peer in Hello."""
        return Limits(
            frame=self.frame_bytes,
            chunk=min(self.chunk_bytes, self.frame_bytes),
            payload=self.payload_bytes,
            in_flight=self.in_flight,
        )

    @property
    def retention_ms(self) -> int:
        """How long a finished task is kept, in milliseconds."""
        return round(self.retention_hours * 3_600_000)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
        **overrides: object,
    ) -> Self:
        """Read the settings from every source.

        `overrides` win over ``PEERTASK_*`` variables, these over the TOML file, and that over `defaults`. A list or
        table replaces the one of a weaker source, it is not merged with it.

        Args:
            path: the TOML file, which must be there. By default the one that ``PEERTASK_CONFIG`` names, else
                `default_file` when there is one.
            environment: where the variables come from; by default those of the process.
            defaults: what the caller uses where the defaults of the settings do not suit it.
            overrides: settings by name; None counts as not given.

        Raises:
            PeertaskError: code INVALID_CONFIG; names the setting or unknown key, its value, what is allowed, and the
                place.
        """
        environment = os.environ if environment is None else environment
        sources = [
            _Source("the command line", {key: value for key, value in overrides.items() if value is not None}),
            _Source("the environment", dict(_from_environment(environment)), ENVIRONMENT_PREFIX),
            _from_file(path, environment),
            _Source("the defaults of the program", defaults or {}),
        ]
        merged = {key: value for source in reversed(sources) for key, value in source.values.items()}
        try:
            _Settings.model_validate(merged)
        except ValidationError as error:
            raise _explain(error, sources) from None
        return cls(**merged)


def default_file() -> Path:
    """Return where `NodeConfig.load` looks for a file when none is named, whether or not there is one."""
    import platformdirs  # noqa: PLC0415 - a program that gives its settings itself never needs it

    return platformdirs.user_config_path("peertask", appauthor=False) / FILE_NAME


def variable_of(field: str) -> str:
    """Return the name of the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + field.upper()


@dataclass(frozen=True, slots=True)
class _Source:
    place: str
    values: Mapping[str, Any]
    prefix: str = ""

    def describe(self, field: str) -> str:
        return f"{self.place}, {variable_of(field)}" if self.prefix else self.place


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name != FILE_VARIABLE and text:
            field = name.removeprefix(ENVIRONMENT_PREFIX).lower()
            yield field, _parse_variable(_Settings.model_fields.get(field), name, text)


def _parse_variable(field: FieldInfo | None, name: str, text: str) -> Any:
    if field is None or not _holds_several(field):
        return text
    if text.lstrip()[:1] not in "[{":
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError as error:
        raise _invalid(
            f"{name} is not JSON: {error}", "Give a JSON array or object, or plain values with commas between them"
        ) from None


def _holds_several(field: FieldInfo) -> bool:
    return isinstance(field.get_default(call_default_factory=True, validated_data={}), tuple | dict)


def _from_file(path: Path | None, environment: Mapping[str, str]) -> _Source:
    named = path or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    file = named or default_file()
    try:
        return _Source(str(file), tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        if named is None:
            return _Source(str(file), {})
        raise _invalid(f"the configuration file {file} is not there", "Create it, or name another") from None
    except OSError as error:
        raise _invalid(f"the configuration file {file} cannot be read: {error.strerror}", "Make it readable") from error
    except ValueError as error:  # malformed TOML, or not UTF-8
        raise _invalid(f"the configuration file {file} is not TOML: {error}", "Correct it there") from error


def _explain(error: ValidationError, sources: list[_Source]) -> PeertaskError:
    """Say the first problem in words, with the place that the value came from."""
    first = error.errors(include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return _invalid(reason)
    field = str(first["loc"][0])
    source = next(source for source in sources if field in source.values)
    if first["type"] == "extra_forbidden":
        return _unknown(field, source)
    where = ".".join(str(part) for part in first["loc"])
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[: _SHOWN_CHARS - 1] + "…"
    cause = first.get("ctx", {}).get("error")
    return _invalid(
        f"the setting {where} is {shown} (from {source.describe(field)}): {reason[:1].lower()}{reason[1:]}",
        cause.remedy if isinstance(cause, _WrongAddress) else "",
    )


def _unknown(field: str, source: _Source) -> PeertaskError:
    known = sorted(_Settings.model_fields)
    near = get_close_matches(field, known, n=1, cutoff=0.0)
    spelled = variable_of if source.prefix else str
    return _invalid(
        f"there is no setting {spelled(field)} (from {source.place}); the nearest is {spelled(near[0])}",
        f"The settings are: {', '.join(known)}",
    )


def _invalid(message: str, remedy: str = "") -> PeertaskError:
    return PeertaskError(message, code=ErrorCode.INVALID_CONFIG, remedy=remedy)
