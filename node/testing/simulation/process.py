"""Processes within one run of trio: groups of tasks that can be frozen, as SIGSTOP freezes a process.

A frozen task does not take its next step, whatever woke it: a deadline, an event, a cancel. When its process goes on,
it is given what it was to be given. So every line of a node is frozen, the executors of a user included, and none of
them needs to know.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any, cast

import trio
from trio.lowlevel import Abort, Task


class Process:
    """A group of tasks: the one that runs `adopt`, and all that are started below it.

    Attributes:
        frozen: whether it stands still.
    """

    def __init__(self) -> None:
        self.frozen = False
        self._held: list[Task] = []

    def freeze(self) -> None:
        """Let no task of the process take another step."""
        self.frozen = True

    def thaw(self) -> None:
        """Let the process go on; tasks that were woken meanwhile go on at once."""
        self.frozen = False
        held, self._held = self._held, []
        for task in held:
            trio.lowlevel.reschedule(task)

    def hold(self, task: Task) -> None:
        """Let a task wait until the process goes on."""
        self._held.append(task)


class Processes(trio.abc.Instrument):
    """Knows which task belongs to which process."""

    def __init__(self) -> None:
        self._process_of: dict[Task, Process] = {}

    def adopt(self, process: Process) -> None:
        """Count all tasks that are started below the current one, from now on, as those of a process."""
        self._process_of[trio.lowlevel.current_task()] = process

    def task_spawned(self, task: Task) -> None:
        """Let a task of a process be frozen with it."""
        nursery = task.parent_nursery
        process = self._process_of.get(nursery.parent_task) if nursery is not None else None
        if process is not None:
            self._process_of[task] = process
            task.coro = cast("Any", _Steps(task, task.coro, process))

    def task_exited(self, task: Task) -> None:
        """Forget a task."""
        self._process_of.pop(task, None)


class _Steps:
    """The coroutine of a task, whose steps wait while the process is frozen."""

    __slots__ = ("_coroutine", "_given", "_process", "_task", "_waiting")

    def __init__(self, task: Task, coroutine: CoroutineType[Any, Any, Any], process: Process) -> None:
        self._task = task
        self._coroutine = coroutine
        self._process = process
        self._given: Any = None
        self._waiting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)

    def send(self, value: Any) -> Any:
        """Take a step, now or when the process goes on."""
        if self._waiting:
            value = self._given
        if self._process.frozen:
            self._given, self._waiting = value, True
            self._process.hold(self._task)
            return _wait().send(None)
        if self._waiting:
            self._given, self._waiting = None, False
        return self._coroutine.send(value)


async def _wait() -> None:
    await trio.lowlevel.wait_task_rescheduled(_not_now)


def _not_now(_raise_cancel: object) -> Abort:
    return Abort.FAILED
