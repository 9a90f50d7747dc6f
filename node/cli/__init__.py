"""The command line: one module per command, imported when it runs, and the only place that prints.

Results go to standard output, everything else to standard error. `docs/reference/cli.md` is made from what the commands
say about themselves.
"""

from node.cli.entry import main

__all__ = ["main"]
