"""What tasks wait for, told to whoever waits for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.cli.graph_watch import GraphWatch
from node.cli.waiting import FIRST_LOOK_S, LOOK_EVERY_S, Hint, telling_what_is_waited_for
from node.coordination.explain import Explanation
from node.coordination.hindrances import Reason, Wait
from node.coordination.naming import resolve_names
from node.gateways.http.client import ControlClient
from protocol import ErrorCode, PeertaskError, TaskId, TaskStatus
from tests.node.gateways.http_node import TEST_S, Served, serving

NOBODY = Reason(Wait.WORKER, "a worker that acts as 'critic'", remedy="Run one")
FULL = Reason(Wait.SLOT, "a free slot")


@pytest.mark.parametrize("quiet", [False, True])
async def test_each_reason_is_told_once_with_what_helps(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    """After two seconds, on standard error; nothing while it runs, and nothing at all to a program."""
    looks: list[Iterable[Reason] | PeertaskError] = [
        [NOBODY],
        [NOBODY, FULL],
        PeertaskError("the node is away", code=ErrorCode.NODE_UNAVAILABLE),
        [Reason(Wait.RESULT, "attempt 1 runs")],
        [FULL],
    ]

    async def look() -> Iterable[Hint]:
        found = looks.pop(0)
        if isinstance(found, PeertaskError):
            raise found
        return [Hint(reason, "critique" if reason is FULL else "") for reason in found]

    async with telling_what_is_waited_for(look, quiet=quiet):
        await trio.sleep(FIRST_LOOK_S / 2)
        assert capsys.readouterr().err == ""
        await trio.sleep(FIRST_LOOK_S + 4 * LOOK_EVERY_S)
    told = capsys.readouterr()
    lines = ["waits for a worker that acts as 'critic'", "  → Run one", "critique waits for a free slot"]
    assert (told.out, told.err.splitlines()) == ("", [] if quiet else lines)
    assert len(looks) == (5 if quiet else 0)


class Stuck:
    """A graph at a node that only says what its tasks wait for."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.served = served
        self.graph = resolve_names(
            {
                "draft": {"prompt": "a"},
                "critique": {"prompt": "b", "persona": "critic"},
                "another": {"prompt": "b", "persona": "critic"},
                "last": {"prompt": "c", "depends_on": ["draft"]},
            }
        )
        self.watch = GraphWatch(ControlClient(folder), self.graph, lambda _name, _task: None)

    def waits(self, name: str, *reasons: Reason) -> TaskId:
        """Let a task wait for something."""
        task_id = self.graph.ids[name]
        self.served.node.explanations[task_id] = Explanation(
            task_id=task_id,
            status=TaskStatus.PENDING,
            blocked=False,
            outcome="",
            waits_for=reasons,
            candidates=(),
            trials=(),
        )
        return task_id

    async def hints(self) -> list[tuple[str, Reason]]:
        """What is told of the graph now."""
        return sorted((hint.name, hint.reason) for hint in await self.watch.look_for_hindrances())


async def test_a_graph_tells_what_keeps_it_from_going_on(tmp_path: Path) -> None:
    """One task for each different thing; what is blocked only when nothing else could go on."""
    async with serving(tmp_path) as served:
        stuck = Stuck(served, tmp_path)
        blocked = Reason(Wait.DEPENDENCY, "draft (failed)")
        first, last = stuck.waits("draft", FULL), stuck.waits("last", blocked)
        stuck.waits("critique", NOBODY)
        stuck.waits("another", NOBODY)
        with trio.fail_after(TEST_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stuck.watch.run)
                while served.manager.find_task(last) is None:
                    await trio.sleep(0.001)
                await ControlClient(tmp_path).submit("not of this graph")
                hints = dict(await stuck.hints())
                assert set(hints.values()) == {NOBODY, FULL}
                assert len(hints) == 2
                served.start(first)
                assert {reason for _, reason in await stuck.hints()} == {NOBODY}
                for name in ("critique", "another"):
                    served.manager.cancel_task(stuck.graph.ids[name])
                assert await stuck.hints() == []
                served.fail(first)
                assert await stuck.hints() == [("last", blocked)]
                served.manager.cancel_task(last)
