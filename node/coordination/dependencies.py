"""Tasks that wait for others: which graphs are taken in, who waits for whom, and what a task gets of those it needs.

All of it is pure, takes time in proportion to the dependencies, and never recurses: a graph may be a chain of as many
tasks as it may have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Final

from node.coordination.quotas import task_size
from protocol import (
    MAX_PAYLOAD_BYTES,
    ErrorCode,
    Failure,
    InvalidTask,
    Task,
    TaskId,
    TaskRecord,
    TaskRejected,
    TaskStatus,
    TooLarge,
)

# As many as a node has open by default; a graph is taken in at once, which holds a node up for some tenths of a second.
MAX_GRAPH_TASKS: Final = 10_000
# Ten for each task. They are checked at once too, at a microsecond each, and kept as long as their tasks are open.
MAX_GRAPH_DEPENDENCIES: Final = 100_000
INPUTS: Final = "inputs"
"""The one of a task's params that holds the results of its dependencies, by their ids and in the order of naming."""

# Of a cycle that is longer, the ends tell enough.
_MAX_SHOWN_STEPS = 12
# As much of a title as tells one task from another.
_MAX_TITLE_CHARS = 40
# As much of the reason why a dependency failed as fits into the reason of the next one.
_MAX_REASON_CHARS = 300

Known = Callable[[TaskId], TaskRecord | None]
"""Finds the record of a task that the requester has at this node."""


# --- what is taken in ------------------------------------------------------------------------------------------------


def check_graph(tasks: Sequence[Task], known: Known) -> None:
    """Refuse tasks that cannot be taken in together, because of what they name.

    Args:
        tasks: new tasks, in any order; a single one is a graph too.
        known: finds what was taken in before.

    Raises:
        TooLarge: there are more tasks, or more dependencies in all, than a graph may have.
        InvalidTask: a task depends on itself, on the same one twice, or on one that is neither here nor in the graph;
            has such a parent; has params in the place of its inputs; or a cycle, which the message shows as a path.
        TaskRejected: code CANCELLED, when the parent of a task is cancelled.
    """
    by_id = {task.id: task for task in tasks}
    _check_size(tasks, by_id)
    for task in tasks:
        if task.depends_on:
            _check_dependencies(task, by_id, known)
        if task.parent_id is not None:
            _check_parent(task, task.parent_id, by_id, known)
    if len(tasks) > 1:
        _check_acyclic("depends_on", by_id, {task.id: task.depends_on for task in tasks if task.depends_on})
        _check_acyclic("parent_id", by_id, {task.id: (task.parent_id,) for task in tasks if task.parent_id})


def _check_size(tasks: Sequence[Task], by_id: Mapping[TaskId, Task]) -> None:
    if len(tasks) > MAX_GRAPH_TASKS:
        raise TooLarge(
            f"the graph has {len(tasks):,} tasks, and {MAX_GRAPH_TASKS:,} is the limit",
            remedy="Submit it in parts, those first that the others need",
        )
    dependencies = sum(len(task.depends_on) for task in tasks)
    if dependencies > MAX_GRAPH_DEPENDENCIES:
        raise TooLarge(
            f"the graph has {dependencies:,} dependencies, and {MAX_GRAPH_DEPENDENCIES:,} is the limit",
            remedy="Let a task gather what many others need, and let those depend on that one",
        )
    if len(by_id) < len(tasks):
        twice = _first_twice(task.id for task in tasks)
        raise InvalidTask(f"the graph has the task {twice} twice", remedy="Draw a fresh UUID for each task")


def _check_dependencies(task: Task, by_id: Mapping[TaskId, Task], known: Known) -> None:
    if INPUTS in task.params:
        raise InvalidTask(
            f"field params of task {_name(task)}: {INPUTS!r} is where the results of its dependencies go",
            remedy="Call that parameter something else",
        )
    if len(set(task.depends_on)) < len(task.depends_on):
        raise InvalidTask(
            f"field depends_on: task {_name(task)} names {_first_twice(task.depends_on)} twice",
            remedy="Name each dependency once",
        )
    for dependency in task.depends_on:
        if dependency == task.id:
            raise InvalidTask(f"field depends_on: task {_name(task)} depends on itself")
        if dependency not in by_id and known(dependency) is None:
            raise _unknown(task, "depends_on", dependency)


