"""How long a claim lasts, and who may still speak for it: pure decisions about leases and fencing.

Whoever holds a task has a lease on it. An executor of the node renews it for as long as it runs, and a peer for as long
as its session lives: those end with all that they hold, so only the leases of agents, who come when they like, need to
be looked at. What an agent claims it must start within the length of one lease; what it has started it keeps for one
more after each sign of life. A lease that lapses is no failure of the task: it is released, and planned again.

The attempt is the fencing token. A holder names it with everything that it says, so one that was paused and wakes up
cannot overwrite what has happened since: `refusal` says what that was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeVar

from protocol import ErrorCode, IllegalTransition, PeertaskError, StaleAttempt, TaskRecord, TaskRejected, TaskStatus

# A lapsed lease is found a tenth of a lease late at the most: one look at all claims, however many there are, costs
# less than a timer for each.
CHECKS_A_LEASE: Final = 10


class Lease(NamedTuple):
    """What a lease depends on.

    Attributes:
        claimed_at: when the task was claimed, in milliseconds since the epoch.
        started: whether the holder has said that it began.
        seen_at: when the holder gave its last sign of life, in milliseconds since the epoch; None while it is there
            for sure, because it waits for an answer.
    """

    claimed_at: int
    started: bool
    seen_at: int | None

    def lapses_at(self, now: int, lease_ms: int) -> int:
        """Return when the lease lapses unless it is renewed, in milliseconds since the epoch."""
        if not self.started:
            return self.claimed_at + lease_ms
        return max(self.claimed_at, now if self.seen_at is None else self.seen_at) + lease_ms


_Claim = TypeVar("_Claim")


def lapsed(leases: Iterable[tuple[_Claim, Lease]], *, now: int, lease_ms: int) -> tuple[list[_Claim], int | None]:
    """Decide which claims are over.

    Args:
        leases: all claims that hold one.
        now: milliseconds since the epoch.
        lease_ms: the length of a lease, in milliseconds.

    Returns:
        The claims whose lease has lapsed; and when to look again, in milliseconds since the epoch, None when no other
        claim is left.
    """
    over: list[_Claim] = []
    ends: list[int] = []
    for claim, lease in leases:
        lapses_at = lease.lapses_at(now, lease_ms)
        if lapses_at <= now:
            over.append(claim)
        else:
            ends.append(lapses_at)
    if not ends:
        return over, None
    return over, max(min(ends), now + max(1, lease_ms // CHECKS_A_LEASE))


def lease_lost(record: TaskRecord, lease_ms: int) -> PeertaskError:
    """Return why an attempt ends whose lease has lapsed; its code makes it a lost lease, not a failure."""
    missed = "did not start it" if record.status is TaskStatus.CLAIMED else "gave no sign of life"
    return PeertaskError(
        f"{record.holder} {missed} within {lease_ms} ms, and lost its lease on the task", code=ErrorCode.LEASE_LOST
    )


def refusal(record: TaskRecord, holder: str, attempt: int) -> PeertaskError:
    """Return why somebody may not speak for a task: it is not the holder of the current attempt, or that is over.

    Args:
        record: the task as it stands.
        holder: who speaks.
        attempt: the attempt that it speaks for.
    """
    what = f"attempt {attempt} of task {record.id}"
    if attempt > record.attempt or not record.attempt:
        return IllegalTransition(
            f"{what} was never claimed: the task is {record.status}, at attempt {record.attempt}",
            remedy="Repeat the attempt that the claim was answered with",
        )
    if attempt < record.attempt:
        return StaleAttempt(
            f"{what} is over: {record.holder} has claimed attempt {record.attempt} since",
            remedy="Drop the result; the task is done by somebody else",
        )
    if record.holder != holder:
        return TaskRejected(
            f"{what} belongs to {record.holder}, and not to {holder}", remedy="Work on tasks that you have claimed"
        )
    if record.terminal:
        return IllegalTransition(f"{what} has ended: the task is {record.status}", remedy="Drop the result")
    return StaleAttempt(
        f"{what} is over: its lease lapsed or it was given back, and the task waits for another attempt",
        remedy="Drop the result, or claim the task again; send heartbeats more often than a lease lasts",
    )
