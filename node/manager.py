"""The map of tasks, keyed by UUID, and its single writer. It runs nothing and decides nothing.

A fact is judged and applied at once, and handed to the store; everyone else sees it when the store says that it is
saved. So two facts of one task cannot overtake each other, nobody waits for a disk, and nobody is told what a crash
could undo. With the memory store "saved" is at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import islice
from typing import overload

import structlog
import trio

from node.awaited_tasks import AwaitedTasks
from node.checkpoints import Checkpoint, CheckpointedTasks, CheckpointFolder, Checkpoints, NoCheckpoints
from node.coordination.dead_letters import unretried
from node.coordination.dependencies import Dependencies, check_graph, dependents_first
from node.coordination.families import Families
from node.coordination.quotas import Usage
from node.coordination.repetitions import Repetitions
from node.coordination.restoring import restored_history
from node.feed import Feed
from node.history import retell
from node.interfaces import Change, Clock, GraphTask, Store, TaskFilter
from node.retention import Capacity, FinishedTasks
from node.room import Room
from protocol import (
    Cancelled,
    CancelRequested,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    PeertaskError,
    Submitted,
    Task,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TaskStatus,
    Transition,
    advance,
    begin,
    extract_project_id,
)

log = structlog.get_logger(__name__)

# Some half a second of loading: whoever starts a node on many tasks sees that it gets on.
LOADED_A_LINE = 20_000
# Forgetting so many takes a millisecond.
SWEPT_A_PASS = 256

_Append = Callable[[Sequence[Change]], None]

# The project of a reference ``task-{project}-{uuid}``, under the name that programs with checkpoints know.
_extract_project_id = extract_project_id


class TaskManager(CheckpointedTasks, AwaitedTasks):
    """Keeps what this node knows about tasks.

    Args:
        store: keeps it beyond this process.
        clock: tells the time.
        feed: told of every change, once it is saved.
        own_id: this node, the requester of what `create_task` makes.
        capacity: how much is kept.
        checkpoints: where checkpoints lie; without it the checkpoint functions say that there is no folder.

    Attributes:
        lookup_hits: how often the map had the task that somebody asked for.
        lookup_misses: how often it had not; the store has none then either, for the map begins with all that it holds.
        dependencies: which open tasks depend on which.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        feed: Feed,
        *,
        own_id: PeerId,
        capacity: Capacity | None = None,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.checkpoints = Checkpoints(self, checkpoints or NoCheckpoints())
        self._store = store
        self._clock = clock
        self._feed = feed
        self._own_id = own_id
        capacity = capacity or Capacity()
        self._records: dict[TaskId, TaskRecord | None] = {}  # in the order of coming; None until it is saved
        self._unsaved: dict[TaskId, TaskRecord] = {}
        self.dependencies = Dependencies()
        self._finished = FinishedTasks(capacity, needed=self.dependencies.awaited)
        self._families = Families()
        self._room = Room(capacity.open_tasks, own_id)
        self._settled: trio.Event | None = None
        self._draining = False
        self._appending = False
        self._to_append: deque[Callable[[], None]] = deque()
        self._unsaved_listener: Callable[[TaskRecord, bool], None] | None = None
        self._repetitions = Repetitions(self.dependencies, self._latest)
        self.lookup_hits = 0
        self.lookup_misses = 0
        store.on_refused(self._refused)

    def __repr__(self) -> str:
        return f"<TaskManager open={self._room.open} finished={len(self._finished)}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the store open for the length of the context, and begin with what it holds.

        Raises:
            PeertaskError: code STORE_FAILED, when the store cannot be opened.
        """
        async with self._store.running(self._committed):
            async with aclosing(self._store.load()) as records:
                async for record in records:
                    self._take_back(record)
            self._restore()
            yield

    def _take_back(self, record: TaskRecord) -> None:
        self._records[record.id] = record
        self._families.add(record.task)
        if len(self._records) % LOADED_A_LINE == 0:
            log.info("loading tasks", tasks=len(self._records))

    def _restore(self) -> None:
        records = [record for record in self._records.values() if record is not None]
        finished = [record for record in records if record.terminal]
        for record in records:
            if not record.terminal:
                self._count_open(record)
        for record in records:
            self._repetitions.note(record)
        for record in sorted(finished, key=lambda record: record.updated_at):
            self._finished.add(record)
        self._forget(self._finished.surplus())

    @property
    def draining(self) -> bool:
        """Whether this node is stopping, and takes no new tasks."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._room.let_all_try()

    # --- what gateways ask -------------------------------------------------------------------------------------------

    def submit(
        self, task: Task, *, requester: PeerId, target: PeerId | None, deadline: int | None = None, fresh: bool = False
    ) -> TaskRecord:
        """Take a task in, or return the record of the task that has this UUID already; see `TaskService.submit`."""
        known = self._latest(task.id)
        if known is not None:
            self._room.pass_on()
            return _same(known, task, requester)
        self._check_admission(requester)
        if task.depends_on or task.parent_id is not None:
            self._check_graph((task,), requester)
        fact = Submitted(task, self._clock.now(), requester, target, deadline)
        record = begin(fact)
        self._take_in((record,), (Change(record, fact),), self._store.append)
        if record.id in self._unsaved:
            self._begin_or_hurry(record, fresh)
        return record

    def _begin_or_hurry(self, record: TaskRecord, fresh: bool) -> None:  # noqa: FBT001 - as the listener is called
        """Let a task begin while it is being saved, or have it saved soon: only then it waits for its turn."""
        if self._unsaved_listener is not None:
            self._unsaved_listener(record, fresh)
        if self._unsaved.get(record.id) is record:
            self._store.hurry()

    def submit_graph(self, graph: Sequence[GraphTask], *, requester: PeerId) -> list[TaskRecord]:
        """Take tasks that depend on each other in, all or none; see `TaskService.submit_graph`."""
        known = [self._latest(one.task.id) for one in graph]
        if all(known):
            return [_same(record, one.task, requester) for record, one in zip(known, graph, strict=True) if record]
        if any(known):
            raise _partly_known(sum(record is not None for record in known), len(graph))
        self._check_graph([one.task for one in graph], requester)
        self._check_admission(requester, len(graph))
        now = self._clock.now()
        facts = [Submitted(one.task, now, requester, one.target, one.deadline) for one in graph]
        changes = [Change(begin(fact), fact) for fact in facts]
        records = [change.record for change in changes]
        self._take_in(records, changes, self._store.append_new)
        return records

    def restore(self, checkpoint: Checkpoint) -> TaskRecord:
        """Take a task in with what has happened to it, or return the record of the task that has this UUID already.

        Raises:
            PeertaskError: as `submit` does, and CONFLICT, ILLEGAL_TRANSITION or STALE_ATTEMPT when the facts do not
                follow from each other.
        """
        record = checkpoint.record
        known = self._latest(record.id)
        if known is not None:
            return _same(known, record.task, record.requester)
        if not record.terminal:
            self._check_admission(record.requester)
            self._check_graph((record.task,), record.requester)
        changes = retell(restored_history(*checkpoint, self._own_id, self._clock.now()))
        self._take_in((changes[-1].record,), changes, self._store.append)
        return changes[-1].record

    async def history(self, task_id: TaskId) -> Checkpoint:
        """Return the record of a task as it is saved, and its facts, when the store has kept them all; else none.

        Raises:
            TaskNotFound: the node does not know it.
        """
        record = self.get_task(task_id)
        async with aclosing(self._store.facts(task_id)) as kept:
            facts = [fact async for fact in kept]
        complete = len(facts) >= record.seq and isinstance(facts[0], Submitted)
        return Checkpoint(record, facts[: record.seq] if complete else ())

    def find_task(self, task_id: TaskId) -> TaskRecord | None:
        """Return the record of a task as it is saved; None when the node does not know it."""
        record = self._records.get(task_id)
        if record is None:
            self.lookup_misses += 1
        else:
            self.lookup_hits += 1
        return record

    def get_task(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task as it is saved; raises `TaskNotFound`."""
        record = self.find_task(task_id)
        if record is None:
            raise _not_found(task_id)
        return record

    def saved(self, task_id: TaskId) -> TaskRecord | None:
        """Return the record of a task as it is saved, for the node itself: nobody has asked for it."""
        return self._records.get(task_id)

    def dependency(self, task_id: TaskId) -> TaskRecord | None:
        """Return the record of a task that others depend on, or of the last one that repeats it, as it is saved."""
        return self._records.get(self.dependencies.source(task_id))

    def awaited(self, record: TaskRecord) -> list[tuple[TaskId, TaskRecord | None]]:
        """Return what a task still waits for; see `TaskService.awaited`."""
        if not self.is_blocked(record):
            return []
        sources = map(self.dependencies.source, record.task.depends_on)
        found = [(task_id, self._records.get(task_id)) for task_id in sources]
        return [(task_id, other) for task_id, other in found if other is None or other.result is None]

    def is_blocked(self, record: TaskRecord) -> bool:
        """Whether a task waits for others."""
        return record.status is TaskStatus.PENDING and self.dependencies.missing(record.id) > 0

    def children(self, task_id: TaskId) -> list[TaskRecord]:
        """Return the records of the children of a task, in the order of coming."""
        return [record for record in map(self._records.get, self._families.children(task_id)) if record is not None]

    def latest(self, task_id: TaskId) -> TaskRecord:
        """Return the record of a task as it will be when all its facts are saved; for those who add the next fact.

        Raises:
            TaskNotFound: the node does not know it.
        """
        return self._latest(task_id) or self.get_task(task_id)

    def is_latest(self, record: TaskRecord) -> bool:
        """Whether no fact of its task has been judged since."""
        return self._latest(record.id) is record

    @overload
    def list_tasks(self, task_filter: TaskFilter | None = None) -> list[TaskRecord]: ...

    @overload
    def list_tasks(self, task_filter: str) -> Awaitable[list[TaskId]]: ...

    def list_tasks(self, task_filter: TaskFilter | str | None = None) -> list[TaskRecord] | Awaitable[list[TaskId]]:
        """Return the records that match, the newest first; or, given the name of a project, what has a checkpoint.

        The second is to be awaited, because it looks at a folder: it is `Checkpoints.list_tasks`.
        """
        if isinstance(task_filter, str):
            return self.checkpoints.list_tasks(task_filter)
        wanted = task_filter or TaskFilter()
        found: list[TaskRecord] = []
        newest_first = (record for record in reversed(self._records.values()) if record is not None)
        for record in unretried(newest_first) if wanted.unretried else newest_first:
            if wanted.limit is not None and len(found) >= wanted.limit:
                break
            if wanted.matches(record):
                found.append(record)
        return found

    def unsaved_tasks(self) -> list[TaskRecord]:
        """Return the records of the tasks with facts that wait to be saved; see `TaskService.unsaved_tasks`."""
        return list(self._unsaved.values())

    def cancel_task(self, task_id: TaskId, *, requester: PeerId | None = None) -> TaskRecord:
        """Ask for a task and its children to be stopped; see `TaskService.cancel_task`."""
        record = self.latest(task_id)
        if requester not in (None, record.requester):
            raise _not_found(task_id)
        cancelled = self._cancel(record)
        if self._families:
            descendants = map(self.latest, self._families.descendants(task_id))
            # Else one that is cancelled first would fail those that depend on it.
            for child in dependents_first(child.task for child in descendants if not child.terminal):
                self._cancel(self.latest(child))
        return cancelled

    def _cancel(self, record: TaskRecord) -> TaskRecord:
        task_id, now = record.id, self._clock.now()
        if record.status is TaskStatus.PENDING:
            return self.apply(Cancelled(task_id, now))
        if record.status in {TaskStatus.CLAIMED, TaskStatus.EXECUTING}:
            return self.apply(CancelRequested(task_id, now))
        return record

    # --- what the node itself asks -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Return when everything that has happened is saved, and told."""
        while self._unsaved:
            self._store.hurry()
            self._settled = trio.Event()
            await self._settled.wait()
        self._settled = None

    async def wait_for_room(self) -> None:
        """Return when `submit` may have room again; callers take turns."""
        await self._room.wait()

    def usage(self, requester: PeerId) -> Usage:
        """Return what a requester has open."""
        return self._room.usage(requester)

    @property
    def open_tasks(self) -> int:
        """How many tasks have not ended."""
        return self._room.open

    # --- what the dispatcher does ------------------------------------------------------------------------------------

    def apply(self, *facts: Transition) -> TaskRecord:
        """Judge facts of one task, in order, and hand them to the store; all or, when one is refused, none.

        Returns:
            The record after them, which others see once it is saved.

        Raises:
            TaskNotFound: the node does not know the task.
            IllegalTransition: its status does not allow a fact.
            StaleAttempt: a newer attempt has been claimed since.
        """
        task_id = facts[0].task_id
        before = self._unsaved.get(task_id)
        record = before or self.get_task(task_id)
        changes = []
        for fact in facts:
            record = advance(record, fact)
            changes.append(Change(record, fact))
        self._unsaved[task_id] = record
        try:
            self._append(changes, self._store.append)
        except PeertaskError as error:
            if self._unsaved.pop(task_id, None) is not None and before is not None:
                self._unsaved[task_id] = before
            if error.code is ErrorCode.CONFLICT:
                raise TaskNotFound(f"task {task_id} is not this node's any more: {error.message}") from error
            raise
        return record

    def _append(self, changes: Sequence[Change], append: _Append) -> None:
        """Hand changes to the store; what listeners bring about while it commits some comes after all of them."""
        if self._appending:
            self._to_append.append(partial(append, changes))
            return
        self._appending = True
        try:
            append(changes)
            while self._to_append:
                self._to_append.popleft()()
        finally:
            self._appending = False

    def on_unsaved(self, listener: Callable[[TaskRecord, bool], None]) -> None:
        """Show each task that comes alone to a listener while it is being saved: it may be begun, and not told of.

        The listener is told too whether the task is `fresh`; see `TaskService.submit`.
        """
        self._unsaved_listener = listener

    async def sweep(self) -> None:
        """Forget the finished tasks that are older than they are kept, some at a time, so that nothing else waits."""
        while old := list(islice(self._finished.expired(self._clock.now()), SWEPT_A_PASS)):
            self._forget(old)
            await trio.lowlevel.checkpoint()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _take_in(self, records: Sequence[TaskRecord], changes: Sequence[Change], append: _Append) -> None:
        """Hand the first changes of new tasks to the store; `records` are those after them."""
        for record in records:
            self._count_open(record)
            self._records[record.id] = None
            self._unsaved[record.id] = record
        try:
            self._append(changes, append)
        except PeertaskError:
            for record in records:
                if self._unsaved.pop(record.id, None) is not None:
                    self._records.pop(record.id, None)
                    self._families.remove(record.task)
                    self._count_ended(record)
            raise

    def _check_graph(self, tasks: Sequence[Task], requester: PeerId) -> None:
        def known(task_id: TaskId) -> TaskRecord | None:
            record = self._latest(task_id)
            return record if record is not None and record.requester == requester else None

        try:
            check_graph(tasks, known)
        except PeertaskError:
            self._room.pass_on()
            raise

    def _check_admission(self, requester: PeerId, tasks: int = 1) -> None:
        if self._draining:
            self._room.pass_on()
            raise TaskRejected("this node is stopping and takes no new tasks", code=ErrorCode.DRAINING)
        if self._store.failure is not None:
            raise self._store.failure
        self._room.check(requester, tasks)

    def _latest(self, task_id: TaskId) -> TaskRecord | None:
        return self._unsaved.get(task_id) or self._records.get(task_id)

    def _committed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            record = change.record
            self._records[record.id] = record
            if self._unsaved.get(record.id) is record:
                del self._unsaved[record.id]
            if record.terminal:
                self._finish(record)
        self._feed.publish(changes)
        if self._settled is not None and not self._unsaved:
            self._settled.set()

    def _refused(self, changes: Sequence[Change], error: PeertaskError) -> None:
        """Give up a task that the store will not save any more: it has failed for all who wait, and is unknown then."""
        before = self._records.pop(changes[0].record.id, None) or changes[0].record
        self._unsaved.pop(before.id, None)
        self._families.remove(before.task)
        self._count_ended(before)
        failed = Failed(before.id, self._clock.now(), before.attempt, Failure.of(error.code, str(error)))
        self._feed.publish((Change(advance(before, failed), failed),))
        if self._settled is not None and not self._unsaved:
            self._settled.set()

    def _finish(self, record: TaskRecord) -> None:
        self._count_ended(record)
        if record.result is not None and record.id in self.dependencies.awaited:
            self.dependencies.complete(record.id)
        self._finished.add(record)
        self._forget(self._finished.surplus())

    def _count_ended(self, record: TaskRecord) -> None:
        if record.task.depends_on:
            for task_id in self.dependencies.drop(record.task):
                self._finished.release(task_id)
        self._room.remove(record)

    def _forget(self, task_ids: Iterable[TaskId]) -> None:
        gone = tuple(task_ids)
        for record in filter(None, map(self._records.pop, gone)):
            task = record.task
            self._families.remove(task)
            self._repetitions.forget(task)
        if gone:
            self._store.forget(gone)

    def _count_open(self, record: TaskRecord) -> None:
        task = record.task
        if task.depends_on:
            self.dependencies.add(task, self._records.get)
            for dependency in task.depends_on if self._repetitions else ():
                self._repetitions.note_those_of(dependency)
        if task.parent_id is not None:
            self._families.add(task)
        if task.metadata:
            self._repetitions.note(record)
        self._room.add(record)


def _not_found(task_id: TaskId) -> TaskNotFound:
    return TaskNotFound(
        f"this node has no task {task_id}",
        remedy="Finished tasks are forgotten after a while; `peertask list` shows those that are kept",
    )


def _partly_known(known: int, tasks: int) -> TaskRejected:
    return TaskRejected(
        f"{known:,} of the {tasks:,} tasks of the graph are here already, and the others are not",
        code=ErrorCode.CONFLICT,
        remedy="Submit a graph once, as a whole; if it was here, some of it has ended and is forgotten",
    )


def _same(known: TaskRecord, task: Task, requester: PeerId) -> TaskRecord:
    if known.requester != requester or known.task != task:
        raise TaskRejected(
            f"the UUID {task.id} belongs to another task here",
            code=ErrorCode.CONFLICT,
            remedy="Draw a fresh UUID for each task, and repeat a task only unchanged",
        )
    return known
