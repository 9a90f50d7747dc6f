"""A lock that costs nothing when it is free.

libp2p takes several locks of trio for each message, and each of those lets a pass of the scheduler go by, free or not:
some eight passes a round trip, which cost more than everything that is done under the locks.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

import trio

from node.net.errors import UnsupportedLibp2p

PROMPT_TURNS: Final = 64
"""After so many turns in a row without a pass of the scheduler one is let go by, whatever a peer sends."""


class PromptLock:
    """Takes the place of `trio.Lock` where it is only used with ``async with``; not re-entrant, and not fair.

    Entering is a checkpoint when the lock is taken, and else once in 64 times.
    """

    def __init__(self) -> None:
        self._taken = False
        self._turns = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<PromptLock {'taken' if self._taken else 'free'} waiting={len(self._waiting)}>"

    async def __aenter__(self) -> None:
        """Take the lock, when it is free."""
        self._turns += 1
        if self._turns % PROMPT_TURNS == 0:
            await trio.lowlevel.checkpoint()
        while self._taken:
            await self._waiting.park()
        self._taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the next one have it."""
        self._taken = False
        if self._waiting:
            self._waiting.unpark()


def make_prompt(owner: object, *names: str) -> None:
    """Put prompt locks in the place of some of an object of libp2p, none of which is taken.

    Raises:
        UnsupportedLibp2p: the object has no such lock.
    """
    for name in names:
        if not isinstance(vars(owner).get(name), trio.Lock):
            raise UnsupportedLibp2p(f"a {type(owner).__name__} of libp2p has no lock named {name}")
        vars(owner)[name] = PromptLock()
