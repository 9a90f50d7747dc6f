"""What follows on an attempt that did not bring a result, for every reason that it can have."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.coordination.retries import (
    BUSY_RETRY_MS,
    MAX_LOST_LEASES,
    MAX_RETRY_AFTER_MS,
    REATTACH_GRACE_MS,
    REFUSED_RETRY_MS,
    after_failure,
    after_restart,
    backoff_ms,
)
from node.testing import START_MS, make_task
from protocol import (
    LOST_REASONS,
    REFUSED_REASONS,
    TRAITS,
    UNSTARTED_REASONS,
    Cancelled,
    CancelRequested,
    Claimed,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskRecord,
    TaskStatus,
    Transition,
    advance,
    begin,
)

OWN, PEER = PeerId("own"), PeerId("peer")
RETRYABLE = {code for code, traits in TRAITS.items() if traits.retryable} - LOST_REASONS - UNSTARTED_REASONS


def executing(
    *,
    policy: RetryPolicy | None = None,
    target: PeerId | None = PEER,
    deadline: int | None = None,
    failures: int = 0,
    lost_leases: int = 0,
) -> TaskRecord:
    """A task that a peer executes, after so many attempts that failed and that were lost."""
    task = make_task(retry=policy or RetryPolicy())
    record = begin(Submitted(task, START_MS, OWN, target, deadline))
    reasons = [ErrorCode.STORE_FAILED] * failures + [ErrorCode.PEER_LOST] * lost_leases
    for reason in reasons:
        record = _claim(record)
        record = advance(record, Released(task.id, START_MS, record.attempt, reason, "before", 0))
    record = _claim(record)
    return advance(record, Started(task.id, START_MS, record.attempt))


def _claim(record: TaskRecord) -> TaskRecord:
    return advance(record, Claimed(record.id, START_MS, record.attempt + 1, PEER, START_MS + 30_000))


def cancelling(record: TaskRecord) -> TaskRecord:
    """The same when its requester does not want it any more."""
    return advance(record, CancelRequested(record.id, START_MS))


def decide(
    record: TaskRecord, code: ErrorCode, *, retry_after_ms: int | None = None, final: bool = False, seed: int = 1
) -> Transition:
    """Ask what follows."""
    failure = Failure.of(code, "the reason")
    return after_failure(
        record, failure, now=START_MS, rng=random.Random(seed), retry_after_ms=retry_after_ms, final=final
    )


@pytest.mark.parametrize(
    ("code", "target", "elsewhere", "failures"),
    list(product(ErrorCode, [None, OWN, PEER], [False, True], [0, 1, 2])),
)
def test_what_follows_on_an_execution(
    code: ErrorCode, target: PeerId | None, failures: int, *, elsewhere: bool
) -> None:
    """A lost worker and a busy one cost no retry; what may help next time is tried three times; the rest fails."""
    record = executing(policy=RetryPolicy(elsewhere=elsewhere), target=target, failures=failures)
    fact = decide(record, code)
    after = advance(record, fact)
    if code in LOST_REASONS:
        grace = REATTACH_GRACE_MS if elsewhere and target is not None else 0
        assert after.not_before == (START_MS + grace if grace else 0)
        assert (after.status, after.failures, after.lost_leases) == (TaskStatus.PENDING, failures, 1)
    elif code in UNSTARTED_REASONS:
        assert (after.status, after.failures, after.lost_leases) == (TaskStatus.PENDING, failures, 0)
        assert START_MS + BUSY_RETRY_MS <= after.not_before <= START_MS + 1.5 * BUSY_RETRY_MS
    elif code in RETRYABLE and failures < 2:
        assert (after.status, after.failures, after.lost_leases) == (TaskStatus.PENDING, failures + 1, 0)
        assert 0 <= after.not_before <= START_MS + 500 * 2**failures
    else:
        assert after.status is TaskStatus.FAILED
        assert after.failure == Failure.of(code, "the reason")


@pytest.mark.parametrize(
    ("code", "retry_on", "again"),
    [
        (ErrorCode.EXECUTION_FAILED, None, False),
        (ErrorCode.EXECUTION_FAILED, (ErrorCode.EXECUTION_FAILED,), True),
        (ErrorCode.TIMEOUT, (ErrorCode.EXECUTION_FAILED, ErrorCode.TIMEOUT), True),
        (ErrorCode.TIMEOUT, (ErrorCode.EXECUTION_FAILED,), False),
        (ErrorCode.STORE_FAILED, None, True),
        (ErrorCode.STORE_FAILED, (ErrorCode.TIMEOUT,), False),
        (ErrorCode.STORE_FAILED, (), False),
        (ErrorCode.PEER_LOST, (), True),
        (ErrorCode.BUSY, (), True),
    ],
)
def test_a_policy_that_names_codes_tries_again_on_these_alone(
    code: ErrorCode, retry_on: tuple[ErrorCode, ...] | None, *, again: bool
) -> None:
    """Whatever the failure says of itself; but a worker that was lost or had no room has not failed."""
    fact = decide(executing(policy=RetryPolicy(retry_on=retry_on)), code)
    assert type(fact) is (Released if again else Failed)


@pytest.mark.parametrize(
    ("reasons", "failures", "lost_leases", "ended"),
    [
        ([ErrorCode.STORE_FAILED] * 2, 2, 0, False),
        ([ErrorCode.STORE_FAILED] * 3, 2, 0, True),
        ([ErrorCode.PEER_LOST] * 9, 0, 9, False),
        ([ErrorCode.LEASE_LOST, ErrorCode.STORE_FAILED] * 2, 2, 2, False),
        (
            [ErrorCode.STORE_FAILED, *[ErrorCode.PEER_LOST] * 9, ErrorCode.STORE_FAILED, ErrorCode.STORE_FAILED],
            2,
            9,
            True,
        ),
        ([ErrorCode.BUSY, ErrorCode.DRAINING, ErrorCode.STORE_FAILED], 1, 0, False),
        ([ErrorCode.LEASE_LOST] * MAX_LOST_LEASES, 0, MAX_LOST_LEASES - 1, True),
    ],
)
def test_failures_and_lost_workers_are_counted_apart(
    reasons: list[ErrorCode], failures: int, lost_leases: int, *, ended: bool
) -> None:
    """Three failures end a task, and no number of lost workers below sixteen does; the last one of each is the end."""
    record = executing(target=None)
    for reason in reasons:
        if record.status is TaskStatus.PENDING:
            record = _claim(record)
        record = advance(record, decide(record, reason))
    assert (record.failures, record.lost_leases, record.terminal) == (failures, lost_leases, ended)


@pytest.mark.parametrize(("code", "final"), list(product(ErrorCode, [False, True])))
def test_what_follows_on_a_task_that_is_to_stop(code: ErrorCode, *, final: bool) -> None:
    """It is cancelled when it was stopped, lost or never begun, and failed when it failed first; never tried again."""
    stopped = LOST_REASONS | UNSTARTED_REASONS | {ErrorCode.CANCELLED}
    fact = decide(cancelling(executing()), code, final=final)
    assert type(fact) is (Cancelled if code in stopped else Failed)
    assert advance(cancelling(executing()), fact._replace(attempt=1) if isinstance(fact, Failed) else fact).terminal


@pytest.mark.parametrize("code", ErrorCode)
def test_a_failure_that_the_worker_has_recorded_is_the_end(code: ErrorCode) -> None:
    """The worker answers a repeated request with the same failure, so trying again would never end."""
    fact = decide(executing(), code, final=True)
    assert isinstance(fact, Failed)
    assert fact.failure.code is code


@pytest.mark.parametrize(("code", "others"), list(product(ErrorCode, [True, False])))
def test_a_refusal_of_a_task_that_others_may_have_sends_it_on(code: ErrorCode, *, others: bool) -> None:
    """At once while somebody is left who has not refused it, else after a while; it costs no retry."""
    record = executing(target=None)
    failure = Failure.of(code, "no")
    fact = after_failure(record, failure, now=START_MS, rng=random.Random(1), others=others)
    alone = after_failure(record, failure, now=START_MS, rng=random.Random(1))
    if code in REFUSED_REASONS | UNSTARTED_REASONS and others:
        assert fact == Released(record.id, START_MS, 1, code, "no", 0)
    elif code in REFUSED_REASONS - {ErrorCode.TOO_LARGE}:
        assert isinstance(fact, Released)
        assert START_MS + REFUSED_RETRY_MS <= fact.not_before <= START_MS + 1.5 * REFUSED_RETRY_MS
        assert isinstance(alone, Failed)
    else:
        assert fact == alone
    assert advance(record, fact).failures == (code in RETRYABLE)


def test_the_counters_are_apart() -> None:
    """A machine that dies again and again does not burn the retries, and failures do not count as losses."""
    record = executing(failures=1, lost_leases=MAX_LOST_LEASES + 10)
    assert (record.failures, record.lost_leases) == (1, MAX_LOST_LEASES + 10)
    assert isinstance(decide(record, ErrorCode.STORE_FAILED), Released)
    assert isinstance(decide(executing(failures=90, lost_leases=1), ErrorCode.PEER_LOST), Released)


@pytest.mark.parametrize(
    ("target", "elsewhere", "fails"),
    [(None, False, True), (PEER, True, True), (PEER, False, False), (OWN, False, True)],
)
def test_a_task_that_loses_every_worker_is_given_up_unless_it_waits_for_one(
    target: PeerId | None, *, elsewhere: bool, fails: bool
) -> None:
    """A task that kills its workers, agents of the node among them, stops at sixteen; one for one peer waits for it."""
    policy = RetryPolicy(elsewhere=elsewhere)
    last = executing(policy=policy, target=target, lost_leases=MAX_LOST_LEASES - 1)
    before = executing(policy=policy, target=target, lost_leases=MAX_LOST_LEASES - 2)
    assert isinstance(decide(before, ErrorCode.PEER_LOST), Released)
    assert isinstance(decide(last, ErrorCode.LEASE_LOST), Failed) == fails


@given(st.integers(1, 100), st.integers(0, 3_600_000), st.floats(1, 10), st.integers(0, 3_600_000), st.integers(0))
def test_a_back_off_is_between_nothing_and_its_longest(
    failures: int, backoff: int, factor: float, longest: int, seed: int
) -> None:
    """Full jitter: anything up to the exponential wait, which has a cap."""
    policy = RetryPolicy(backoff_ms=backoff, factor=factor, max_backoff_ms=longest)
    wait = backoff_ms(policy, failures, random.Random(seed))
    assert 0 <= wait <= round(min(longest, backoff * factor ** (failures - 1)))


@pytest.mark.parametrize(("failures", "longest"), [(1, 500), (2, 1_000), (3, 2_000), (7, 30_000), (50, 30_000)])
def test_the_jitter_fills_the_whole_range(failures: int, longest: int) -> None:
    """Tasks that failed together come back spread out, from at once to the longest wait, which doubles up to 30 s."""
    rng = random.Random(3)
    waits = [backoff_ms(RetryPolicy(), failures, rng) for _ in range(4_000)]
    assert min(waits) < longest * 0.01
    assert longest * 0.99 < max(waits) <= longest
    assert abs(sum(waits) / len(waits) - longest / 2) < longest * 0.03


@pytest.mark.parametrize(("asked", "least"), [(None, 100), (0, 100), (1, 1), (2_000, 2_000), (2**63 - 1, 60_000)])
def test_a_busy_peer_says_when_to_come_back(asked: int | None, least: int) -> None:
    """Its time and up to half as much again, so that not all come at once; nonsense counts as a minute."""
    waits = []
    for seed in range(200):
        fact = decide(executing(), ErrorCode.BUSY, retry_after_ms=asked, seed=seed)
        assert isinstance(fact, Released)
        waits.append(fact.not_before - START_MS)
    assert least <= min(waits) <= max(waits) <= 1.5 * least
    assert least == 1 or len(set(waits)) > 20
    assert max(waits) <= 1.5 * MAX_RETRY_AFTER_MS


@pytest.mark.parametrize("code", [ErrorCode.BUSY, ErrorCode.STORE_FAILED])
def test_a_retry_that_would_come_after_the_deadline_fails_the_task_now(code: ErrorCode) -> None:
    """The failure says that no time is left, and what the last attempt ended with."""
    soon = executing(deadline=START_MS + 1)
    waits = [decide(soon, code, seed=seed) for seed in range(50)]
    late = [fact for fact in waits if isinstance(fact, Failed)]
    assert late
    assert all(fact.failure.code is ErrorCode.DEADLINE_EXCEEDED for fact in late)
    assert "the reason" in late[0].failure.message
    assert isinstance(decide(executing(deadline=START_MS + 3_600_000), code), Released)


def test_repeated_losses_are_waited_out() -> None:
    """The first loss costs no time, later ones up to a second: a peer that comes and goes does not spin this node."""
    waits = []
    for lost in range(15):
        fact = decide(executing(lost_leases=lost), ErrorCode.PEER_LOST)
        assert isinstance(fact, Released)
        waits.append(max(0, fact.not_before - START_MS))
    assert waits == [*range(0, 1_000, 100), *[1_000] * 5]


def test_a_task_that_was_under_way_when_the_node_ended_goes_on() -> None:
    """It is planned again at once, as a lost lease; one that was to stop has stopped with the process."""
    record = executing()
    fact = after_restart(record, PEER, START_MS + 9)
    after = advance(record, fact)
    assert (after.status, after.lost_leases, after.failures) == (TaskStatus.PENDING, 1, 0)
    assert after.not_before == 0
    stopped = cancelling(record)
    assert advance(stopped, after_restart(stopped, PEER, START_MS + 9)).status is TaskStatus.CANCELLED


def test_a_task_that_may_move_gives_its_peer_time_after_a_restart() -> None:
    """The peer goes on with it, and nobody repeats the work before it could be connected again."""
    anywhere, named = executing(target=None), executing()
    starts = [after_restart(record, OWN, START_MS) for record in (anywhere, named)]
    assert [fact.not_before for fact in starts if isinstance(fact, Released)] == [START_MS + REATTACH_GRACE_MS, 0]


def test_a_task_that_ends_the_node_again_and_again_is_given_up() -> None:
    """Sixteen processes of this node died of it; one that another peer holds is not to blame."""
    record = executing(lost_leases=MAX_LOST_LEASES - 1)
    assert isinstance(after_restart(record, PEER, START_MS), Failed)
    assert isinstance(after_restart(record, OWN, START_MS), Released)


def test_a_lost_worker_may_be_found_again_until_the_deadline() -> None:
    """Attaching again costs no time, so it is tried even in the last millisecond, and not after it."""
    assert isinstance(decide(executing(deadline=START_MS + 1), ErrorCode.PEER_LOST), Released)
    assert isinstance(decide(executing(deadline=START_MS), ErrorCode.PEER_LOST), Failed)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_task_is_tried_as_often_as_its_policy_says(attempts: int) -> None:
    """The first execution counts as one of the attempts."""
    policy = RetryPolicy(attempts=attempts)
    for failures in range(attempts):
        fact = decide(executing(policy=policy, failures=failures), ErrorCode.STORE_FAILED)
        assert isinstance(fact, Released) == (failures + 1 < attempts)
