"""Functions that worker processes import: this module brings nothing but the standard library and pydantic along."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel
from structlog.contextvars import get_contextvars

from node.executors.retry import Retry
from protocol import Artifact, Task, TaskRejected


class Point(BaseModel):
    """A result of a class of its own."""

    x: int
    pid: int


class NeedsTwo(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def process_id(_prompt: str) -> int:
    """Where this runs."""
    return os.getpid()


def modules(_prompt: str) -> list[str]:
    """What this process has imported."""
    return sorted(sys.modules)


def log_context(_prompt: str) -> dict[str, Any]:
    """What structlog adds to each record."""
    return get_contextvars()


def describe(task: Task, width: int = 80) -> dict[str, Any]:
    """What arrived of a task and its params."""
    return {"task": task.to_dict(), "width": width}


def point(prompt: str) -> Point:
    """Return a model."""
    return Point(x=int(prompt), pid=os.getpid())


def with_artifact(prompt: str) -> tuple[str, list[Artifact]]:
    """Return text and an artifact."""
    return prompt, [Artifact(name="copy", content=prompt)]


def fail(prompt: str) -> NoReturn:
    """Raise an exception of a class of its own."""
    raise NeedsTwo(prompt, "nothing")


def refuse(prompt: str) -> NoReturn:
    """Raise an error with a code."""
    raise TaskRejected(prompt, retry_after_ms=70)


def ask_for_another_attempt(prompt: str) -> NoReturn:
    """Raise what makes a task be tried again."""
    raise Retry(prompt)


def leave(_prompt: str) -> NoReturn:
    """Raise what ends a program."""
    sys.exit(3)


def return_an_object(_prompt: str) -> object:
    """Return what is no result, and what pickle refuses."""
    return threading.Lock()


def die(prompt: str) -> None:
    """Kill the process that this runs in."""
    os.kill(os.getpid(), getattr(signal, prompt))


def exit_at_once(_prompt: str) -> None:
    """End the process that this runs in, as a native library might."""
    os._exit(4)


def compute_until_there(prompt: str) -> str:
    """Keep a core busy until a file is there."""
    while not Path(prompt).exists():
        sum(range(1_000))
    return "done"


def hold_line(prompt: str) -> NoReturn:
    """Connect to a port of this machine, say one word, and compute: the line tells whether this process still lives."""
    with socket.create_connection(("127.0.0.1", int(prompt))) as line:
        line.sendall(b"busy")
        while True:
            sum(range(1_000))


def sleep_without_end(_prompt: str) -> NoReturn:
    """Wait for nothing."""
    while True:
        time.sleep(60)


def obey(prompt: str) -> str:
    """Return, fail or hang, as told."""
    while prompt == "hang":
        time.sleep(60)
    if prompt == "fail":
        raise ValueError(prompt)
    return prompt
