"""How a command ends, for scripts: the one home of the exit codes.

Codes of errors are named by their text, because importing them takes longer than ``--help`` may.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

SIGNAL_BASE: Final = 128
"""A command that a signal ended exits with this and the signal's number, as shells have it."""


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    TIMEOUT = 5
    NOT_FOUND = 6
    DEFECT = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


MEANINGS: Final = {
    ExitCode.OK: "All went well.",
    ExitCode.FAILED: "A task ended without a result: it failed, or somebody cancelled it. Or a check found a problem.",
    ExitCode.USAGE: "An argument, a field of the task or a setting is wrong; nothing was sent.",
    ExitCode.UNREACHABLE: "No node answers at the data folder, or the peer could not be reached or was lost.",
    ExitCode.REFUSED: "The node or the peer refused: forbidden, no executor for the kind, busy or stopping.",
    ExitCode.TIMEOUT: "The time given to the task, or to one execution of it, ran out.",
    ExitCode.NOT_FOUND: "The node does not know the task, or the agent.",
    ExitCode.DEFECT: "A defect of peertask; `--debug` shows where.",
    ExitCode.INTERRUPTED: "Ctrl-C (SIGINT) ended the command.",
    ExitCode.PIPE_CLOSED: "Whoever read the standard output went away.",
    ExitCode.TERMINATED: "SIGTERM ended the command.",
}

_BY_ERROR_CODE: Final = {
    "INVALID_TASK": ExitCode.USAGE,
    "TOO_LARGE": ExitCode.USAGE,
    "NO_EXECUTOR": ExitCode.REFUSED,
    "FORBIDDEN": ExitCode.REFUSED,
    "BUSY": ExitCode.REFUSED,
    "DRAINING": ExitCode.REFUSED,
    "CONFLICT": ExitCode.REFUSED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "EXECUTION_FAILED": ExitCode.FAILED,
    "TIMEOUT": ExitCode.TIMEOUT,
    "DEADLINE_EXCEEDED": ExitCode.TIMEOUT,
    "CANCELLED": ExitCode.FAILED,
    "LEASE_LOST": ExitCode.UNREACHABLE,
    "PEER_LOST": ExitCode.UNREACHABLE,
    "PEER_UNREACHABLE": ExitCode.UNREACHABLE,
    "WRONG_PEER": ExitCode.UNREACHABLE,
    "INVALID_ADDRESS": ExitCode.USAGE,
    "INCOMPATIBLE_VERSION": ExitCode.UNREACHABLE,
    "PROTOCOL": ExitCode.UNREACHABLE,
    "ILLEGAL_TRANSITION": ExitCode.REFUSED,
    "STALE_ATTEMPT": ExitCode.FAILED,
    "STORE_FAILED": ExitCode.FAILED,
    "INVALID_CONFIG": ExitCode.USAGE,
    "NODE_UNAVAILABLE": ExitCode.UNREACHABLE,
    "INTERNAL": ExitCode.DEFECT,
    "DEPENDENCY_FAILED": ExitCode.FAILED,
}

ERROR_CODES: Final = tuple(_BY_ERROR_CODE)
"""Every code that an error can have."""


def exit_code_of(error_code: str) -> ExitCode:
    """Return how a command ends that an error ended; a code of a newer node counts as a failure."""
    return _BY_ERROR_CODE.get(error_code, ExitCode.FAILED)
