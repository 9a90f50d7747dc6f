"""The figures of the benchmark and what they must reach, and that its sections run; no test here looks at a time."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence

import pytest

from node.bench import coordination
from node.bench.figures import (
    Bound,
    Figure,
    at_least,
    at_least_of_floor,
    at_most,
    at_most_of_floor,
    percentile,
)
from node.bench.records import stored_records
from node.bench.run import figures
from node.bench.sections import SECTIONS
from protocol import ErrorCode, PeertaskError, TaskStatus

# Two processes start, and each section measures for a few hundredths of a second.
TINY_S = 0.05


def figure(value: float, *bounds: Bound, floor: float | None = None) -> Figure:
    """Return a figure of which only the value, the floor and the bounds matter."""
    return Figure("section", "name", value, "ms", floor, bounds)


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """Undo what the benchmark does to the garbage collector of its process."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.parametrize(
    ("bounds", "value", "floor", "reached"),
    [
        ((at_most(10),), 10.0, None, True),
        ((at_most(10),), 10.1, None, False),
        ((at_least(10),), 10.0, None, True),
        ((at_least(10),), 9.9, None, False),
        ((at_most_of_floor(1.5),), 15.0, 10.0, True),
        ((at_most_of_floor(1.5),), 15.1, 10.0, False),
        ((at_least_of_floor(0.5),), 5.0, 10.0, True),
        ((at_least_of_floor(0.5),), 4.9, 10.0, False),
        ((at_least(10), at_least_of_floor(0.5)), 10.0, 30.0, False),
        ((), 1.0, None, True),
    ],
)
def test_a_figure_is_reached_when_every_bound_holds(
    bounds: Sequence[Bound], value: float, floor: float | None, *, reached: bool
) -> None:
    """A bound is inclusive, counts the value or its ratio to the floor, and all of them must hold."""
    assert figure(value, *bounds, floor=floor).reached is reached


@pytest.mark.parametrize("floor", [None, 0.0])
def test_a_bound_on_the_ratio_is_missed_without_a_floor(floor: float | None) -> None:
    """What was not compared with anything must not pass for reached."""
    measured = figure(1.0, at_most_of_floor(2), floor=floor)
    assert measured.ratio is None
    assert not measured.reached


def test_a_figure_has_a_json_shape_with_its_verdict() -> None:
    """A program reads the ratio, the bounds in words and the verdict beside what was measured."""
    shape = json.loads(json.dumps(figure(3.0, at_most_of_floor(2), at_least(1), floor=2.0).to_dict()))
    assert shape == {
        "section": "section",
        "name": "name",
        "value": 3.0,
        "unit": "ms",
        "floor": 2.0,
        "bounds": ["≤ 2 × floor", "≥ 1"],
        "ratio": 1.5,
        "reached": True,
    }


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_samples(share: float, expected: int) -> None:
    """The order of the samples plays no part, and the largest share gives the largest sample."""
    assert percentile(range(100, 0, -1), share) == expected


async def test_the_store_of_the_benchmark_holds_finished_tasks_of_different_texts() -> None:
    """A million equal texts would be one object, and would show nothing of what records cost."""
    store = await stored_records(3)
    records = [record async for record in store.load()]
    assert [record.status for record in records] == [TaskStatus.COMPLETE] * 3
    assert len({record.result.result for record in records if record.result is not None}) == 3


async def test_an_unknown_section_is_refused_before_anything_is_measured() -> None:
    """The error names what there is."""
    with pytest.raises(PeertaskError, match="nonsense") as caught:
        await anext(figures(["calls", "nonsense"], TINY_S))
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert all(name in str(caught.value) for name in SECTIONS)


@pytest.mark.parametrize("section", ["latency", "throughput", "calls", "costs", "coordination"])
async def test_a_section_measures_between_two_processes(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure of a section has a positive value and, where its bound needs one, a floor of the same run."""
    # covers CORE-33, CORE-35
    monkeypatch.setattr(coordination, "PENDING_TASKS", 200)
    monkeypatch.setattr(coordination, "GRAPH_TASKS", 20)
    measured = [found async for found in figures([section], TINY_S)]
    assert measured
    for found in measured:
        assert found.section == section
        assert found.value > 0
        assert found.floor is None or found.floor > 0
