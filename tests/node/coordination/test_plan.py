"""What the plan decides: order, fairness, slots, targets, back-off, deadlines, and how much work a decision takes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.coordination import fair_queue
from node.coordination import plan as plan_module
from node.coordination.fair_queue import MAX_REMEMBERED_TURNS
from node.coordination.plan import SWEEP_SLACK, Backlog, Decision, plan, start_at_once
from node.coordination.roster import Roster, Worker
from node.testing import START_MS, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    TaskId,
    TaskRecord,
    TaskResult,
    advance,
    begin,
)

OWN = PeerId("own")
PEER = PeerId("peer")
OTHER = PeerId("other")
FLOODER = PeerId("flooder")


def record(
    number: int = 0,
    *,
    requester: PeerId = OWN,
    target: PeerId | None = OWN,
    deadline: int | None = None,
    created_at: int | None = None,
    **fields: Any,
) -> TaskRecord:
    """A task that waits; a greater number is younger."""
    at = START_MS + number if created_at is None else created_at
    task = make_task(f"prompt {number}", **{"kind": "echo", **fields})
    return begin(Submitted(task, at, requester, target, deadline))


def claimed(record: TaskRecord, holder: PeerId = OWN) -> TaskRecord:
    """The task when it is claimed."""
    return advance(record, Claimed(record.id, START_MS, record.attempt + 1, holder, START_MS + 30_000))


def released(record: TaskRecord, not_before: int = 0) -> TaskRecord:
    """The task when its holder has given it up."""
    return advance(record, Released(record.id, START_MS, record.attempt, ErrorCode.BUSY, "full", not_before))


def completed(record: TaskRecord) -> TaskRecord:
    """The task when it is complete."""
    started = advance(record, Started(record.id, START_MS, record.attempt))
    return advance(started, Completed(record.id, START_MS, record.attempt, TaskResult(record.id, "done", 1)))


def cancelled(record: TaskRecord) -> TaskRecord:
    """The task when it was cancelled before it was claimed."""
    return advance(record, Cancelled(record.id, START_MS))


def local(slots: int = 1, kind: str = "echo", busy: int = 0) -> Worker:
    """An executor of this node."""
    return Worker(OWN, frozenset({kind}), slots, busy)


def remote(peer_id: PeerId = PEER, slots: int = 8, *kinds: str, load: int = 0) -> Worker:
    """A peer that is connected."""
    return Worker(peer_id, frozenset(kinds or ("echo",)), slots, load=load)


def backlog_of(*records: TaskRecord) -> Backlog:
    """A backlog that was told of these records, in this order."""
    backlog = Backlog(OWN)
    for one in records:
        backlog.update(one)
    return backlog


def decide(backlog: Backlog, *workers: Worker, now: int = START_MS) -> Decision:
    """Ask the plan."""
    return plan(backlog, Roster(workers, OWN), now=now)


def started(decision: Decision) -> list[TaskId]:
    """What the plan starts, in order."""
    return [assignment.task_id for assignment in decision.starts]


def holders(decision: Decision) -> list[PeerId]:
    """Who is to do it, in order."""
    return [assignment.worker.peer_id for assignment in decision.starts]


def serve_one_by_one(backlog: Backlog, records: Sequence[TaskRecord], *, completes: bool) -> Iterator[TaskRecord]:
    """Yield the tasks in the order in which one slot serves them; each has ended, or goes on, when the next starts."""
    by_id = {one.id: one for one in records}
    while ids := started(decide(backlog, local(1))):
        (task_id,) = ids
        running = claimed(by_id[task_id])
        backlog.update(running)
        if completes:
            backlog.update(completed(running))
        yield by_id[task_id]


# --- order -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 5)), max_size=30))
def test_the_tasks_of_one_requester_go_by_priority_and_then_by_age(tasks: list[tuple[int, int]]) -> None:
    """Whatever the order of coming: the higher priority first, then the older task, then the one that came first."""
    records = [record(priority=priority, created_at=START_MS + age) for priority, age in tasks]
    expected = sorted(records, key=lambda one: (-one.task.priority, one.created_at))
    assert started(decide(backlog_of(*records), local(100))) == [one.id for one in expected]


@given(
    st.lists(
        st.tuples(st.sampled_from([OWN, PEER, OTHER]), st.sampled_from([OWN, None, PEER]), st.integers(0, 9)),
        max_size=30,
    ),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_slots_are_filled_and_never_exceeded(
    tasks: list[tuple[PeerId, PeerId | None, int]], own_slots: int, peer_slots: int
) -> None:
    """Each task starts at most once, at someone with room; what does not start has nobody with room left."""
    records = [record(requester=who, target=target, priority=priority) for who, target, priority in tasks]
    backlog, here, there = backlog_of(*records), local(own_slots), remote(PEER, peer_slots)
    decision = decide(backlog, here, there)
    assert len(set(started(decision))) == len(decision.starts)
    assert here.busy == holders(decision).count(OWN) <= own_slots
    assert there.busy == holders(decision).count(PEER) <= peer_slots
    for waiting in backlog.tasks.values():
        able = {OWN: [here], PEER: [there], None: [here, there]}[waiting.target]
        assert not any(worker.free for worker in able)


def test_a_worker_that_is_over_its_slots_gets_nothing() -> None:
    """A peer that came back with fewer slots than it has tasks is left alone until it has room."""
    backlog = backlog_of(record())
    assert started(decide(backlog, local(slots=2, busy=3))) == []
    assert len(started(decide(backlog, local(slots=2, busy=1)))) == 1


# --- fairness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("completes", [True, False], ids=["tasks end at once", "tasks go on"])
def test_a_flood_delays_the_task_of_another_by_one_turn_at_most(*, completes: bool) -> None:
    """10,000 tasks of one peer, of the highest priority, wait; the single one of another is among the first two."""
    flood = [record(number, requester=FLOODER, priority=255) for number in range(10_000)]
    backlog = backlog_of(*flood)
    served = serve_one_by_one(backlog, flood, completes=completes)
    for _ in range(3):
        next(served)
    single = record(20_000, requester=PEER, priority=0)
    backlog.update(single)
    following = serve_one_by_one(backlog, [*flood, single], completes=completes)
    assert single.id in {next(following).id, next(following).id}


@pytest.mark.parametrize("flood_first", [True, False])
def test_a_flood_does_not_starve_tasks_that_wait_for_the_same_worker_in_another_way(*, flood_first: bool) -> None:
    """Tasks for any node and tasks for this node share its executor: neither kind locks the other out."""
    flood = [record(number, requester=OWN, target=None) for number in range(100)]
    singles = [record(1_000, requester=PEER, target=OWN)]
    everything = [*flood, *singles] if flood_first else [*singles, *flood]
    served = list(serve_one_by_one(backlog_of(*everything), everything, completes=True))
    assert served.index(singles[0]) <= 1
    assert len(served) == len(everything)


def test_priority_holds_across_ways_to_wait() -> None:
    """A requester's urgent task for this very node goes before its others for any node."""
    common = [record(number, target=None) for number in range(10)]
    urgent = record(100, target=OWN, priority=200)
    assert started(decide(backlog_of(*common, urgent), local(1))) == [urgent.id]


