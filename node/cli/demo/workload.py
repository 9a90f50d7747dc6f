"""Which node asks which other node for what: pure bookkeeping of the tasks of a demo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocol import TaskId


class JobState(StrEnum):
    """Where a task of the demo stands; the words of a task's status, and that it has not been asked for yet."""

    WAITING = "waiting"
    PENDING = "pending"
    EXECUTING = "executing"
    COMPLETE = "complete"
    FAILED = "failed"


ENDED: Final = frozenset({JobState.COMPLETE, JobState.FAILED})


@dataclass(slots=True)
class Job:
    """One task of the demo.

    Attributes:
        number: from 1.
        requester: the index of the node that asks for it.
        worker: the index of the node that is asked to do it.
        state: where it stands.
        task_id: of the task, once it has been asked for.
        asked: how often it was asked for; more than once only when its requester was killed.
        asked_at: when it was first asked for, in seconds of the demo's clock.
        latency_ms: how long it took, once it is complete.
        holder: the peer that does it, or did it.
        moved: whether another node than the first did it.
    """

    number: int
    requester: int
    worker: int
    state: JobState = JobState.WAITING
    task_id: TaskId | None = None
    asked: int = 0
    asked_at: float = 0.0
    latency_ms: float | None = None
    holder: str | None = None
    moved: bool = False


class Workload:
    """All tasks of a demo: each node asks each other node for as many as any other.

    Args:
        nodes: how many nodes there are.
        tasks: how many tasks there are.

    Attributes:
        jobs: all tasks, in their order.
        done: how many have ended.
    """

    def __init__(self, nodes: int, tasks: int) -> None:
        self.done = 0
        self.jobs = [_job(number, nodes) for number in range(1, tasks + 1)]
        self._by_id: dict[TaskId, Job] = {}
        self._queues: dict[int, deque[Job]] = {node: deque() for node in range(nodes)}
        for job in self.jobs:
            self._queues[job.requester].append(job)

    @property
    def alive(self) -> list[int]:
        """The nodes that have not been removed."""
        return list(self._queues)

    @property
    def ended(self) -> bool:
        """Whether every task has ended."""
        return self.done == len(self.jobs)

    def take(self, node: int) -> Job | None:
        """Return the next task that a node is to ask for; None when there is none at the moment."""
        queue = self._queues.get(node)
        while queue:
            job = queue.popleft()
            if job.state not in ENDED:
                return job
        return None

    def asked(self, job: Job, task_id: TaskId, now: float) -> None:
        """Note that a task is being asked for, under an id."""
        if not job.asked:
            job.asked_at = now
        job.asked += 1
        job.task_id = task_id
        job.state = JobState.PENDING
        self._by_id[task_id] = job

    def end(self, job: Job, *, complete: bool) -> None:
        """Note that a task has ended; once and for all."""
        if job.state not in ENDED:
            job.state = JobState.COMPLETE if complete else JobState.FAILED
            self.done += 1

    def find(self, task_id: TaskId) -> Job | None:
        """Return the task that was asked for under an id."""
        return self._by_id.get(task_id)

    def remove_node(self, node: int) -> list[Job]:
        """Let the other nodes ask for what a node was to ask for; what they ask of it goes to others too.

        Returns:
            The tasks that it had asked for, and that had not ended.
        """
        unasked = self._queues.pop(node)
        orphans = [job for job in self.jobs if job.requester == node and job.asked and job.state not in ENDED]
        heirs = _in_turn(self.alive)
        for job in (*unasked, *reversed(orphans)):
            job.requester = next(heirs)
            job.state = JobState.WAITING
            if job.asked:  # it has waited longest
                self._queues[job.requester].appendleft(job)
            else:
                self._queues[job.requester].append(job)
        for job in self.jobs:
            if job.state is JobState.WAITING and job.worker in {node, job.requester}:
                job.worker = next((other for other in self.alive if other != job.requester), job.requester)
        return orphans


def _job(number: int, nodes: int) -> Job:
    """Return a task so that the tasks in their order go round all pairs of nodes."""
    turn, requester = divmod(number - 1, nodes)
    distance = 1 + turn % (nodes - 1) if nodes > 1 else 0
    return Job(number, requester, (requester + distance) % nodes)


def _in_turn(nodes: list[int]) -> Iterator[int]:
    while True:
        yield from nodes
