"""A measured store: durations, spans and lookups of any store."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from prometheus_client.parser import text_string_to_metric_families

from node.feed import Feed
from node.interfaces import Change
from node.manager import TaskManager
from node.stores.measured import MeasuredStore
from node.stores.memory import MemoryStore
from node.telemetry import NodeMetrics
from node.testing import TEST_PEER, FakeClock, HeldStore, check_store
from protocol import ErrorCode, PeertaskError, TaskNotFound, new_task_id
from tests.node.stores.histories import Commits, facts_of, life, loaded

# Two looks at the clock, a line of those that wait, a histogram's bucket and what leads to them: 0.8 microseconds on a
# quiet machine.
MOST_CALLS_A_CHANGE = 14


class SeenSpan(trace.NonRecordingSpan):
    """Remembers what it was told."""

    def __init__(self, name: str, attributes: dict[str, object]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.name = name
        self.attributes = attributes
        self.ends = 0

    def end(self, end_time: int | None = None) -> None:  # noqa: ARG002 - as the API has it
        """Count the ends: more than one is a mistake."""
        self.ends += 1


class SeenTracer(trace.NoOpTracer):
    """Makes spans that a test can look at."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []

    def start_span(self, name: str, *_args: object, **options: object) -> trace.Span:
        """Make a span."""
        attributes = options.get("attributes")
        assert isinstance(attributes, dict)
        self.spans.append(SeenSpan(name, attributes))
        return self.spans[-1]

    @property
    def seen(self) -> list[tuple[object, ...]]:
        """What each span says, and how often it has ended."""
        return [(span.name, *span.attributes.values(), span.ends) for span in self.spans]


class Timer:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def samples(metrics: NodeMetrics) -> dict[str, float]:
    """Return the value of each metric; of histograms the count and the sum."""
    families = text_string_to_metric_families(metrics.text())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


async def test_a_measured_store_keeps_the_contract_of_stores() -> None:
    """Whatever a store promises it promises measured too, also one that commits later."""
    await check_store(lambda: MeasuredStore(MemoryStore()))
    await check_store(lambda: MeasuredStore(HeldStore(), SeenTracer()))


async def test_saves_are_timed_from_append_to_commit() -> None:
    """The time in line counts: it is what a requester waits for."""
    # covers REDIS-26
    held, timer, metrics = HeldStore(), Timer(), NodeMetrics()
    store = MeasuredStore(held, timer=timer)
    store.show(metrics, hits=lambda: 0, misses=lambda: 0)
    history = life()
    async with store.running(Commits()):
        held.hold()
        store.append(history[:2])
        timer.now += 2.0
        store.append(history[2:])
        held.commit()
        timer.now += 1.0
        held.release()
    seen = samples(metrics)
    assert seen["peertask_task_save_duration_count"] == 4
    assert seen["peertask_task_save_duration_sum"] == pytest.approx(2.0 + 3.0 + 1.0 + 1.0)


async def test_changes_that_are_committed_together_are_timed_one_by_one() -> None:
    """A store that saves in groups may commit several appends at once, each with its own time in line."""

    # covers REDIS-26
    class Grouped(MemoryStore):
        """Commits two appends at once."""

        def append(self, changes: Sequence[Change]) -> None:
            waiting.extend(changes)
            if len(waiting) == 4:
                super().append(waiting)

    timer, waiting = Timer(), list[Change]()
    store, history = MeasuredStore(Grouped(), timer=timer), life()
    async with store.running(commits := Commits()):
        store.append(history[:3])
        timer.now += 2.0
        store.append(history[3:])
        timer.now += 1.0
    assert commits.changes == history
    assert store.saves.sum_s == pytest.approx(3 * 2.0)
    assert store.saves.buckets()[-1][1] == 4


async def test_loads_are_timed() -> None:
    """Each record that is loaded counts, and how long it took."""
    # covers REDIS-26
    inner, metrics = MemoryStore(), NodeMetrics()
    store = MeasuredStore(inner)
    store.show(metrics, hits=lambda: 0, misses=lambda: 0)
    async with store.running(Commits()):
        for _ in range(3):
            store.append(life())
        assert len(await loaded(store)) == 3
    assert samples(metrics)["peertask_task_load_duration_count"] == 3


async def test_every_save_and_load_is_a_span_where_a_program_traces() -> None:
    """The names and attributes are those that dashboards know."""
    # covers REDIS-24, REDIS-25
    tracer, held = SeenTracer(), HeldStore()
    store = MeasuredStore(held, tracer)
    history = life()
    task_id = history[0].record.id
    async with store.running(Commits()):
        held.hold()
        store.append(history[:1])
        store.append(history[1:3])
        assert tracer.seen[0] == ("TaskManager.SaveTask", task_id, "pending", 0)
        held.commit()
        assert [ends for *_, ends in tracer.seen] == [1, 0, 0]
        held.release()
        assert [record.id async for record in store.load()] == [task_id]
    assert tracer.seen == [
        ("TaskManager.SaveTask", task_id, "pending", 1),
        ("TaskManager.SaveTask", task_id, "claimed", 1),
        ("TaskManager.SaveTask", task_id, "executing", 1),
        ("TaskManager.LoadTask", task_id, "executing", 1),
    ]
    assert list(tracer.spans[0].attributes) == ["task.id", "task.state"]