def test_requesters_that_flood_get_equal_shares() -> None:
    """Three floods and ten slots: nobody is more than one task ahead, whoever came first."""
    peers = [PEER, OTHER, FLOODER]
    backlog = backlog_of(*[record(number, requester=peer) for peer in peers for number in range(50)])
    tasks = dict(backlog.tasks)
    shares = Counter(tasks[task_id].requester for task_id in started(decide(backlog, local(10))))
    assert sorted(shares.values()) == [3, 3, 4]


def test_who_has_fewest_running_goes_first() -> None:
    """A requester whose long tasks fill the node waits for one that has none running."""
    running = [claimed(record(number, requester=FLOODER)) for number in range(3)]
    waiting, newcomer = record(10, requester=FLOODER), record(20, requester=PEER)
    assert started(decide(backlog_of(*running, waiting, newcomer), local(1))) == [newcomer.id]


def test_a_requester_that_sends_one_at_a_time_does_not_starve_a_flood() -> None:
    """Turns alternate: a peer whose next task is there as soon as the last one ends gets every other slot."""
    flood = [record(number, requester=FLOODER) for number in range(20)]
    singles = [record(100 + number, requester=PEER) for number in range(10)]
    backlog = backlog_of(*flood, singles[0])
    order = []
    for served in serve_one_by_one(backlog, [*flood, *singles], completes=True):
        order.append(served.requester)
        following = next((one for one in singles if one.id not in backlog.tasks and one is not served), None)
        if served in singles and following is not None and singles.index(served) + 1 < len(singles):
            backlog.update(singles[singles.index(served) + 1])
    assert order[:10].count(FLOODER) == 5


