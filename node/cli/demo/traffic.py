"""Has the tasks of a demo done, by asking its nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from node.background import open_background
from node.cli.demo.chaos import Chaos
from node.cli.demo.fleet import Fleet, Member
from node.cli.demo.tally import Rate, Recorded
from node.cli.demo.workload import ENDED, Job, JobState, Workload
from node.gateways.http.response_models import EventView, TaskView
from protocol import ErrorCode, PeertaskError, TaskId, TaskStatus, new_task_id

# A task of the demo takes half a second; one that takes a hundred times as long will never end.
STALL_S = 60.0
_STATES = {
    TaskStatus.PENDING: JobState.PENDING,
    TaskStatus.CLAIMED: JobState.PENDING,
    TaskStatus.EXECUTING: JobState.EXECUTING,
}


class Traffic:
    """The tasks of a demo on their way between its nodes.

    Args:
        fleet: the nodes, connected to each other.
        workload: which tasks there are.
        in_flight: how many tasks each node has asked for at a time.

    Attributes:
        recorded: counts the results that nodes have recorded.
        rate: of tasks that end.
        begun_at: when the first task was asked for, in seconds of trio's clock.
        ended_at: when the last one ended so far.
        recent: the tasks that ended last, the newest first.
        orphans: tasks that a killed node had asked for, and that others asked for again.
    """

    def __init__(self, fleet: Fleet, workload: Workload, in_flight: int) -> None:
        self.recorded = Recorded()
        self.rate = Rate()
        self.begun_at = trio.current_time()
        self.ended_at = self.begun_at
        self.recent: list[Job] = []
        self.orphans: list[Job] = []
        self._fleet = fleet
        self._workload = workload
        self._in_flight = in_flight
        self._news = trio.Event()
        self._patience = trio.CancelScope()

    async def run(self, *, kill_at: int | None = None, chaos: Chaos | None = None) -> None:
        """Have every task done; returns when all have ended, or when none has for a minute.

        Args:
            kill_at: kill a node when so many tasks have ended; None to kill none.
            chaos: disturbs the nodes meanwhile, which have their tasks as a graph then; None for nobody.
        """
        self.begun_at = self.ended_at = trio.current_time()
        self._patience.deadline = self.begun_at + STALL_S
        with self._patience:
            async with open_background() as nursery:
                for member in self._fleet.running:
                    await nursery.start(self._watch, member)
                if chaos is None:
                    self._start_asking(nursery, self._ask_one_by_one, self._in_flight)
                else:
                    self._start_asking(nursery, self._ask_for_graphs, 1)
                    nursery.start_soon(chaos.run)
                if kill_at is not None:
                    await self._until(lambda: self._workload.done >= kill_at)
                    self._kill_one()
                await self._until(lambda: self._workload.ended)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    def _kill_one(self) -> None:
        victim = self._fleet.running[-1]
        victim.kill()

    # --- asking ------------------------------------------------------------------------------------------------------

    def _start_asking(self, nursery: trio.Nursery, ask: Callable[[Member], Awaitable[None]], at_once: int) -> None:
        for member in self._fleet.running:
            for _ in range(at_once):
                nursery.start_soon(ask, member)

    async def _ask_one_by_one(self, member: Member) -> None:
        while member.is_alive:
            job = self._workload.take(member.index)
            if job is None:
                await self._news.wait()
            else:
                await self._unless_gone(member, self._have_done(member, job))

    async def _ask_for_graphs(self, member: Member) -> None:
        """Ask for all that a node has to ask for at once; what it inherits from others comes as another graph."""
        while member.is_alive:
            jobs = list(iter(lambda: self._workload.take(member.index), None))
            if not jobs:
                await self._news.wait()
            else:
                await self._unless_gone(member, self._have_graph_done(member, jobs))

    async def _unless_gone(self, member: Member, asking: Awaitable[None]) -> None:
        try:
            await asking
        except (PeertaskError, ExceptionGroup) as error:
            if not _is_of_a_node_that_is_gone(error) or not await member.is_gone():
                raise
            self._bury(member)

    async def _have_done(self, member: Member, job: Job) -> None:
        task = self._task_of(job)
        await member.client.submit(str(task.pop("prompt")), **task)
        self._end(job, await member.client.finish(TaskId(str(task["id"]))))

    async def _have_graph_done(self, member: Member, jobs: list[Job]) -> None:
        """Have each job wait for two of those that are so many places before it as a node has in flight otherwise."""
        tasks = [self._task_of(job) for job in jobs]
        for place in range(self._in_flight, len(tasks)):
            before = place - self._in_flight
            tasks[place]["depends_on"] = [tasks[before]["id"], tasks[before + 1]["id"]]
        await member.client.submit_graph(tasks)
        async with trio.open_nursery() as nursery:
            for job, task in zip(jobs, tasks, strict=True):
                nursery.start_soon(self._finish, member, job, TaskId(str(task["id"])))

    async def _finish(self, member: Member, job: Job, task_id: TaskId) -> None:
        self._end(job, await member.client.finish(task_id))

    def _task_of(self, job: Job) -> dict[str, Any]:
        """Return what to ask for, under an id that is drawn now."""
        task_id = new_task_id()
        self._workload.asked(job, task_id, trio.current_time())
        worker = self._fleet.members[job.worker]
        return {
            "prompt": f"task {job.number}",
            "to": worker.peer_id,
            "id": task_id,
            "retry": {"elsewhere": True},
            "kind": "mock",
        }

    def _end(self, job: Job, task: TaskView) -> None:
        if job.state in ENDED:  # the answer of a node that was killed in this moment, to what another was asked again
            return
        now = trio.current_time()
        self._workload.end(job, complete=task.status is TaskStatus.COMPLETE)
        job.holder = task.holder
        job.moved = job.asked > 1 or task.attempt > 1
        if job.state is JobState.COMPLETE:
            since_first = (now - job.asked_at) * 1000
            job.latency_ms = since_first if job.asked > 1 else task.updated_at - task.created_at
        self.ended_at = now
        self._patience.deadline = now + STALL_S
        self.rate.add(now)
        self.recent = [job, *self.recent[:2]]
        self._tell()

    def _bury(self, member: Member) -> None:
        """Give the tasks of a node that is gone to the others."""
        if self._workload.alive == [member.index]:
            raise PeertaskError(f"{member.name}, the last one, is gone: {' / '.join(member.log)}")
        if member.index in self._workload.alive:
            self.orphans += self._workload.remove_node(member.index)
            self._tell()

    # --- watching ----------------------------------------------------------------------------------------------------

    async def _watch(self, member: Member, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow what a node says about tasks, while it is there."""
        try:
            async with member.client.watch_all() as items:
                task_status.started()
                async for item in items:
                    if isinstance(item, EventView):
                        self._note(member, item)
        except PeertaskError as error:
            if error.code is not ErrorCode.NODE_UNAVAILABLE:
                raise

    def _note(self, member: Member, event: EventView) -> None:
        if event.fact == "Completed":
            self.recorded.add(member.index, event.task_id)
        job = self._workload.find(event.task_id)
        if job is None or job.requester != member.index or job.task_id != event.task_id:
            return
        state = _STATES.get(event.status)
        if state is not None and job.state in _STATES.values():
            job.state = state
            job.holder = event.holder


def _is_of_a_node_that_is_gone(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(map(_is_of_a_node_that_is_gone, error.exceptions))
    return isinstance(error, PeertaskError) and error.code is ErrorCode.NODE_UNAVAILABLE
