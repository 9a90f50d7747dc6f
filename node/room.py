"""How many tasks are open at a node, whose they are, and whether there is room for more."""

from __future__ import annotations

import trio

from node.coordination.quotas import RETRY_AFTER_MS, Usage, task_size
from protocol import ErrorCode, PeerId, TaskRecord, TaskRejected, TooLarge


class Room:
    """Counts the tasks that have not ended.

    Those of the node have a limit, and those of all its peers together have another one of the same size: two nodes
    that are full of tasks for each other would refuse each other's for ever.

    Args:
        limit: how many may be open, for each of the two.
        own_id: the node.

    Attributes:
        open: how many tasks are open, whosoever they are.
    """

    __slots__ = ("_limit", "_own_id", "_usage", "_waiting", "open")

    def __init__(self, limit: int, own_id: PeerId) -> None:
        self.open = 0
        self._limit = limit
        self._own_id = own_id
        self._usage: dict[PeerId, Usage] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def add(self, record: TaskRecord) -> None:
        """Count a task that is open."""
        self.open += 1
        usage = self._usage.get(record.requester)
        if usage is None:
            usage = self._usage[record.requester] = Usage()
        usage.tasks += 1
        usage.payload_bytes += task_size(record.task)

    def remove(self, record: TaskRecord) -> None:
        """Count a task no more, and let one of those in who wait for its room."""
        self.open -= 1
        usage = self._usage[record.requester]
        usage.tasks -= 1
        usage.payload_bytes -= task_size(record.task)
        if not usage.tasks:
            del self._usage[record.requester]
        if self._waiting and record.requester == self._own_id:  # to unpark nobody costs as much as the rest of this
            self._waiting.unpark()

    def usage(self, requester: PeerId) -> Usage:
        """Return what a requester has open."""
        return self._usage.get(requester) or Usage()

    def check(self, requester: PeerId, tasks: int) -> None:
        """Refuse tasks for which there is no room.

        Raises:
            TooLarge: there never is, for so many at once.
            TaskRejected: code BUSY with `retry_after_ms`.
        """
        if tasks > self._limit:
            raise TooLarge(
                f"the graph has {tasks:,} tasks, and this node may have {self._limit:,} open",
                remedy="Submit it in parts, or let the operator raise max_queued",
            )
        beside = self._beside(requester)
        if beside + tasks > self._limit:
            whose = "of its own" if requester == self._own_id else "of peers"
            raise TaskRejected(
                f"this node has {beside} open tasks {whose}, and {self._limit} is its limit",
                code=ErrorCode.BUSY,
                remedy="Wait for some of them to end",
                retry_after_ms=RETRY_AFTER_MS,
            )

    def _beside(self, requester: PeerId) -> int:
        """Return how many open tasks share a limit with those of a requester."""
        own = self._usage.get(self._own_id)
        own_tasks = 0 if own is None else own.tasks
        return own_tasks if requester == self._own_id else self.open - own_tasks

    async def wait(self) -> None:
        """Return when there may be room for a task of the node again; callers take turns."""
        if self._beside(self._own_id) >= self._limit:
            await self._waiting.park()

    def pass_on(self) -> None:
        """Let the next one try, where whoever waited for room has no use for it."""
        if self._waiting and self._beside(self._own_id) < self._limit:
            self._waiting.unpark()

    def let_all_try(self) -> None:
        """Let everybody try who waits, because the answer will be another one."""
        self._waiting.unpark_all()