def test_the_turns_of_a_thousand_requesters_are_remembered_and_no_more() -> None:
    """Peers come and go while the queue is never empty; the memory for their turns stays bounded."""
    turns = fair_queue.Turns()
    for number in range(10 * MAX_REMEMBERED_TURNS):
        turns.take(PeerId(f"peer {number}"))
        turns.take(PEER)
    remembered = [number for number in range(10 * MAX_REMEMBERED_TURNS) if turns.of(PeerId(f"peer {number}"))]
    assert len(remembered) <= MAX_REMEMBERED_TURNS
    assert remembered[-1] == 10 * MAX_REMEMBERED_TURNS - 1
    assert turns.of(PEER) > turns.of(PeerId(f"peer {remembered[-1]}"))


# --- targets ---------------------------------------------------------------------------------------------------------


def elsewhere() -> RetryPolicy:
    """A policy that lets another peer do it."""
    return RetryPolicy(elsewhere=True)


@pytest.mark.parametrize(
    ("target", "kind", "policy", "workers", "expected"),
    [
        (OWN, "echo", RetryPolicy(), [local(), remote()], OWN),
        (OWN, "other", RetryPolicy(), [local(), remote(PEER, 8, "other")], None),
        (PEER, "echo", RetryPolicy(), [local(), remote()], PEER),
        (PEER, "unheard-of", RetryPolicy(), [local(), remote()], PEER),
        (PEER, "echo", RetryPolicy(), [local(), remote(OTHER)], None),
        (PEER, "echo", elsewhere(), [local(0), remote(), remote(OTHER)], PEER),
        (PEER, "echo", elsewhere(), [local(0), remote(OTHER)], OTHER),
        (PEER, "echo", elsewhere(), [local()], OWN),
        (PEER, "echo", elsewhere(), [local(), remote(PEER, 0)], None),
        (PEER, "unheard-of", elsewhere(), [local(), remote(OTHER)], None),
        (None, "echo", RetryPolicy(), [local()], OWN),
        (None, "echo", RetryPolicy(), [remote()], PEER),
        (None, "other", RetryPolicy(), [local(), remote()], None),
        (None, "echo", RetryPolicy(), [Worker(PEER, None, 1)], PEER),
        (None, "echo", RetryPolicy(), [], None),
    ],
)
def test_a_task_goes_where_its_target_and_policy_say(
    target: PeerId | None, kind: str, policy: RetryPolicy, workers: list[Worker], expected: PeerId | None
) -> None:
    """A named peer decides for itself what it can do; another is asked only when it is away and the policy allows."""
    backlog = backlog_of(record(target=target, kind=kind, retry=policy))
    assert holders(decide(backlog, *workers)) == ([] if expected is None else [expected])


