"""Log records: structlog's, the standard library's and libp2p's through one handler, in one format, on one stream.

structlog hands its records to the standard library, and one handler on the root logger renders everything. Three things
would go around it: importing libp2p takes its loggers out of the hierarchy; warnings are printed as text; and
structlog's own default prints to standard output, which belongs to results.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Final, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from protocol import PeerId, TaskId

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

# Short messages line up; structlog's own 30 tears them and their fields apart on a narrow terminal.
_PADDING: Final = 20

_LIBP2P: Final = "libp2p"
# Set by people who debug libp2p itself; it then installs handlers of its own, and every record would come twice.
_LIBP2P_DEBUG: Final = "LIBP2P_DEBUG"

_Fields = tuple[TaskId, PeerId | None, int | None]
_bound_task: Final[ContextVar[_Fields | None]] = ContextVar("peertask_bound_task", default=None)

_HARMLESS: Final = {
    "failed to upgrade security": "a stranger knocked, such as a port scan: anybody could fill the log with these",
    "fail to upgrade mux": "as above, one step later",
    "[ADDCONN_FAIL]": "the peer vanished while it connected, or this node is stopping",
    "[ADDCONN_DENY]": "the limits for connections work; node.net counts them",
    "Yamux connection closed unexpectedly": "a peer is gone: its session ends with a record of its own",
    "Failed to open stream": "as above",
    "Incomplete read": "as above",
}
"""How records of libp2p begin that it takes for warnings and errors, and why they are not; they are logged as debug."""


def configure_logging(level: LogLevel = "info", fmt: LogFormat = "console", stream: TextIO | None = None) -> None:
    """Send all log records of this process to one stream; for programs that own their process, such as the CLI.

    May be called before or after libp2p is imported, and again to change its mind. Replaces the handlers of the root
    logger.

    Args:
        level: the least severe records that are written; libp2p's are written from warning on.
        fmt: for people (in colour on a terminal, unless ``NO_COLOR`` is set), or one JSON object a line.
        stream: where to; standard error by default.
    """
    stream = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setLevel(threshold)
    handler.addFilter(_lower_harmless)
    handler.setFormatter(_formatter(fmt, colours=stream.isatty() and not os.environ.get("NO_COLOR")))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    logging.captureWarnings(capture=True)
    _adopt_libp2p()
    for chatty in ("httpx", "httpcore"):  # a line for each request of the control client
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _hand_to_stdlib(threshold, [*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter], cache=True)


def default_to_stdlib_logging() -> None:
    """Keep standard output clean in a program that embeds a node and has not configured structlog.

    Records then go where the program's own `logging` sends them. Does nothing when structlog is configured.
    """
    if not structlog.is_configured():
        # The fields are put into the text: as attributes of a record, some names would clash with its own.
        _hand_to_stdlib(logging.NOTSET, [*_CONTEXT, _console(colours=False)], cache=False)


def bind_task(
    task_id: TaskId, *, peer_id: PeerId | None = None, attempt: int | None = None
) -> AbstractContextManager[None]:
    """Put a task's id, and its peer and attempt where they apply, on every record of the context.

    Tasks that are started within inherit them; libp2p's and the standard library's records have them too.
    """
    return _Bound(task_id, peer_id, attempt)


class _Bound:
    """One context variable for all three: structlog's `bound_contextvars` takes one each, and ten times as long."""

    __slots__ = ("_fields", "_token")

    def __init__(self, task_id: TaskId, peer_id: PeerId | None, attempt: int | None) -> None:
        self._fields = (task_id, peer_id, attempt)
        self._token: Token[_Fields | None] | None = None

    def __enter__(self) -> None:
        self._token = _bound_task.set(self._fields)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _bound_task.reset(self._token)


def _add_task(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    bound = _bound_task.get()
    if bound is not None:
        for name, value in zip(("task_id", "peer_id", "attempt"), bound, strict=True):
            if value is not None:
                event.setdefault(name, value)
    return event


def _hand_to_stdlib(threshold: int, processors: list[Processor], *, cache: bool) -> None:
    structlog.configure(
        processors=processors,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=cache,
    )


def _formatter(fmt: LogFormat, *, colours: bool) -> logging.Formatter:
    # Neither shows the local variables of a traceback: there are keys and tokens among them.
    quiet = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    as_json: list[Processor] = [
        structlog.processors.ExceptionRenderer(quiet),
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(as_json if fmt == "json" else [_console(colours=colours)]),
        ],
    )


def _console(*, colours: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=colours, pad_event_to=_PADDING, exception_formatter=structlog.dev.plain_traceback
    )


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


_CONTEXT: Final[list[Processor]] = [structlog.contextvars.merge_contextvars, _add_task, _add_trace]
_SHARED: Final[list[Processor]] = [
    *_CONTEXT,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _lower_harmless(record: logging.LogRecord) -> bool:
    if record.levelno < logging.WARNING or not record.name.startswith(_LIBP2P):
        return True
    if not str(record.msg).startswith(tuple(_HARMLESS)):
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger().isEnabledFor(logging.DEBUG)


class _JoinedLogger(logging.Logger):
    """A logger that cannot be taken out of the hierarchy: importing libp2p does that to its own."""

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        """Ignore it."""


def _adopt_libp2p() -> None:
    if not os.environ.get(_LIBP2P_DEBUG):
        # The class of the one logger, because libp2p is imported before or after this, and its import must not undo it.
        logging.getLogger(_LIBP2P).__class__ = _JoinedLogger
        # As its import does, when a package of it runs that waits (see `node.net.libp2p_packages`).
        logging.getLogger(_LIBP2P).setLevel(logging.WARNING)
