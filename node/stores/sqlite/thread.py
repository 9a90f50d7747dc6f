"""A thread for one connection, from which alone it is used.

Handing a call to it takes half the time of handing one to a thread of `trio.to_thread`, and a commit of one change
takes hardly longer than that.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, NoReturn, TypeVar

import trio

_Value = TypeVar("_Value")

# A thread whose calls have all ended ends at once; on a disk that does not answer it is left to the end of the process.
JOIN_S: Final = 5.0


class OwnThread:
    """Runs blocking calls in one thread, one after the other, in order; `open_thread` makes one.

    The thread ends with `aclose`, with this object, and at the latest with the process.

    Args:
        name: what it is called for those who look at the process.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._end = weakref.finalize(self, self._calls.put, None)
        self._thread = Thread(target=_serve, args=(self._calls, trio.lowlevel.current_trio_token()), name=name)
        self._thread.daemon = True
        self._thread.start()

    async def run_sync(self, function: Callable[..., _Value], *args: object) -> _Value:
        """Return what a function returns in the thread, or raise what it raises.

        A call that is in line is waited for, also when the caller is cancelled.

        Raises:
            sqlite3.ProgrammingError: the thread has ended.
        """
        if not self._end.alive:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(partial(function, *args))
        self._calls.put(call)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return call.outcome()

    async def aclose(self) -> None:
        """End the thread, and return when it has ended, after `JOIN_S` at the latest."""
        self._end()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join, JOIN_S)


@asynccontextmanager
async def open_thread(name: str) -> AsyncIterator[OwnThread]:
    """Have a thread for the length of the context."""
    thread = OwnThread(name)
    try:
        yield thread
    finally:
        await thread.aclose()


class _Call(Generic[_Value]):
    """A function to be called for a task of trio."""

    def __init__(self, function: Callable[[], _Value]) -> None:
        self._function = function
        self._task = trio.lowlevel.current_task()
        self.outcome: Callable[[], _Value]

    def run(self) -> None:
        try:
            value = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again by the task that waits
            self.outcome = partial(_raise, error)
        else:
            self.outcome = lambda: value

    def report(self) -> None:
        """Let the task go on; on the event loop."""
        trio.lowlevel.reschedule(self._task)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _serve(calls: SimpleQueue[_Call[Any] | None], token: trio.lowlevel.TrioToken) -> None:
    """Run calls until the end. It knows the queue alone, so that whoever owns the thread can be collected."""
    while (call := calls.get()) is not None:
        call.run()
        with suppress(trio.RunFinishedError):  # nobody waits any more
            token.run_sync_soon(call.report)