def test_only_what_may_run_here_counts_as_waiting_here() -> None:
    """What waits for another peer is no load of this node."""
    here, anywhere, away = record(1), record(2, target=None), record(3, target=PEER)
    backlog = backlog_of(here, anywhere, away)
    assert backlog.waiting_here == 2
    backlog.update(cancelled(here))
    assert backlog.waiting_here == 1
    decide(backlog, local())
    assert (backlog.waiting_here, list(backlog.tasks)) == (0, [away.id])


def test_a_task_whose_target_is_away_waits_and_holds_nobody_up() -> None:
    """The tasks behind it start; it starts when the peer is there."""
    away, here = record(1, target=PEER), record(2)
    backlog = backlog_of(away, here)
    assert started(decide(backlog, local(5))) == [here.id]
    assert started(decide(backlog, local(5), remote())) == [away.id]


# --- back-off and deadlines ------------------------------------------------------------------------------------------


def test_a_task_with_a_back_off_starts_when_it_is_over() -> None:
    """The plan names the time to ask again, and nothing starts before."""
    waiting = released(claimed(record()), not_before=START_MS + 500)
    backlog = backlog_of(waiting)
    early = decide(backlog, local(), now=START_MS + 499)
    assert (early.starts, early.wake_at) == ([], START_MS + 500)
    assert started(decide(backlog, local(), now=START_MS + 500)) == [waiting.id]


def test_a_task_that_was_left_behind_in_a_queue_does_not_cut_its_back_off_short() -> None:
    """Somebody else claimed the task and gave it up: its first place in the queue is void."""
    waiting = record()
    backlog = backlog_of(waiting)
    backlog.update(taken := claimed(waiting))
    backlog.update(released(taken, not_before=START_MS + 500))
    assert started(decide(backlog, local())) == []
    assert started(decide(backlog, local(), now=START_MS + 500)) == [waiting.id]


def test_a_task_past_its_deadline_is_not_started() -> None:
    """Work that cannot be on time is dropped before it starts, and named once."""
    late, on_time = record(1, deadline=START_MS + 10), record(2, deadline=START_MS + 11)
    backlog = backlog_of(late, on_time)
    decision = decide(backlog, local(5), now=START_MS + 10)
    assert decision.expired == [late.id]
    assert started(decision) == [on_time.id]
    assert decide(backlog, local(5), now=START_MS + 20).expired == []


def test_a_deadline_passes_for_tasks_that_nobody_could_start() -> None:
    """A task whose peer is away, and one that backs off, expire all the same; the plan wakes up for it."""
    away = record(1, target=PEER, deadline=START_MS + 10)
    resting = released(claimed(record(2, deadline=START_MS + 20)), not_before=START_MS + 5_000)
    backlog = backlog_of(away, resting)
    assert decide(backlog).wake_at == START_MS + 10
    assert decide(backlog, now=START_MS + 10).expired == [away.id]
    assert decide(backlog, now=START_MS + 20).expired == [resting.id]
    assert decide(backlog, local(5), remote(), now=START_MS + 9_000) == Decision([], [], None)


def test_a_deadline_holds_for_every_attempt() -> None:
    """A task that was released expires as it would have before."""
    again = released(claimed(record(deadline=START_MS + 10)))
    backlog = backlog_of(again)
    assert decide(backlog, now=START_MS + 10).expired == [again.id]


# --- state, not history ----------------------------------------------------------------------------------------------


def lives(one: TaskRecord) -> list[list[TaskRecord]]:
    """Ways that the life of a task may take, moment by moment."""
    taken = claimed(one)
    cancelling = advance(taken, CancelRequested(one.id, START_MS))
    again = released(taken)
    failure = Failure.of(ErrorCode.EXECUTION_FAILED, "no")
    return [
        [one],
        [one, cancelled(one)],
        [one, taken],
        [one, taken, completed(taken)],
        [one, taken, again],
        [one, taken, again, claimed(again)],
        [one, taken, released(taken, START_MS + 100)],
        [one, taken, cancelling],
        [one, taken, cancelling, advance(cancelling, Cancelled(one.id, START_MS))],
        [one, taken, advance(taken, Failed(one.id, START_MS, 1, failure))],
    ]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 3), st.sampled_from([0, 12]))
