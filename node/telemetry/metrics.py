"""Metrics for Prometheus, counted from the facts of the feed.

A busy node publishes some hundred thousand facts a second, and prometheus_client's counters take a lock for each, so
facts are counted in plain dictionaries on the event loop, and turned into metrics when somebody asks. The registry is
the node's
own: libp2p fills the global one, and a program may run several nodes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from node.interfaces import Change
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Progressed,
    Released,
    Started,
    Submitted,
)

PREFIX: Final = "peertask_"
# From a no-op on loopback to half an hour; what takes longer is "more".
DURATION_BUCKETS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0)
# So many durations are put into buckets at once; they take eight kilobytes until then, for each kind of task.
SORTED_AT_ONCE: Final = 256
# Requesters choose the kinds of their tasks, and each makes a time series at the scraper for good.
MAX_KIND_LABELS: Final = 64
OTHER_KINDS: Final = "other"

_FACT_LABELS: Final[dict[type[Fact], str]] = {
    Submitted: "submitted",
    Claimed: "claimed",
    Started: "started",
    Progressed: "progressed",
    Completed: "completed",
    Failed: "failed",
    Released: "released",
    CancelRequested: "cancel_requested",
    Cancelled: "cancelled",
}

Reading = Callable[[], float]
LabelledReading = Callable[[], Mapping[str, float]]


class NodeMetrics:
    """Counts what happens to tasks, and reads everything else when asked. For one event loop; not for threads."""

    def __init__(self) -> None:
        self._facts: dict[type[Fact], int] = dict.fromkeys(_FACT_LABELS, 0)
        self._failures: dict[ErrorCode, int] = {}
        self._releases: dict[ErrorCode, int] = {}
        self._durations: dict[str, Durations] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collected(self._collect))
        ProcessCollector(registry=self._registry)

    def observe(self, change: Change) -> None:
        """Count a change; made to be a listener of the feed."""
        fact = change.fact
        kind = type(fact)
        self._facts[kind] += 1
        if kind is Completed:
            self._durations_of(change.record.task.kind).add(fact.result.duration_ms / 1000)  # type: ignore[union-attr]
        elif kind is Failed:
            _count(self._failures, fact.failure.code)  # type: ignore[union-attr]
        elif kind is Released:
            _count(self._releases, fact.reason)  # type: ignore[union-attr]

    def gauge(self, name: str, meaning: str, read: Reading | LabelledReading, label: str | None = None) -> None:
        """Add a value that goes up and down, read when metrics are asked for.

        Args:
            name: what follows ``peertask_``.
            meaning: one sentence for people.
            read: returns the value, or with `label` a value for each of its values; quick, and does not raise.
            label: what the keys of a labelled reading are.
        """
        self._sample(GaugeMetricFamily, name, meaning, read, label)

    def counter(self, name: str, meaning: str, read: Reading | LabelledReading, label: str | None = None) -> None:
        """Add a value that only grows, counted elsewhere; as `gauge`, but ``_total`` is appended to its name."""
        self._sample(CounterMetricFamily, name, meaning, read, label)

    def histogram(self, name: str, meaning: str, durations: Durations) -> None:
        """Add durations that are counted elsewhere; as `gauge`."""

        def collect() -> Iterator[Metric]:
            metric = HistogramMetricFamily(PREFIX + name, meaning)
            metric.add_metric([], durations.buckets(), durations.sum_s)
            yield metric

        self._registry.register(_Collected(collect))

    def text(self) -> str:
        """Return all metrics in the text format of Prometheus, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def _sample(
        self,
        family: type[GaugeMetricFamily | CounterMetricFamily],
        name: str,
        meaning: str,
        read: Reading | LabelledReading,
        label: str | None,
    ) -> None:
        def collect() -> Iterator[Metric]:
            metric = family(PREFIX + name, meaning, labels=[label] if label else None)
            value = read()
            for key, one in value.items() if isinstance(value, Mapping) else [(None, value)]:
                metric.add_metric([] if key is None else [key], one)
            yield metric

        self._registry.register(_Collected(collect))

    def _durations_of(self, kind: str) -> Durations:
        found = self._durations.get(kind)
        if found is None:
            label = kind if len(self._durations) < MAX_KIND_LABELS else OTHER_KINDS
            found = self._durations.setdefault(label, Durations())
        return found

    def _collect(self) -> Iterator[Metric]:
        facts = {_FACT_LABELS[kind]: count for kind, count in self._facts.items()}
        yield _counts("task_facts", "What happened to tasks.", "fact", facts)
        yield _counts("task_failures", "Tasks that failed, by the code of the failure.", "code", self._failures)
        yield _counts("task_releases", "Attempts that were given up or lost, by reason.", "reason", self._releases)
        durations = HistogramMetricFamily(
            f"{PREFIX}execution_seconds", "How long executions that completed took, in seconds.", labels=["kind"]
        )
        for kind, seen in self._durations.items():
            durations.add_metric([kind], seen.buckets(), seen.sum_s)
        yield durations


class Durations:
    """A histogram of durations, without a lock.

    Args:
        bounds_s: the upper bounds of its buckets, in seconds, rising.
    """

    __slots__ = ("_bounds_s", "_counts", "_recent", "_sum_s")

    def __init__(self, bounds_s: Sequence[float] = DURATION_BUCKETS_S) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._recent: list[float] = []
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        recent = self._recent
        recent.append(seconds)
        if len(recent) >= SORTED_AT_ONCE:
            self._sort()

    def extend(self, seconds: Iterable[float]) -> None:
        """Count several durations."""
        self._recent.extend(seconds)
        if len(self._recent) >= SORTED_AT_ONCE:
            self._sort()

    @property
    def sum_s(self) -> float:
        """All durations together, in seconds."""
        self._sort()
        return self._sum_s

    def buckets(self) -> list[tuple[str, float]]:
        """Return the bounds, and how many durations were not above each."""
        self._sort()
        bounds = [*map(str, self._bounds_s), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self._counts), strict=True)]

    def _sort(self) -> None:
        """Put what has come in since into the buckets: together it takes a quarter of what it would one by one."""
        recent = sorted(self._recent)
        self._recent.clear()
        self._sum_s += sum(recent)
        below = 0
        for number, bound in enumerate((*self._bounds_s, inf)):
            up_to = bisect_right(recent, bound)
            self._counts[number] += up_to - below
            below = up_to


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect_now = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect_now()


def _count(counts: dict[ErrorCode, int], code: ErrorCode) -> None:
    counts[code] = counts.get(code, 0) + 1


_Counts = Mapping[str, int] | Mapping[ErrorCode, int]


def _counts(name: str, meaning: str, label: str, counts: _Counts) -> CounterMetricFamily:
    metric = CounterMetricFamily(PREFIX + name, meaning, labels=[label])
    for value, count in counts.items():
        metric.add_metric([value], count)
    return metric
