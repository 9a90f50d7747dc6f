"""``peertask send``: have one task done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from node.cli.exit_codes import ExitCode
from node.cli.help import DocumentedCommand
from node.cli.options import Invocation, node_options, task_options

if TYPE_CHECKING:
    from node.cli.request import Request
    from node.cli.requesters import Ending, Requester
    from protocol import TaskId

# A node says at once that it will stop a task; a frozen one must not hold the user up.
_CANCEL_S = 2.0


@click.command(
    cls=DocumentedCommand,
    json_output="The [TaskResult](http.md#taskresult), exactly; with `--detach` an object with `task_id`.",
    examples=[
        ('peertask send --to /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… "What is a monad?"', ""),
        ("peertask send --to 12D3KooW… --kind echo --priority 9 --timeout 5 hello", ""),
        ("peertask send --kind summarise --param words=50 - < article.txt", ""),
        ("peertask send --json hello | jq -r .result", ""),
        ('task=$(peertask send --detach "a long one") && peertask watch $task', ""),
    ],
)
@click.argument("prompt")
@task_options
@click.option("--id", "task_id", metavar="UUID", help="The id of the task; the same one again is the same task.")
@click.option("--detach", is_flag=True, help="Print the id of the task and leave; needs a running node.")
@node_options
def command(call: Invocation, *, prompt: str, task_id: str | None, detach: bool, **options: Any) -> ExitCode:
    """Have a task done, and print its result. PROMPT is the text itself, or - for standard input.

    The node that runs in the data folder asks for it; when none runs, a node of the command's own does. Ctrl-C cancels
    the task. What it waits for when nobody begins it is told on standard error, each reason once; with --json it is
    not, and `peertask explain` tells it.
    """
    from node.cli.request import Request, read_prompt
    from node.cli.running import run
    from protocol import new_task_id, parse_task_id

    chosen_id = new_task_id() if task_id is None else parse_task_id(task_id)
    request = Request.of(**options)
    text, place = read_prompt(prompt)
    request.check(text, place=place)

    async def work() -> ExitCode:
        return await _send(call, text, request, chosen_id, detach=detach)

    return run(work)


async def _send(call: Invocation, prompt: str, request: Request, task_id: TaskId, *, detach: bool) -> ExitCode:
    from node.cli.live_line import live_line
    from node.cli.requesters import open_requester
    from node.cli.terminal import echo_json
    from node.cli.waiting import Hint, telling_what_is_waited_for

    async def look() -> list[Hint]:
        return [Hint(reason) for reason in await requester.waits_for(task_id)]

    async with live_line(task_id) as line, open_requester(call, detached=detach) as requester:
        await requester.submit(prompt, request, task_id)
        if not detach:
            async with telling_what_is_waited_for(look, quiet=call.as_json):
                line.end(ending := await _follow_or_cancel(requester, task_id, line.tell))
    if not detach:
        return _tell(ending, call)
    if call.as_json:
        echo_json({"task_id": task_id})
    else:
        click.echo(task_id)
    return ExitCode.OK


async def _follow_or_cancel(requester: Requester, task_id: TaskId, told: Any) -> Ending:
    import trio

    try:
        return await requester.follow(task_id, told)
    except trio.Cancelled:
        with trio.move_on_after(_CANCEL_S, shield=True):
            await requester.cancel(task_id)
        raise


def _tell(ending: Ending, call: Invocation) -> ExitCode:
    from node.cli.reporting import report_error

    if ending.result is not None:
        click.echo(ending.result.to_json() if call.as_json else ending.result.result)
        return ExitCode.OK
    return report_error(ending.error(), as_json=call.as_json, task_id=ending.task_id)
