"""What tasks wait for, told on standard error to whoever waits for them, in the words of ``peertask explain``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import click
import trio

from node.background import open_background
from node.coordination.hindrances import Reason, Wait
from protocol import PeertaskError

# A task that nobody has begun by then is not waiting its turn: its peer is away, or nobody does its kind.
FIRST_LOOK_S: Final = 2.0
# A person who starts the worker that is missing sees soon that it was the right one.
LOOK_EVERY_S: Final = 5.0

_UNDER_WAY: Final = frozenset({Wait.RESULT, Wait.STOP})


class Hint(NamedTuple):
    """Something that a task waits for.

    Attributes:
        reason: what.
        name: what the task is called; empty when there is only one.
    """

    reason: Reason
    name: str = ""


Look = Callable[[], Awaitable[Iterable[Hint]]]


class Hints:
    """Tells what is waited for, each reason once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, hint: Hint) -> None:
        """Print a reason with what would help, unless that was told, or the task is under way."""
        reason = hint.reason
        if reason.wait in _UNDER_WAY or reason.text in self._told:
            return
        self._told.add(reason.text)
        who = f"{hint.name} waits" if hint.name else "waits"
        remedy = f"\n  → {reason.remedy}" if reason.remedy else ""
        click.echo(f"{who} for {reason.text}{remedy}", err=True)


@asynccontextmanager
async def telling_what_is_waited_for(look: Look, *, quiet: bool) -> AsyncIterator[None]:
    """Look now and then what tasks wait for, and tell it, for the length of the context.

    Args:
        look: returns what they wait for.
        quiet: whether to tell nothing, because a program reads what is told.
    """
    async with open_background() as nursery:
        if not quiet:
            nursery.start_soon(_keep_telling, look)
        yield


async def _keep_telling(look: Look) -> None:
    hints = Hints()
    await trio.sleep(FIRST_LOOK_S)
    while True:
        with suppress(PeertaskError):  # whoever waits for the end hears of it too, and decides what it means
            for hint in await look():
                hints.tell(hint)
        await trio.sleep(LOOK_EVERY_S)
