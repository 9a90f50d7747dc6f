"""What nobody waits for: changes until their task ends, so that a short one is a single entry of a commit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from node.interfaces import Change
from node.stores.sqlite.batch import Forgotten, Item
from protocol import Claimed, Progressed, Started, Submitted, TaskId

# As long as a no-op task takes at a peer with hundreds of others under way; a person hardly notices it, nor does a peer
# that waits for the Accept of a task that takes longer. Nobody was told of what a crash takes back in this time.
HELD_S: Final = 0.1
# Whoever records these goes on at once, and who watches a task can wait as long as that.
_MAY_WAIT: Final = frozenset({Submitted, Claimed, Started, Progressed})


class _Waiting(NamedTuple):
    """The changes of a task that wait, and when they have for long enough."""

    due_at: float
    changes: list[Change]


class HeldItems:
    """What waits: forgettings, and of each task its changes, in order.

    What is taken has the forgettings first, so that a task is kept that comes again after it was forgotten. The changes
    that came before a forgetting must be taken before it comes.
    """

    def __init__(self) -> None:
        self._forgotten: list[Forgotten] = []
        self._forget_at = math.inf
        self._changes: dict[TaskId, _Waiting] = {}

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._changes or self._forgotten)

    @property
    def next_due(self) -> float:
        """When the first of them has waited for long enough; never when nothing waits."""
        first = next(iter(self._changes.values()), None)
        return self._forget_at if first is None else min(self._forget_at, first.due_at)

    def add(self, changes: Sequence[Change], now: float) -> None:
        """Let changes of one task wait, after those of the same task that do.

        Args:
            changes: of one task.
            now: in seconds of any clock, the same one for all calls.
        """
        task_id = changes[0].record.id
        waiting = self._changes.get(task_id)
        if waiting is None:
            self._changes[task_id] = _Waiting(now + HELD_S, list(changes))
        else:
            waiting.changes.extend(changes)

    def forget(self, forgotten: Forgotten, now: float) -> None:
        """Let a forgetting wait."""
        if not self._forgotten:
            self._forget_at = now + HELD_S
        self._forgotten.append(forgotten)

    def take_forgotten(self) -> list[Forgotten]:
        """Take the forgettings."""
        taken, self._forgotten = self._forgotten, []
        self._forget_at = math.inf
        return taken

    def take(self, task_id: TaskId) -> list[Change]:
        """Return the changes of a task that wait, and let them wait no more."""
        waiting = self._changes.pop(task_id, None)
        return [] if waiting is None else waiting.changes

    def take_due(self, now: float) -> list[Item]:
        """Take all forgettings, and the changes of each task, of which the first has waited for `HELD_S`."""
        due = [task_id for task_id, _ in takewhile(lambda entry: entry[1].due_at <= now, self._changes.items())]
        forgotten = self.take_forgotten() if self._forget_at <= now else []
        return [*forgotten, *map(self.take, due)]

    def take_all(self) -> list[Item]:
        """Take everything."""
        return [*self.take_forgotten(), *map(self.take, list(self._changes))]


def may_wait(changes: Sequence[Change]) -> bool:
    """Whether nobody waits for any of these changes to be saved."""
    for change in changes:  # noqa: SIM110 - a generator takes three times as long
        if type(change.fact) not in _MAY_WAIT:
            return False
    return True
