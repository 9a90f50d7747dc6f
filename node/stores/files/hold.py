"""The right to write in a folder, which one store at a time has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from protocol import ErrorCode, PeertaskError

LOCK_FILE: Final = "tasks.lock"
"""Beside the folder ``tasks``; holds the number of the process that has it."""

_PID_CHARS = 20  # more than any process number takes


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the one store in a data folder for the length of the context; the lock dies with the process.

    Raises:
        PeertaskError: code STORE_FAILED, when another one is there; names its process.
        OSError: the lock file cannot be made.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held_already(folder, descriptor) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _held_already(folder: Path, descriptor: int) -> PeertaskError:
    pid = os.read(descriptor, _PID_CHARS).decode("ascii", "replace").strip()
    return PeertaskError(
        f"the tasks in {folder} are in use by process {pid or '(not told yet)'}",
        code=ErrorCode.STORE_FAILED,
        remedy="Stop that process first, or give this node a data folder of its own",
    )
