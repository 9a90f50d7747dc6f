"""What holds while a node starts; imports next to nothing, because it comes before everything else."""

from __future__ import annotations

import signal
import sys

from node.cli.exit_codes import ExitCode


def exit_quietly_while_starting() -> None:
    """Let a signal that comes before there is anything to drain end the program just as well."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(ExitCode.OK))
