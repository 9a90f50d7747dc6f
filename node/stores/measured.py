"""Any store, with how long saving and loading take, and a span for each where a program traces."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar

from opentelemetry import trace

from node.interfaces import Change, Committed, Refused, Store
from node.telemetry import LOAD_SPAN, SAVE_SPAN, TASK_ID, TASK_STATE, Durations, NodeMetrics, store_tracer
from protocol import Fact, PeertaskError, TaskId, TaskRecord

# From memory, which takes microseconds, over a disk or a server, which take milliseconds, to one that was away.
SAVE_BUCKETS_S: Final = (0.00001, 0.0001, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0)


_Entry = TypeVar("_Entry")


class MeasuredStore(Store):
    """Another store, measured.

    Without a tracer a change costs less than a microsecond more than with the other store alone.

    Args:
        inner: keeps everything.
        tracer: makes the spans; by default that of the program's tracer provider, when there is one.
        timer: seconds of any origin.

    Attributes:
        saves: how long each change took from `append` until it was committed.
        loads: how long each record took to be loaded.
    """

    def __init__(
        self, inner: Store, tracer: trace.Tracer | None = None, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self.saves = Durations(SAVE_BUCKETS_S)
        self.loads = Durations(SAVE_BUCKETS_S)
        self._inner = inner
        self._tracer = tracer or store_tracer()
        self._timer = timer
        self._begun: dict[TaskId, list[float]] = {}  # when each change of a task was appended that is not committed
        self._spans: dict[TaskId, list[trace.Span]] = {}  # of the same changes, when there is a tracer
        self._commits = 0
        self._committed: Committed = _ignore
        self._refused: Refused = _ignore
        inner.on_refused(self._refuse)

    def show(self, metrics: NodeMetrics, *, hits: Callable[[], float], misses: Callable[[], float]) -> None:
        """Add what is measured to the metrics of a node.

        Args:
            metrics: of the node.
            hits: how often a task that somebody asked for was in the map of the node.
            misses: how often it was not.
        """
        metrics.histogram("task_save_duration", "How long saving a change took, in seconds.", self.saves)
        metrics.histogram("task_load_duration", "How long loading a record took, in seconds.", self.loads)
        metrics.counter("task_cache_hits", "Tasks asked for that the node had in memory.", hits)
        metrics.counter("task_cache_misses", "Tasks asked for that the node had not in memory.", misses)

    @property
    def failure(self) -> PeertaskError | None:
        """Why the other store cannot save at the moment."""
        return self._inner.failure

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Keep the other store open for the length of the context."""
        self._committed = committed
        try:
            async with self._inner.running(self._commit):
                yield
        finally:
            self._abandon()

    def append(self, changes: Sequence[Change]) -> None:
        """Hand changes to the other store, and note when."""
        self._append(changes, self._inner.append)

    def append_new(self, changes: Sequence[Change]) -> None:
        """Hand new tasks to the other store, and note when."""
        self._append(changes, self._inner.append_new)

    def _append(self, changes: Sequence[Change], append: Callable[[Sequence[Change]], None]) -> None:
        now = self._timer()
        for change in changes:
            task_id = change.record.id
            begun = self._begun.get(task_id)
            if begun is None:
                self._begun[task_id] = [now]
            else:
                begun.append(now)
            if self._tracer is not None:
                self._spans.setdefault(task_id, []).append(self._start_span(self._tracer, change))
        commits = self._commits
        try:
            append(changes)
        except BaseException:
            if self._commits == commits:  # else it is committed, and whoever was told of it has failed
                self._take_back(changes)
            raise

    def _start_span(self, tracer: trace.Tracer, change: Change) -> trace.Span:
        record = change.record
        attributes = {TASK_ID: record.id, TASK_STATE: record.status.value}
        return tracer.start_span(SAVE_SPAN, kind=trace.SpanKind.CLIENT, attributes=attributes)

    def _take_back(self, changes: Sequence[Change]) -> None:
        """Count nothing of changes that were not taken in."""
        for change in changes:
            task_id = change.record.id
            _take(self._begun, task_id, -1)
            if self._tracer is not None:
                _take(self._spans, task_id, -1).end()

    def _commit(self, changes: Sequence[Change]) -> None:
        self._commits += 1
        now, begun = self._timer(), self._begun
        self.saves.extend([now - _take(begun, change.record.id, 0) for change in changes])
        if self._tracer is not None:
            for change in changes:
                _take(self._spans, change.record.id, 0).end()
        self._committed(changes)

    def on_refused(self, listener: Refused) -> None:
        """Tell of what the other store finds out late that it will not save."""
        self._refused = listener

    def _refuse(self, changes: Sequence[Change], error: PeertaskError) -> None:
        """Count nothing of a task that is given up, and pass it on."""
        task_id = changes[0].record.id
        self._begun.pop(task_id, None)
        for span in self._spans.pop(task_id, ()):
            span.end()
        self._refused(changes, error)

    def _abandon(self) -> None:
        """End what was not saved when the store was closed."""
        self._committed = _ignore
        self._begun.clear()
        for spans in self._spans.values():
            for span in spans:
                span.end()
        self._spans.clear()

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record of the other store, and count how long each took."""
        async with aclosing(self._inner.load()) as records:
            while True:
                began, at_ns = self._timer(), time.time_ns()
                try:
                    record = await anext(records)
                except StopAsyncIteration:
                    return
                self.loads.add(self._timer() - began)
                if self._tracer is not None:
                    attributes = {TASK_ID: record.id, TASK_STATE: record.status.value}
                    self._tracer.start_span(
                        LOAD_SPAN, kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=at_ns
                    ).end()
                yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the facts that the other store keeps of a task."""
        async with aclosing(self._inner.facts(task_id, after_seq)) as facts:
            async for fact in facts:
                yield fact

    def hurry(self) -> None:
        """Let the other store save what waits."""
        self._inner.hurry()

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Let the other store drop these tasks."""
        self._inner.forget(task_ids)


def _take(lists: dict[TaskId, list[_Entry]], task_id: TaskId, index: int) -> _Entry:
    entries = lists[task_id]
    entry = entries.pop(index)
    if not entries:
        del lists[task_id]
    return entry


def _ignore(_changes: Sequence[Change], _error: PeertaskError | None = None) -> None:
    """Stand for the node that does not run."""
