"""Keeping records and their facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from protocol import Fact, PeertaskError, TaskId, TaskRecord


class Change(NamedTuple):
    """One step in the life of a task: a fact, and the record after it."""

    record: TaskRecord
    fact: Fact


Committed = Callable[[Sequence[Change]], None]
Refused = Callable[[Sequence[Change], PeertaskError], None]


class Store(ABC):
    """Keeps records and their facts. Dumb: no policy, no clock, no decision.

    `append` only takes a change in, so that the writer of the map never waits; the store says when changes are safe
    by calling `committed` with them: on the event loop, each exactly once, those of one task in the order of `append`.
    A store that needs no time may call it from within `append`.
    """

    @abstractmethod
    def running(self, committed: Committed) -> AbstractAsyncContextManager[None]:
        """Be open for the length of the context; on leaving, everything appended is committed first.

        Raises:
            PeertaskError: code STORE_FAILED, when the store cannot be opened; says which file or address, and why.
        """

    @abstractmethod
    def append(self, changes: Sequence[Change]) -> None:
        """Take changes of one task in, in order, all or none.

        Each record replaces the one with a `seq` one less, and a first record has `seq` 1. They are committed together,
        or one after the other with nothing of the same task between them.

        Raises:
            PeertaskError: code CONFLICT, when the store holds another `seq` for the task; nothing is taken in.
        """

    @abstractmethod
    def append_new(self, changes: Sequence[Change]) -> None:
        """Take the first changes of several new tasks in, one of each, all or none.

        That holds on disk too: after a crash, `load` yields the records of all of them or of none. They are committed
        together, in their order.

        Raises:
            PeertaskError: code CONFLICT, when the store holds one of the tasks; nothing is taken in.
        """

    def hurry(self) -> None:  # noqa: B027 - a store that lets nothing wait has nothing to do
        """Save what was appended as soon as it can be: somebody waits for it.

        A store may let changes wait for others, to save them together; for as long as nobody notices.
        """

    @property
    def failure(self) -> PeertaskError | None:
        """Why nothing can be saved at the moment, with code STORE_FAILED, the place, the reason and what to do.

        None when all is well. What was appended stays in line, and is committed when saving works again; meanwhile the
        node takes nothing new.
        """
        return None

    def on_refused(self, listener: Refused) -> None:  # noqa: B027 - a store that is nobody else's has nothing to tell
        """Call `listener` with changes of one task that were appended and never will be saved, and why.

        That is for stores that find out late: with code CONFLICT, when another program has changed the task. It is
        called on the event loop, before `committed` is with what came later; every later change of the task is refused
        by `append`.
        """

    @abstractmethod
    def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record that is kept, the oldest `created_at` first."""

    @abstractmethod
    def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the facts of a task that are kept, in order, whose number is greater than `after_seq`."""

    @abstractmethod
    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks, if they are there."""
