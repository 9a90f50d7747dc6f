"""Every error of peertask has one root, and every code says whose fault it is and what a retry would mean.

An error explains itself: what failed, where, why, and what to do next. The code travels to the other peer; a traceback
never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# As much of a wrong value as a message shows: enough to recognise it.
_MAX_SHOWN_CHARS = 80


class Fault(StrEnum):
    """Who can put an error right."""

    REQUESTER = "requester"
    WORKER = "worker"
    NETWORK = "network"
    OPERATOR = "operator"
    NOBODY = "nobody"


class ErrorCode(StrEnum):
    """What went wrong, as it stands on the wire.

    Append-only: a code is never renamed, removed or given another meaning, because older peers know it.
    """

    INVALID_TASK = "INVALID_TASK"
    TOO_LARGE = "TOO_LARGE"
    NO_EXECUTOR = "NO_EXECUTOR"
    FORBIDDEN = "FORBIDDEN"
    BUSY = "BUSY"
    DRAINING = "DRAINING"
    CONFLICT = "CONFLICT"
    NOT_FOUND = "NOT_FOUND"
    EXECUTION_FAILED = "EXECUTION_FAILED"
    TIMEOUT = "TIMEOUT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    LEASE_LOST = "LEASE_LOST"
    PEER_LOST = "PEER_LOST"
    PEER_UNREACHABLE = "PEER_UNREACHABLE"
    WRONG_PEER = "WRONG_PEER"
    INVALID_ADDRESS = "INVALID_ADDRESS"
    INCOMPATIBLE_VERSION = "INCOMPATIBLE_VERSION"
    PROTOCOL = "PROTOCOL"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    STALE_ATTEMPT = "STALE_ATTEMPT"
    STORE_FAILED = "STORE_FAILED"
    INVALID_CONFIG = "INVALID_CONFIG"
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    INTERNAL = "INTERNAL"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"


@dataclass(frozen=True, slots=True)
class ErrorTraits:
    """What a code means for whoever receives it.

    Attributes:
        fault: who can put it right.
        retryable: whether the same request may succeed later without anybody changing anything.
        maybe_ran: whether the task may have been executed, in whole or in part.
        meaning: one sentence for people; the reference of errors is made from it.
    """

    fault: Fault
    retryable: bool
    maybe_ran: bool
    meaning: str


_R, _W, _N, _O = Fault.REQUESTER, Fault.WORKER, Fault.NETWORK, Fault.OPERATOR

TRAITS: dict[ErrorCode, ErrorTraits] = {
    ErrorCode.INVALID_TASK: ErrorTraits(_R, False, False, "A field of the task is missing, malformed or out of range."),
    ErrorCode.TOO_LARGE: ErrorTraits(_R, False, False, "The task or result is larger than the announced limit."),
    ErrorCode.NO_EXECUTOR: ErrorTraits(
        _R, False, False, "The node has no executor for the kind of the task, or does not act as its persona."
    ),
    ErrorCode.FORBIDDEN: ErrorTraits(_R, False, False, "The peer may not do this; the operator of the node decides."),
    ErrorCode.BUSY: ErrorTraits(Fault.NOBODY, True, False, "The node is full; ask again after retry_after_ms."),
    ErrorCode.DRAINING: ErrorTraits(Fault.NOBODY, True, False, "The node is stopping and takes no new tasks."),
    ErrorCode.CONFLICT: ErrorTraits(_R, False, False, "Another task already has this UUID."),
    ErrorCode.NOT_FOUND: ErrorTraits(_R, False, False, "The node does not know the task, or the agent."),
    ErrorCode.EXECUTION_FAILED: ErrorTraits(_W, False, True, "The executor raised an error."),
    ErrorCode.TIMEOUT: ErrorTraits(_W, False, True, "One execution took longer than the task's timeout_ms."),
    ErrorCode.DEADLINE_EXCEEDED: ErrorTraits(
        Fault.NOBODY, False, True, "The time that the requester gave the task ran out."
    ),
    ErrorCode.CANCELLED: ErrorTraits(_R, False, True, "The requester cancelled the task."),
    ErrorCode.LEASE_LOST: ErrorTraits(_W, True, True, "The worker stopped renewing its lease."),
    ErrorCode.PEER_LOST: ErrorTraits(_N, True, True, "The connection to the peer ended before the result came."),
    ErrorCode.PEER_UNREACHABLE: ErrorTraits(_N, True, False, "No address of the peer answered."),
    ErrorCode.WRONG_PEER: ErrorTraits(_O, False, False, "Another peer than the expected one answers at the address."),
    ErrorCode.INVALID_ADDRESS: ErrorTraits(_R, False, False, "The text is not an address that a node can dial."),
    ErrorCode.INCOMPATIBLE_VERSION: ErrorTraits(_O, False, False, "The peers share no version of the protocol."),
    ErrorCode.PROTOCOL: ErrorTraits(_N, False, True, "The peer sent what the protocol does not allow."),
    ErrorCode.ILLEGAL_TRANSITION: ErrorTraits(_R, False, False, "The task's status does not allow this."),
    ErrorCode.STALE_ATTEMPT: ErrorTraits(_W, False, True, "A newer attempt of the task has been claimed since."),
    ErrorCode.STORE_FAILED: ErrorTraits(_O, True, True, "The node could not save the task."),
    ErrorCode.INVALID_CONFIG: ErrorTraits(_O, False, False, "The configuration of the node is wrong."),
    ErrorCode.NODE_UNAVAILABLE: ErrorTraits(_O, True, False, "No running node answers at the data folder."),
    ErrorCode.INTERNAL: ErrorTraits(_W, False, True, "The node has a defect; its log has the details."),
    ErrorCode.DEPENDENCY_FAILED: ErrorTraits(
        Fault.NOBODY, False, False, "A task that this one depends on did not complete."
    ),
}


class PeertaskError(Exception):
    """Something in peertask failed.

    Args:
        message: what failed, where and why, in a sentence without a final full stop.
        code: what kind of failure it is; the class's own code by default.
        remedy: what to do next, in a sentence without a final full stop; empty when nothing can be done.
        retry_after_ms: how long to wait before asking again, in milliseconds; only with a retryable code.

    ``str(error)`` is the message and the remedy; `code` and its traits are for programs.
    """

    default_code = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str = "",
        *,
        code: ErrorCode | None = None,
        remedy: str = "",
        retry_after_ms: int | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.message = message or self.traits.meaning.rstrip(".")
        self.remedy = remedy
        self.retry_after_ms = retry_after_ms
        super().__init__(self.message)

    @property
    def traits(self) -> ErrorTraits:
        """Whose fault the error is and what a retry would mean."""
        return TRAITS[self.code]

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


def abbreviate(value: object) -> str:
    """Return a wrong value as a message shows it: short, escaped, and made without work in proportion to its size."""
    if isinstance(value, str | bytes) and len(value) > _MAX_SHOWN_CHARS:
        return f"{value[:_MAX_SHOWN_CHARS]!r}…"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)


class InvalidTask(PeertaskError):
    """A task, or what it was made from, is malformed; the message names the field and its limit."""

    default_code = ErrorCode.INVALID_TASK


class TooLarge(PeertaskError):
    """A task, result or frame is larger than the limit that the message names."""

    default_code = ErrorCode.TOO_LARGE


class IllegalTransition(PeertaskError):
    """The status of a task does not allow what was asked; the record is unchanged."""

    default_code = ErrorCode.ILLEGAL_TRANSITION


class StaleAttempt(PeertaskError):
    """A fact belongs to an older attempt than the record's; the record is unchanged."""

    default_code = ErrorCode.STALE_ATTEMPT


class TaskNotFound(PeertaskError):
    """The node has no record of the task."""

    default_code = ErrorCode.NOT_FOUND


class TaskRejected(PeertaskError):
    """A node refused the task before it was recorded; nothing ran."""

    default_code = ErrorCode.FORBIDDEN


class LocalProtocolError(PeertaskError):
    """This node tried to send what the protocol does not allow: a defect of this program."""

    default_code = ErrorCode.INTERNAL


class RemoteProtocolError(PeertaskError):
    """The peer sent what the protocol does not allow; its message is the reason that Bye tells the peer."""

    default_code = ErrorCode.PROTOCOL
