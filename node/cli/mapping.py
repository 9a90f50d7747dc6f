"""Has a task done for each of many lines, and goes on where an earlier map was interrupted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import click
import trio

from node.cli.exit_codes import ExitCode
from node.cli.map_journal import Journal, forget_journal, journal_name, open_journal
from node.cli.map_progress import MapProgress, show_progress
from node.cli.options import Invocation
from node.cli.request import Request
from node.cli.requesters import Ending, Requester, open_requester
from node.cli.settings import data_folder
from node.cli.waiting import Hint, telling_what_is_waited_for
from protocol import ErrorCode, Failure, PeertaskError, TaskId, TaskResult

# How a task ends that an interrupted map has left behind, and that is to be asked for anew.
_LEFT_BEHIND = frozenset({ErrorCode.CANCELLED, ErrorCode.CONFLICT})


async def map_lines(
    call: Invocation, lines: Sequence[str], request: Request, *, concurrency: int, fresh: bool
) -> ExitCode:
    """Have a task done for each line that is not blank, print the results, and return the exit code.

    Args:
        call: the options of the command.
        lines: the prompts.
        request: what is asked beside them.
        concurrency: how many tasks are asked for at once.
        fresh: whether to ask for what an earlier map has already.

    Raises:
        PeertaskError: the node or the peer could not be reached; what was done until then is kept.
    """
    folder, name = data_folder(call), journal_name(lines, request)
    prompts = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    with open_journal(folder, name, fresh=fresh) as journal:
        mapping = _Mapping(prompts, request, journal, _Printer(prompts, as_json=call.as_json))
        try:
            async with show_progress(mapping.progress, quiet=call.as_json):
                mapping.print_known()
                await mapping.ask_for_the_rest(call, concurrency)
        finally:
            if not call.as_json:
                _tell_what_is_missing(mapping.progress)
        if mapping.progress.complete == len(prompts):
            forget_journal(folder, name)
            return ExitCode.OK
    return ExitCode.FAILED


class _Mapping:
    """One map on its way."""

    def __init__(self, prompts: dict[int, str], request: Request, journal: Journal, printer: _Printer) -> None:
        self.progress = MapProgress(len(prompts))
        self._prompts = prompts
        self._request = request
        self._journal = journal
        self._printer = printer
        self._open: dict[TaskId, None] = {}

    def print_known(self) -> None:
        """Print what an earlier map has left."""
        for number, result in self._journal.results.items():
            self._printer.add(number, result)
        self.progress.complete = self.progress.known = len(self._journal.results)

    async def ask_for_the_rest(self, call: Invocation, concurrency: int) -> None:
        """Have the tasks done that have no result yet."""
        missing = [number for number in self._prompts if number not in self._journal.results]
        if not missing:
            return
        queue = iter(missing)
        async with (
            open_requester(call) as requester,
            telling_what_is_waited_for(partial(self._look, requester), quiet=call.as_json),
            trio.open_nursery() as nursery,
        ):
            for _ in range(min(concurrency, len(missing))):
                nursery.start_soon(self._ask_one_by_one, requester, queue)

    async def _look(self, requester: Requester) -> list[Hint]:
        """Return what the oldest task waits for: the others are like it."""
        oldest = next(iter(self._open), None)
        return [] if oldest is None else [Hint(reason) for reason in await requester.waits_for(oldest)]

    async def _ask_one_by_one(self, requester: Requester, queue: Iterator[int]) -> None:
        for number in queue:
            ending = await self._ask(requester, number)
            if ending.failure is not None and ending.failure.code in _LEFT_BEHIND and self._journal.resumed:
                ending = await self._ask(requester, number)
            self._take(number, ending)

    async def _ask(self, requester: Requester, number: int) -> Ending:
        task_id = self._journal.task_id(number, requester.peer_id)
        try:
            await requester.submit(self._prompts[number], self._request, task_id)
            self._open[task_id] = None
            ending = await requester.finish(task_id)
        except PeertaskError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            ending = Ending(task_id, None, Failure.from_error(error), None, 0)
        finally:
            self._open.pop(task_id, None)
        if ending.result is not None:
            self._journal.complete(number, ending.result)
        elif ending.failure is not None:
            self._journal.fail(number, ending.failure)
        return ending

    def _take(self, number: int, ending: Ending) -> None:
        if ending.result is not None:
            self.progress.complete += 1
            self._printer.add(number, ending.result)
        elif ending.failure is not None:
            self.progress.failed += 1
            self._printer.add_failure(number, ending)


class _Printer:
    """Prints results: as JSON at once, as text in the order of the lines."""

    def __init__(self, numbers: Sequence[int] | dict[int, str], *, as_json: bool) -> None:
        self._as_json = as_json
        self._order = iter(numbers)
        self._next = next(self._order, None)
        self._waiting: dict[int, str] = {}

    def add(self, number: int, result: TaskResult) -> None:
        """Print the result of a line when its turn has come."""
        if self._as_json:
            click.echo(json.dumps({"line": number, **result.to_dict()}, ensure_ascii=False))
        else:
            self._in_order(number, result.result)

    def add_failure(self, number: int, ending: Ending) -> None:
        """Tell that a line has failed."""
        failure = ending.failure.to_dict() if ending.failure is not None else {}
        if self._as_json:
            entry = {"line": number, "task_id": ending.task_id, "failure": failure}
            click.echo(json.dumps(entry, ensure_ascii=False))
        else:
            click.echo(f"line {number}: {failure['code']}: {failure['message']}", err=True)
            self._in_order(number, "")

    def _in_order(self, number: int, text: str) -> None:
        self._waiting[number] = text
        while self._next is not None and self._next in self._waiting:
            click.echo(self._waiting.pop(self._next))
            self._next = next(self._order, None)
        sys.stdout.flush()


def _tell_what_is_missing(progress: MapProgress) -> None:
    if progress.complete < progress.total:
        have = f"{progress.complete} of {progress.total} lines have a result"
        click.echo(f"{have}; the same command asks for the others", err=True)