def _check_parent(task: Task, parent_id: TaskId, by_id: Mapping[TaskId, Task], known: Known) -> None:
    if parent_id == task.id:
        raise InvalidTask(f"field parent_id: task {_name(task)} is its own parent")
    if parent_id in by_id:
        return
    parent = known(parent_id)
    if parent is None:
        raise _unknown(task, "parent_id", parent_id)
    if parent.status in {TaskStatus.CANCELLING, TaskStatus.CANCELLED}:
        raise TaskRejected(
            f"the parent of task {_name(task)}, {parent_id}, is cancelled, and so are its children",
            code=ErrorCode.CANCELLED,
        )


def _unknown(task: Task, field: str, task_id: TaskId) -> InvalidTask:
    return InvalidTask(
        f"field {field}: task {_name(task)} names {task_id}, which is no task of yours at this node",
        remedy="Submit the two together as a graph, or that one first. If it was there, it has ended and is forgotten:"
        " submit it anew, or leave it out",
    )


def _check_acyclic(field: str, by_id: Mapping[TaskId, Task], edges: Mapping[TaskId, Collection[TaskId]]) -> None:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        cycle = [_name(by_id[task_id]) for task_id in reversed(error.args[1])]
        raise InvalidTask(
            f"field {field}: the graph has a cycle: {' → '.join(_abridged(cycle))}",
            remedy="Take one of these steps out, so that something can begin",
        ) from None


def _abridged(steps: list[str]) -> list[str]:
    if len(steps) <= _MAX_SHOWN_STEPS:
        return steps
    half = _MAX_SHOWN_STEPS // 2
    return [*steps[:half], f"({len(steps) - 2 * half:,} more)", *steps[-half:]]


def _name(task: Task) -> str:
    """Return what people call a task: its title, when it has one, else its id."""
    title = task.metadata.get("title") if task.metadata else None
    return title[:_MAX_TITLE_CHARS] if isinstance(title, str) and title else task.id


def _first_twice(task_ids: Iterable[TaskId]) -> TaskId | None:
    seen: set[TaskId] = set()
    return next((task_id for task_id in task_ids if task_id in seen or seen.add(task_id)), None)  # type: ignore[func-returns-value]


def dependents_first(tasks: Iterable[Task]) -> list[TaskId]:
    """Return the ids of tasks in an order in which each stands before those that it depends on."""
    by_id = {task.id: task for task in tasks}
    edges = {task.id: [other for other in task.depends_on if other in by_id] for task in by_id.values()}
    return [*TopologicalSorter(edges).static_order()][::-1]


# --- who waits for whom ----------------------------------------------------------------------------------------------


class Dependencies:
    """Which open tasks depend on which, and for how many each still waits.

    Told of each task when it comes and when it ends, it takes one step for each dependency in all. After a restart it
    is built again by telling it every open task.

    A task that failed may be repeated by another one, which then stands for it: who waits for the one waits for the
    other.

    Attributes:
        awaited: the open tasks that depend on a task, in the order of coming, by the id of that one; without an entry
            nobody does.
    """

    def __init__(self) -> None:
        self.awaited: dict[TaskId, dict[TaskId, None]] = {}
        self._missing: dict[TaskId, int] = {}
        self._complete: dict[TaskId, TaskId] = {}
        self._first: dict[TaskId, TaskId] = {}
        self._repeats: dict[TaskId, list[TaskId]] = {}

    def add(self, task: Task, known: Known) -> None:
        """Take note of an open task that depends on others."""
        for dependency in task.depends_on:
            self.awaited.setdefault(dependency, {})[task.id] = None
        needed = {self._first.get(dependency, dependency) for dependency in task.depends_on}
        for one in needed:
            source = self.source(one)
            if one not in self._complete and _is_complete(known(source)):
                self._complete[one] = source
        self._missing[task.id] = sum(one not in self._complete for one in needed)

    def repeat(self, task_id: TaskId, of: TaskId) -> None:
        """Take note that a task repeats another one, which did not complete; no effect when nobody waits for that.

        Who waits for the repetition already, from the same graph, waits for both as for one.
        """
        first = self._first.get(of, of)
        if of not in self.awaited or task_id in self._first or first in self._complete:
            return
        dependents = self.awaited[of]
        is_complete = self._complete.pop(task_id, None) is not None
        others = self.awaited.pop(task_id, {})
        for dependent in dependents if is_complete else others.keys() & dependents.keys():
            self._missing[dependent] -= 1
        dependents.update(others)
        self.awaited[task_id] = dependents
        self._first[task_id] = first
        self._repeats.setdefault(first, []).append(task_id)
        if is_complete:
            self._complete[first] = task_id

    def source(self, task_id: TaskId) -> TaskId:
        """Return whose result is the one of a dependency: that of those that repeat each other which is complete.

        While none is, it is the last one of them.
        """
        first = self._first.get(task_id, task_id)
        repeats = self._repeats.get(first)
        return self._complete.get(first) or (repeats[-1] if repeats else task_id)

    def complete(self, task_id: TaskId) -> None:
        """Take note that a task is complete."""
        first = self._first.get(task_id, task_id)
        if first not in self._complete:
            self._complete[first] = task_id
            for dependent in self.awaited.get(task_id, ()):
                self._missing[dependent] -= 1

    def drop(self, task: Task) -> list[TaskId]:
        """Take note that a task that depends on others has ended; return those that no other task depends on now."""
        del self._missing[task.id]
        released: list[TaskId] = []
        for dependency in task.depends_on:
            dependents = self.awaited.get(dependency)
            if dependents is None:  # it depends on a task and on its repetition, and both have gone together
                continue
            dependents.pop(task.id, None)
            if not dependents:
                released += self._release(self._first.get(dependency, dependency))
        return released

    def _release(self, first: TaskId) -> list[TaskId]:
        released = [first, *self._repeats.pop(first, ())]
        for task_id in released:
            del self.awaited[task_id]
            self._first.pop(task_id, None)
        self._complete.pop(first, None)
        return released

    def missing(self, task_id: TaskId) -> int:
        """Return for how many tasks an open one still waits."""
        return self._missing.get(task_id, 0)

    def dependents(self, task_id: TaskId) -> list[TaskId]:
        """Return the open tasks that depend on this one, in the order of coming."""
        return [*self.awaited.get(task_id, ())]


