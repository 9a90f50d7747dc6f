"""A terminal for a command, as a person would have it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping

from tests.acceptance.processes import CALL_S, NO_SETTINGS, PEERTASK, Stage

ROWS, COLUMNS = 40, 120
READ_BYTES = 65_536


def run_on_terminal(stage: Stage, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS) -> tuple[int, str]:
    """Run a command with a terminal as its standard output and error; return its exit code and all that was drawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = stage.environment | {"TERM": "xterm-256color"} | dict(settings)
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [str(PEERTASK), *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=environment, cwd=stage.folder
    )
    os.close(theirs)
    try:
        drawn = _read_all(ours)
        return process.wait(CALL_S), drawn.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_all(terminal: int) -> bytes:
    drawn = b""
    while True:
        try:
            drawn += os.read(terminal, READ_BYTES)
        except OSError:  # Linux says so when nobody has the other end open any more
            return drawn