async def test_what_is_refused_or_lost_is_not_counted_and_its_spans_end() -> None:
    """Neither a conflict nor a crash leaves the next changes with the times of others."""
    tracer, held, timer = SeenTracer(), HeldStore(), Timer()
    store = MeasuredStore(held, tracer, timer)
    history = life()
    async with store.running(Commits()):
        with pytest.raises(PeertaskError):
            store.append(history[1:3])
        store.append(history[:1])
        held.hold()
        store.append(history[1:2])
        held.lose()
    assert [ends for *_, ends in tracer.seen] == [1, 1, 1, 1]
    assert store.saves.buckets()[-1][1] == 1


async def test_what_a_store_gives_up_later_does_not_shift_the_times_of_others() -> None:
    """The times and spans of the other tasks stay theirs, and whoever listens is told."""
    tracer, held, timer = SeenTracer(), HeldStore(), Timer()
    store = MeasuredStore(held, tracer, timer)
    refused: list[Change] = []
    store.on_refused(lambda changes, _error: refused.extend(changes))
    given_up, kept = life(), life()
    async with store.running(Commits()):
        held.hold()
        store.append(given_up[:2])
        timer.now += 2.0
        store.append(kept[:2])
        store.append(given_up[2:])
        others = [change for change in held.held if change.record.id == kept[0].record.id]
        for change in others:
            held.held.remove(change)
        held.refuse(PeertaskError("another process has changed the task", code=ErrorCode.CONFLICT))
        assert [ends for *_, ends in tracer.seen] == [1, 1, 0, 0, 1, 1]
        held.held.extend(others)
        timer.now += 1.0
        held.release()
    assert refused == given_up
    assert [ends for *_, ends in tracer.seen] == [1] * 6
    metrics = NodeMetrics()
    store.show(metrics, hits=lambda: 0, misses=lambda: 0)
    seen = samples(metrics)
    assert (seen["peertask_task_save_duration_count"], seen["peertask_task_save_duration_sum"]) == (2, 2.0)


async def test_failures_facts_and_forgetting_are_the_other_stores() -> None:
    """The decorator adds nothing of its own."""
    store, history = MeasuredStore(MemoryStore()), life()[:3]
    async with store.running(Commits()):
        store.append(history)
        assert store.failure is None
        assert await facts_of(store, history[0].record.id, 1) == [change.fact for change in history[1:]]
        store.forget([history[0].record.id])
        assert await loaded(store) == []


async def test_lookups_that_the_map_answers_are_hits() -> None:
    """The map of a node begins with everything that its store holds, so what it lacks is a miss."""
    # covers REDIS-27
    metrics, store = NodeMetrics(), MeasuredStore(MemoryStore())
    manager = TaskManager(store, FakeClock(), Feed(), own_id=TEST_PEER)
    store.show(metrics, hits=lambda: manager.lookup_hits, misses=lambda: manager.lookup_misses)
    async with manager.running():
        task = manager.create_task("p")
        assert manager.find_task(task.id) is not None
        manager.get_task(task.id)
        assert manager.find_task(new_task_id()) is None
        with pytest.raises(TaskNotFound):
            manager.get_task(new_task_id())
        manager.find_task(new_task_id())
    seen = samples(metrics)
    assert seen["peertask_task_cache_hits_total"] == 2
    assert seen["peertask_task_cache_misses_total"] == 3


async def test_measuring_costs_a_few_calls_a_change() -> None:
    """A node that nobody traces pays less than a microsecond a change; calls are counted, as time is shared."""
    # covers REDIS-26
    histories = [life() for _ in range(100)]

    async def calls_a_change(store: MemoryStore | MeasuredStore) -> float:
        async with store.running(lambda _changes: None):
            with counted_calls() as calls:
                for history in histories:
                    for change in history:
                        store.append((change,))
        return next(calls) / sum(map(len, histories))

    plain = await calls_a_change(MemoryStore())
    measured = await calls_a_change(MeasuredStore(MemoryStore()))
    assert measured - plain <= MOST_CALLS_A_CHANGE


@contextmanager
def counted_calls() -> Iterator[Iterator[int]]:
    """Count the functions that are called within the context, Python's own included; the first number is how many."""
    calls = itertools.count()

    def count(_frame: object, event: str, _function: object) -> None:
        if event in {"call", "c_call"}:
            next(calls)

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