def are_dependencies_satisfied(task: Task, known: Known) -> bool:
    """Whether every task that this one depends on is complete."""
    return all(_is_complete(known(dependency)) for dependency in task.depends_on)


def _is_complete(record: TaskRecord | None) -> bool:
    return record is not None and record.status is TaskStatus.COMPLETE


def failure_of_dependency(task: Task, dependency: TaskId, record: TaskRecord | None) -> Failure | None:
    """Decide whether a task fails with one that it depends on, and why.

    Args:
        task: the one that waits; it says itself whether it fails or waits on.
        dependency: the one that it waits for.
        record: how that one stands; None when it is gone.
    """
    if task.on_failed_dependency == "wait" or (record is not None and (_is_complete(record) or not record.terminal)):
        return None
    return Failure.of(ErrorCode.DEPENDENCY_FAILED, f"task {dependency}, on which it depends, {_how_it_ended(record)}")


def _how_it_ended(record: TaskRecord | None) -> str:
    if record is None:
        return "is not kept here any more"
    if record.failure is None or record.status is TaskStatus.CANCELLED:
        return "was cancelled"
    if record.failure.code is ErrorCode.DEPENDENCY_FAILED:  # each would repeat the reasons of all before
        return "failed with one of its own dependencies"
    return f"failed with {record.failure.code.value}: {record.failure.message[:_MAX_REASON_CHARS]}"


# --- what a task gets of those it depends on -------------------------------------------------------------------------


def with_inputs(task: Task, known: Known, max_bytes: int = MAX_PAYLOAD_BYTES) -> Task:
    """Return a task as its executor gets it: with the results of its dependencies among its params.

    Args:
        task: ready to be done; one that depends on none is returned as it is.
        known: finds the records of its dependencies.
        max_bytes: how large the task may be with them.

    Raises:
        TooLarge: it would be larger.
        TaskRejected: code DEPENDENCY_FAILED, when a result is missing.
    """
    if not task.depends_on:
        return task
    inputs: dict[str, str] = {}
    size = task_size(task)
    for dependency in task.depends_on:
        record = known(dependency)
        if record is None or record.result is None:
            raise TaskRejected(f"the result of task {dependency} is not here", code=ErrorCode.DEPENDENCY_FAILED)
        inputs[dependency] = record.result.result
        size += len(record.result.result.encode())
    if size > max_bytes:
        raise TooLarge(
            f"with the results of its {len(inputs):,} dependencies the task has {size:,} bytes,"
            f" and {max_bytes:,} is the limit",
            remedy="Let them put large results into files, and return where those are",
        )
    return replace(task, params={**task.params, INPUTS: inputs})


def for_worker(task: Task) -> Task:
    """Return a task as a peer gets it: without what it says about other tasks, which are this node's alone."""
    if not task.depends_on and task.parent_id is None:
        return task
    return replace(task, depends_on=(), on_failed_dependency="fail", parent_id=None)