def test_telling_a_record_again_changes_nothing(ways: list[int], repeats: int, slots: int) -> None:
    """A backlog that was told everything, some of it several times, decides as one that was told the last records."""
    requesters = [OWN, PEER]
    moments = [
        lives(record(number, requester=requesters[number % 2], deadline=START_MS + 50))[way]
        for number, way in enumerate(ways)
    ]
    told = backlog_of(*[one for life in moments for one in life for _ in range(repeats)])
    restored = backlog_of(*[life[-1] for life in moments])
    assert told.tasks == restored.tasks
    assert told.running == restored.running
    for now in (START_MS, START_MS + 20):
        one, other = decide(told, local(slots), now=now), decide(restored, local(slots), now=now)
        assert set(started(one)) == set(started(other))  # among requesters with equal claims anybody may be first
        assert (one.expired, one.wake_at) == (other.expired, other.wake_at)


@pytest.mark.parametrize("ending", [cancelled, claimed])
def test_a_task_that_no_longer_waits_is_not_started(ending: Any) -> None:
    """A cancel, or a claim by somebody else, takes a task out of the backlog."""
    gone, left = record(1), record(2)
    backlog = backlog_of(gone, left)
    backlog.update(ending(gone))
    assert started(decide(backlog, local(5))) == [left.id]


def test_what_the_plan_starts_is_out_of_the_backlog_until_its_record_comes_again() -> None:
    """A claim that did not come about is repaired by telling the record again."""
    waiting = record()
    backlog = backlog_of(waiting)
    assert started(decide(backlog, local())) == [waiting.id]
    assert started(decide(backlog, local())) == []
    backlog.update(waiting)
    assert started(decide(backlog, local())) == [waiting.id]


# --- bounds ----------------------------------------------------------------------------------------------------------


@contextmanager
def counting_lines() -> Iterator[list[int]]:
    """Count the lines of the plan's modules that run; unlike time, they do not depend on the machine."""
    files = {plan_module.__file__, fair_queue.__file__}
    count = [0]

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        count[0] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("requesters", [1, 10])
def test_a_decision_takes_work_in_proportion_to_what_it_starts(requesters: int) -> None:
    """A wake-up with 10,000 waiting tasks takes as many steps as one with 100, and one per task that it starts."""

    def steps(waiting: int, slots: int) -> int:
        tasks = [record(number, requester=PeerId(f"peer {number % requesters}")) for number in range(waiting)]
        backlog = backlog_of(*tasks)
        with counting_lines() as count:
            assert len(started(decide(backlog, local(slots)))) == slots
        return count[0]

    assert steps(10_000, 1) == steps(100, 1)
    assert steps(10_000, 50) < 60 * steps(10_000, 1)
    assert steps(10_000, 50) < 50 * (30 + 10 * requesters)


def test_telling_of_a_task_takes_the_same_work_however_many_wait() -> None:
    """A new task among 10,000 costs as much as one among 100."""

    def steps(waiting: int) -> int:
        backlog = backlog_of(*[record(number) for number in range(waiting)])
        with counting_lines() as count:
            backlog.update(record(waiting))
        return count[0]

    assert steps(10_000) == steps(100)


def entries(backlog: Backlog) -> int:
    """Everything that a backlog holds on to, however it is arranged."""
    seen: set[int] = set()

    def size(value: object) -> int:
        if id(value) in seen or isinstance(value, str | int | TaskRecord):
            return 0
        seen.add(id(value))
        if isinstance(value, dict):
            return len(value) + sum(size(item) for item in value.values())
        if isinstance(value, list):
            return len(value) + sum(size(item) for item in value)
        return sum(size(item) for item in vars(value).values()) if hasattr(value, "__dict__") else 0

    return size(backlog)


