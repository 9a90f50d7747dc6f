"""What a demo comes to, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from node.cli.demo.workload import ENDED, Job, JobState
from protocol import TaskId

# The rate that people see is that of the last moment, not of the whole demo.
RATE_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How a demo ended; its fields are the last line of ``peertask demo --json``.

    Attributes:
        nodes: how many there were.
        tasks: how many were to be done.
        complete: how many have a result.
        failed: how many ended without one.
        lost: how many never ended.
        duplicates: how many results were recorded beyond the first of each task.
        tasks_per_s: complete tasks a second, from the first that was asked for to the last that ended.
        p50_ms: half of the tasks took at most so long, from being asked for to their result.
        p99_ms: 99 of 100 tasks did.
        wall_s: from the first task that was asked for to the last that ended, in seconds.
    """

    nodes: int
    tasks: int
    complete: int
    failed: int
    lost: int
    duplicates: int
    tasks_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    wall_s: float

    @property
    def nothing_lost(self) -> bool:
        """Whether every task has exactly one result."""
        return self.complete == self.tasks and not self.duplicates

    def to_dict(self) -> dict[str, object]:
        """Return the JSON shape."""
        return asdict(self)


class Census:
    """How the tasks of a demo stand at one moment, counted in one pass.

    Attributes:
        states: how many tasks stand where.
        asked: how many tasks each node asks for, by its index.
        ended: how many of them have ended.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.states: Counter[JobState] = Counter()
        self.asked: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self._held: Counter[tuple[str | None, JobState]] = Counter()
        for job in jobs:
            self.states[job.state] += 1
            self.asked[job.requester] += 1
            self.ended[job.requester] += job.state in ENDED
            self._held[job.holder, job.state] += 1

    def held_by(self, peer_id: str, state: JobState) -> int:
        """Return how many tasks that a peer does, or did, stand somewhere."""
        return self._held[peer_id, state]


class Recorded:
    """Counts how often a result was recorded, by node and task: once, if peertask keeps its promise."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, TaskId]] = Counter()

    def add(self, node: int, task_id: TaskId) -> None:
        """Take note that a node has recorded a result of a task."""
        self._counts[node, task_id] += 1

    @property
    def duplicates(self) -> int:
        """How many results were recorded beyond the first."""
        return sum(count - 1 for count in self._counts.values())


class Rate:
    """How many tasks end a second, over the last moment."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        """Take note of an end."""
        self._times.append(now)

    def per_second(self, now: float) -> float:
        """Return the rate at a moment."""
        while self._times and self._times[0] < now - RATE_WINDOW_S:
            self._times.popleft()
        return len(self._times) / RATE_WINDOW_S


def summarise(jobs: Sequence[Job], *, nodes: int, duplicates: int, wall_s: float) -> Summary:
    """Add up how the tasks of a demo ended."""
    states = Counter(job.state for job in jobs)
    complete, failed = states[JobState.COMPLETE], states[JobState.FAILED]
    took = latencies(jobs)
    return Summary(
        nodes=nodes,
        tasks=len(jobs),
        complete=complete,
        failed=failed,
        lost=len(jobs) - complete - failed,
        duplicates=duplicates,
        tasks_per_s=round(complete / wall_s, 1) if wall_s else 0.0,
        p50_ms=percentile(took, 0.50),
        p99_ms=percentile(took, 0.99),
        wall_s=round(wall_s, 3),
    )


def latencies(jobs: Iterable[Job]) -> list[float]:
    """Return how long the complete tasks took, in milliseconds, the quickest first."""
    return sorted(job.latency_ms for job in jobs if job.latency_ms is not None)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value that a share of the ordered values does not exceed; None when there are none."""
    if not ordered:
        return None
    return round(float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]), 1)
