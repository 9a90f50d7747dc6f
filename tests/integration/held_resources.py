"""What a program holds: a host that has ended must not leave any of it."""

from __future__ import annotations

from pathlib import Path

import trio


def open_files() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def running_tasks() -> int:
    """Tasks of the whole program."""
    number, waiting = 0, [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            number += 1
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return number
