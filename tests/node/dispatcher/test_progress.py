"""What executors report while they work."""

from __future__ import annotations

from itertools import pairwise

import pytest
from trio.testing import MockClock

from node.dispatcher import PROGRESS_INTERVAL_MS
from node.interfaces import Execution, Output
from node.testing import (
    Delay,
    MemoryHub,
    Report,
    Return,
)
from protocol import (
    MAX_MESSAGE_CHARS,
    Completed,
    Progressed,
    TaskStatus,
)
from tests.node.dispatcher.scenes import Careless, Scene
from tests.node.memory_node import MemoryNode


async def test_progress_is_recorded_ten_times_a_second_at_the_most(autojump_clock: MockClock, scene: Scene) -> None:
    """However often an executor reports; the first report comes through at once."""
    steps = [step for number in range(1_000) for step in (Report(number / 1_000, f"step {number}"), Delay(1))]
    scene.executor.then(tuple(steps))
    task_id = scene.submit()
    await scene.node.wait(task_id)
    reports = [change.fact for change in scene.told if isinstance(change.fact, Progressed)]
    assert 9 <= len(reports) <= 11
    assert reports[0].fraction == 0
    gaps = [later.at - earlier.at for earlier, later in pairwise(reports)]
    assert min(gaps) >= PROGRESS_INTERVAL_MS
    assert scene.facts(task_id)[-1] is Completed


@pytest.mark.parametrize(
    ("fraction", "message", "expected"),
    [
        (1.7, "too much", (1.0, "too much")),
        (-3.0, "too little", (0.0, "too little")),
        (float("nan"), "nonsense", (0.0, "nonsense")),
        (0.5, "x" * 10_000, (0.5, "x" * MAX_MESSAGE_CHARS)),
        (0.5, "a lone surrogate: \ud800", (0.5, "a lone surrogate: ?")),
    ],
)
async def test_a_report_is_made_to_fit(
    autojump_clock: MockClock, scene: Scene, fraction: float, message: str, expected: tuple[float, str]
) -> None:
    """What an executor says too much of neither fails its task nor reaches those who watch."""
    scene.executor.then((Report(fraction, message), Return("done")))
    task_id = scene.submit()
    assert (await scene.node.wait(task_id)).status is TaskStatus.COMPLETE
    (report,) = [change.fact for change in scene.told if isinstance(change.fact, Progressed)]
    assert (report.fraction, report.message) == expected


async def test_nothing_is_reported_after_the_end(autojump_clock: MockClock, hub: MemoryHub) -> None:
    """An execution that kept its handle says what it likes: the record stays as it is."""
    kept: list[Execution] = []

    async def keep(execution: Execution) -> Output:
        kept.append(execution)
        return Output("done")

    node = MemoryNode(hub, "node", [Careless(keep)])
    async with node.running():
        record = await node.run(to=node, kind="careless")
        kept[0].progress(0.5, "still here")
        kept[0].started()
        assert node.manager.get_task(record.id) == record
