"""Runs the asynchronous part of a command, and ends it in good order when a signal comes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from node.background import open_background
from node.cli.exit_codes import SIGNAL_BASE, ExitCode

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def signals_of_a_node() -> tuple[signal.Signals, ...]:
    """Return what ends a node in good order: the end of its terminal too, unless `nohup` has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return ENDING_SIGNALS if ignored else (*ENDING_SIGNALS, signal.SIGHUP)


def run(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    """Run a command to its end and return its exit code.

    SIGINT and SIGTERM cancel it, and it has as long as it needs to clean up; a second one ends the process at once.
    """
    return trio.run(_interruptible, work)


async def _interruptible(work: Callable[[], Awaitable[ExitCode]]) -> ExitCode:
    received: list[int] = []
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        async with open_background() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_on_signal, signals, scope, received)
                return await work()
    return ExitCode(SIGNAL_BASE + received[0])


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, received: list[int]) -> None:
    async for number in signals:
        if received:
            exit_at_once(number)
        received.append(number)
        scope.cancel()


def exit_at_once(signal_number: int) -> None:
    """End this process without any cleaning up."""
    os._exit(SIGNAL_BASE + signal_number)
