"""A store that says that a change is saved only when a test lets it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from node.interfaces import Change, Committed, Refused, Store
from node.stores.memory import MemoryStore
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

# No number follows on it.
_GIVEN_UP = -2


class HeldStore(Store):
    """Stands for a disk that is slow: what is appended waits until the test commits it, or loses it as a crash does.

    Until `hold` is called it commits at once. What it has saved outlives `running`.

    Attributes:
        held: what waits to be saved, in the order of appending.
        failure: why it cannot save, as the test says.
    """

    failure: PeertaskError | None = None

    def __init__(self) -> None:
        self.held: deque[Change] = deque()
        self._together: dict[TaskId, int] = {}
        self._saved = MemoryStore()
        self._holding = False
        self._crashed = False
        self._committed: Committed | None = None
        self._last_seqs: dict[TaskId, int] = {}
        self._refused: Refused | None = None
        self._gathered: list[Change] | None = None

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Be open for the length of the context; on leaving, what is held is committed."""
        self._crashed = False
        self._last_seqs = {record.id: record.seq async for record in self._saved.load()}
        self._committed = committed
        async with self._saved.running(self._tell):
            try:
                yield
            finally:
                self.release()

    def _tell(self, changes: Sequence[Change]) -> None:
        if self._gathered is not None:
            self._gathered += changes
        else:
            self._tell_node(changes)

    def _tell_node(self, changes: Sequence[Change]) -> None:
        if not self._crashed and self._committed is not None:
            self._committed(changes)

    # --- what tests ask ----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let everything that is appended from now on wait."""
        self._holding = True

    def commit(self, count: int = 1) -> None:
        """Save so many of the changes that wait, the oldest first; those that came together count as one."""
        for _ in range(count):
            together = self._together.pop(self.held[0].record.id, 0)
            if together:
                self._saved.append_new([self.held.popleft() for _ in range(together)])
            else:
                self._saved.append((self.held.popleft(),))

    def commit_together(self, count: int) -> None:
        """Save so many of the changes that wait with one write, and tell of them then."""
        gathered: list[Change] = []
        self._gathered = gathered
        try:
            self._commit_first(count)
        finally:
            self._gathered = None
        self._tell_node(gathered)

    def release(self) -> None:
        """Save everything that waits, and commit at once from now on."""
        while self.held:
            self.commit()
        self._holding = False

    def lose(self, but: int = 0) -> None:
        """Drop what waits, as a crash does, and take nothing in until the next `running`.

        Args:
            but: so many of the changes that wait, the oldest, were on the disk already, although nobody was told.
        """
        self._crashed = True
        self._commit_first(but)
        self.held.clear()
        self._together.clear()

    def _commit_first(self, changes: int) -> None:
        left = len(self.held) - changes
        while self.held and len(self.held) > left:
            self.commit()

    def refuse(self, error: PeertaskError) -> None:
        """Give up the tasks of all that waits, as a store does whose tasks another program has changed."""
        refused, self.held = self.held, deque()
        for task_id in dict.fromkeys(change.record.id for change in refused):
            self._last_seqs[task_id] = _GIVEN_UP
            if self._refused is not None:
                self._refused([change for change in refused if change.record.id == task_id], error)

    # --- what a node asks --------------------------------------------------------------------------------------------

    def on_refused(self, listener: Refused) -> None:
        """Tell of what `refuse` gives up."""
        self._refused = listener

    def append(self, changes: Sequence[Change]) -> None:
        """Take changes in; see `Store.append`."""
        if self._crashed:
            return
        first, last = changes[0].record, changes[-1].record
        expected = self._last_seqs.get(first.id, 0) + 1
        if first.seq != expected:
            raise PeertaskError(
                f"task {first.id}: fact number {first.seq} cannot be kept, because number {expected} is next",
                code=ErrorCode.CONFLICT,
            )
        self._last_seqs[first.id] = last.seq
        if self._holding:
            self.held.extend(changes)
        else:
            self._saved.append(changes)

    def append_new(self, changes: Sequence[Change]) -> None:
        """Take new tasks in; see `Store.append_new`."""
        if self._crashed:
            return
        for record, _ in changes:
            if record.id in self._last_seqs:
                raise PeertaskError(f"task {record.id} is kept already", code=ErrorCode.CONFLICT)
        self._last_seqs.update((record.id, record.seq) for record, _ in changes)
        if self._holding:
            self._together[changes[0].record.id] = len(changes)
            self.held.extend(changes)
        else:
            self._saved.append_new(changes)

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record that is saved, the oldest first."""
        async for record in self._saved.load():
            yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the facts of a task that are saved and kept."""
        async for fact in self._saved.facts(task_id, after_seq):
            yield fact

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks."""
        for task_id in task_ids:
            if self._last_seqs.pop(task_id, None) is not None:
                self.held = deque(change for change in self.held if change.record.id != task_id)
            self._saved.forget((task_id,))
