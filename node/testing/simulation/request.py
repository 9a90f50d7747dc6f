"""What somebody outside asks of a simulated process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from protocol import PeertaskError

_T = TypeVar("_T")


class Request(Generic[_T]):
    """Something that is asked of a process, and carried out in it.

    Args:
        ask: what is to be done.

    Attributes:
        answered: set when it is done.
        scope: takes it back, as who hangs up does.
    """

    def __init__(self, ask: Callable[[], Awaitable[_T]]) -> None:
        self._ask = ask
        self._answers: list[_T] = []
        self._error: PeertaskError | None = None
        self.answered = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Do it; to be called by a task of the process."""
        with self.scope:
            try:
                self._answers.append(await self._ask())
            except PeertaskError as error:
                self._error = error
            self.answered.set()

    @property
    def answer(self) -> _T:
        """What came of it; raises the `PeertaskError` that did."""
        if self._error is not None:
            raise self._error
        return self._answers[0]
