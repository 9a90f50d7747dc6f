"""Which tasks are parts of which."""

from __future__ import annotations

from protocol import Task, TaskId


class Families:
    """The children of each task that has some, among the tasks that are kept."""

    def __init__(self) -> None:
        self._children: dict[TaskId, dict[TaskId, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._children)

    def add(self, task: Task) -> None:
        """Take note of a task that has a parent."""
        if task.parent_id is not None:
            self._children.setdefault(task.parent_id, {})[task.id] = None

    def remove(self, task: Task) -> None:
        """Take note that a task that has a parent is not kept any more."""
        siblings = self._children.get(task.parent_id, {}) if task.parent_id is not None else {}
        siblings.pop(task.id, None)
        if not siblings and task.parent_id is not None:
            self._children.pop(task.parent_id, None)

    def children(self, task_id: TaskId) -> list[TaskId]:
        """Return the children of a task, in the order of coming."""
        return [*self._children.get(task_id, ())]

    def descendants(self, task_id: TaskId) -> list[TaskId]:
        """Return the children of a task, theirs, and so on; each once."""
        found: dict[TaskId, None] = dict.fromkeys(self.children(task_id))
        line = [*found]
        for one in line:
            for child in self._children.get(one, ()):
                if child not in found:
                    found[child] = None
                    line.append(child)
        return line