@pytest.mark.parametrize("target", [OWN, PEER, None])
def test_tasks_that_come_and_go_leave_nothing_behind(target: PeerId | None) -> None:
    """Cancelled while they wait, with deadlines, for places that nobody serves: memory does not grow."""
    backlog = Backlog(OWN)
    for number in range(2_000):
        waiting = record(number, target=target, deadline=START_MS + 1_000_000)
        backlog.update(waiting)
        decide(backlog)
        backlog.update(cancelled(waiting))
    assert entries(backlog) < 10 * SWEEP_SLACK


def test_tasks_that_are_done_leave_no_deadlines_behind() -> None:
    """A deadline a day away is not kept for a task that is complete, nor once for each of its attempts."""
    backlog = Backlog(OWN)
    for number in range(2_000):
        waiting = record(number, deadline=START_MS + 86_400_000)
        backlog.update(waiting)
        decide(backlog, local())
        backlog.update(taken := claimed(waiting))
        backlog.update(again := released(taken))
        decide(backlog, local())
        backlog.update(taken := claimed(again))
        backlog.update(completed(taken))
    assert entries(backlog) < 10 * SWEEP_SLACK


def test_peers_that_are_gone_leave_no_queues_behind() -> None:
    """A task for each of 2,000 peers, all done: their queues are gone."""
    backlog = Backlog(OWN)
    for number in range(2_000):
        peer_id = PeerId(f"peer {number}")
        waiting = record(number, target=peer_id)
        backlog.update(waiting)
        assert len(started(decide(backlog, remote(peer_id)))) == 1
        backlog.update(completed(claimed(waiting, peer_id)))
    assert len(backlog.queues()) == 0
    assert entries(backlog) < 10 * SWEEP_SLACK


def test_sweeping_drops_only_what_does_not_wait() -> None:
    """Of 1,000 tasks, every third is cancelled: the others start, all of them, in order."""
    tasks = [record(number) for number in range(1_000)]
    backlog = backlog_of(*tasks)
    for gone in tasks[::3]:
        backlog.update(cancelled(gone))
    left = [one.id for number, one in enumerate(tasks) if number % 3]
    assert started(decide(backlog, local(2_000))) == left


# --- Tasks that need not wait ----------------------------------------------------------------------------------------


def starts(backlog: Backlog, record: TaskRecord, *workers: Worker, now: int = START_MS) -> PeerId | None:
    """Who starts a task that has just come."""
    worker = start_at_once(backlog, record, Roster(workers, OWN), now=now)
    return None if worker is None else worker.peer_id


def test_a_task_that_finds_a_free_worker_starts_at_once_and_counts() -> None:
    """It takes the slot, and its requester has one more running, without being told to the backlog."""
    backlog, worker, first, second = Backlog(OWN), local(slots=1), record(1), record(2)
    assert starts(backlog, first, worker) == OWN
    assert (worker.busy, backlog.running) == (1, 1)
    assert starts(backlog, second, worker) is None
    backlog.update(completed(claimed(first)))
    assert backlog.running == 0


def test_a_task_does_not_overtake_those_that_wait_for_the_same_workers() -> None:
    """Where somebody waits, the plan decides whose turn it is; who waits for somebody else is in nobody's way."""
    backlog, mine, away = Backlog(OWN), record(1), record(2, target=PEER)
    backlog.update(away)
    assert starts(backlog, record(3), local(slots=8)) == OWN
    assert starts(backlog, record(4, target=PEER), local(slots=8), remote(PEER)) is None
    backlog.update(mine)
    assert starts(backlog, record(5), local(slots=8)) is None
    assert starts(backlog, record(6, target=None), local(slots=8), remote(OTHER, 8, "echo")) is None


def test_a_task_that_comes_too_late_is_left_to_the_plan() -> None:
    """The plan says that its deadline has passed."""
    assert starts(Backlog(OWN), record(1, deadline=START_MS), local()) is None
    assert starts(Backlog(OWN), record(1, deadline=START_MS + 1), local()) == OWN
