"""What follows when an attempt did not bring a result: another attempt, and when; or the end of the task."""

from __future__ import annotations

import random

from protocol import (
    LOST_REASONS,
    REFUSED_REASONS,
    UNSTARTED_REASONS,
    Cancelled,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    Released,
    RetryPolicy,
    TaskRecord,
    TaskStatus,
    Transition,
)

# A peer that was killed is noticed within 10 ms and a restarted one is dialled within half a second; a second lets a
# task find its own worker again before another one repeats the work.
REATTACH_GRACE_MS = 1_000
# The first loss costs no time; whoever is lost again and again must not keep this node busy with nothing else.
REPEATED_LOSS_MS = 100
# A full node drains some hundred tasks in this time; used when it does not say itself how long to wait.
BUSY_RETRY_MS = 100
# An operator may have allowed by then what was refused; asking sooner only repeats the answer.
REFUSED_RETRY_MS = 10_000
# What an operator may change. The size of a task stays, so one that is too large for everybody fails.
_RECONSIDERED = REFUSED_REASONS - {ErrorCode.TOO_LARGE}
# A minute is as long as a full node may put a requester off: a peer that says more is mistaken or hostile.
MAX_RETRY_AFTER_MS = 60_000
# A task that loses this many workers in a row is more likely to kill them than to be unlucky.
MAX_LOST_LEASES = 16


def after_failure(
    record: TaskRecord,
    failure: Failure,
    *,
    now: int,
    rng: random.Random,
    retry_after_ms: int | None = None,
    final: bool = False,
    others: bool | None = None,
) -> Transition:
    """Decide what an attempt that failed means for its task.

    Args:
        record: the task as it stands; its current attempt is the one that failed.
        failure: why.
        now: milliseconds since the epoch.
        rng: draws the jitter.
        retry_after_ms: what a busy peer asked for.
        final: whether the worker has recorded the failure, after retries of its own: asking again changes nothing.
        others: whether somebody else may have the task, who has not refused it; None when the worker was the only one
            that the task may have.

    Returns:
        The fact to record: Released with the time of the next attempt, Failed, or Cancelled when the requester had
        asked for the task to stop.
    """
    if record.status is TaskStatus.CANCELLING:
        return _after_cancel(record, failure, now)
    wait = None if final else _wait_ms(record, failure, rng, retry_after_ms, others=others)
    if wait is None:
        return Failed(record.id, now, record.attempt, failure)
    if record.deadline is not None and now + wait >= record.deadline:
        return Failed(record.id, now, record.attempt, _too_late(failure))
    return Released(record.id, now, record.attempt, failure.code, failure.message, now + wait if wait else 0)


def after_restart(record: TaskRecord, own_id: PeerId, now: int) -> Transition:
    """Decide what becomes of a task that was under way when the process of this node ended; the fact to record."""
    if record.status is TaskStatus.CANCELLING:
        return Cancelled(record.id, now)
    message = "the node ended while the task was under way"
    if record.holder == own_id and record.lost_leases + 1 >= MAX_LOST_LEASES:
        return Failed(record.id, now, record.attempt, Failure.of(ErrorCode.LEASE_LOST, message))
    return Released(record.id, now, record.attempt, ErrorCode.LEASE_LOST, message, _again_at(record, own_id, now))


def _again_at(record: TaskRecord, own_id: PeerId, now: int) -> int:
    """Return when a task goes on after a restart: one that may move gives its own peer time to be connected again."""
    movable = record.target is None or record.task.retry.elsewhere
    return now + REATTACH_GRACE_MS if movable and record.holder not in (None, own_id) else 0


def backoff_ms(policy: RetryPolicy, failures: int, rng: random.Random) -> int:
    """Return how long to wait after the given number of failed attempts: exponential with full jitter."""
    longest = min(policy.max_backoff_ms, policy.backoff_ms * policy.factor ** max(0, failures - 1))
    return round(rng.uniform(0, longest))


def _wait_ms(
    record: TaskRecord, failure: Failure, rng: random.Random, retry_after_ms: int | None, *, others: bool | None
) -> int | None:
    policy = record.task.retry
    if failure.code in LOST_REASONS:
        return _after_loss_ms(record)
    if failure.code in UNSTARTED_REASONS | REFUSED_REASONS and others:
        return 0
    if failure.code in REFUSED_REASONS and record.target is None:
        again = failure.code in _RECONSIDERED and others is not None
        return round(REFUSED_RETRY_MS * rng.uniform(1.0, 1.5)) if again else None
    if failure.code in UNSTARTED_REASONS:
        return round(pause_ms(retry_after_ms) * rng.uniform(1.0, 1.5))
    if _worth_another(policy, failure) and record.failures + 1 < policy.attempts:
        return backoff_ms(policy, record.failures + 1, rng)
    return None


def pause_ms(retry_after_ms: int | None) -> int:
    """Return how long a peer that is busy is left alone, whatever it asked for."""
    return min(retry_after_ms or BUSY_RETRY_MS, MAX_RETRY_AFTER_MS)


def _worth_another(policy: RetryPolicy, failure: Failure) -> bool:
    return failure.retryable if policy.retry_on is None else failure.code in policy.retry_on


def _after_loss_ms(record: TaskRecord) -> int | None:
    # A node that was named gives its tasks to its agents, and each may be another one.
    movable = record.target is None or record.task.retry.elsewhere or record.holder != record.target
    if movable and record.lost_leases + 1 >= MAX_LOST_LEASES:
        return None
    if record.target is not None and record.task.retry.elsewhere:
        return REATTACH_GRACE_MS
    return min(record.lost_leases * REPEATED_LOSS_MS, REATTACH_GRACE_MS)


def _after_cancel(record: TaskRecord, failure: Failure, now: int) -> Transition:
    if failure.code in LOST_REASONS | UNSTARTED_REASONS | {ErrorCode.CANCELLED}:
        return Cancelled(record.id, now)
    return Failed(record.id, now, record.attempt, failure)


def _too_late(failure: Failure) -> Failure:
    return Failure.of(
        ErrorCode.DEADLINE_EXCEEDED, f"no time is left for another attempt; the last one ended with: {failure.message}"
    )
