"""The loop: wake, ask the plan, start and cancel executors, record what came of them.

It keeps nothing that the records do not say: the backlog is told of every change, and a wake-up that is lost costs
time only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
import trio

from node.config import LEASE_MS
from node.coordination.blocked import BlockedTasks
from node.coordination.dependencies import for_worker, with_inputs
from node.coordination.explain import Explanation, explain
from node.coordination.hindrances import Situation, never_started
from node.coordination.leases import Lease, lapsed, lease_lost
from node.coordination.placement import NO_ROOM
from node.coordination.plan import Backlog, plan, start_at_once
from node.coordination.retries import after_restart, pause_ms
from node.coordination.roster import Roster, Worker
from node.dispatcher.attempt import Attempt
from node.dispatcher.limits import TimeLimits
from node.dispatcher.recorder import Recorder
from node.dispatcher.roll import Roll
from node.feed import Feed
from node.interfaces import Change, Clock, Delegate, Executor, Network, Outcome
from node.manager import TaskManager
from node.persona_library import PersonaLibrary
from node.runners import RunnerPool
from node.work.offers import Offers
from node.work_service import Assigner
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    IllegalTransition,
    PeerId,
    PeertaskError,
    Progressed,
    Released,
    Started,
    Submitted,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TaskStatus,
)

log = structlog.get_logger(__name__)

# A worker has as long as this to stop a task and say so: TERM and KILL of a process group take it 5 s at most.
CANCEL_GRACE_MS = 10_000

_STOPPED = frozenset({TaskStatus.CANCELLING, TaskStatus.CANCELLED})
# What the dispatcher itself records: it has acted on it already.
_OWN_FACTS = frozenset({Claimed, Started, Progressed})


class Dispatcher(Assigner):
    """Brings waiting tasks to those who can do them.

    Args:
        manager: the map, which this is told to change.
        feed: tells of changes.
        clock: tells the time.
        network: whose open channels are peers that can take tasks.
        executors: those of this node, by kind; may grow while it runs, when `wake` is called after.
        remote: hands to a peer what it is to do.
        rng: draws the jitter of retries.
        trusts: tells whether a peer may be given tasks that did not name it.
        offers: the agents that ask for tasks, and what they have; nobody when None.
        lease_ms: the length of a lease, in milliseconds.
    """

    def __init__(  # noqa: PLR0913 - it is where all parts meet
        self,
        manager: TaskManager,
        feed: Feed,
        clock: Clock,
        network: Network,
        executors: Mapping[str, Executor],
        remote: Delegate,
        rng: random.Random,
        trusts: Callable[[PeerId], bool],
        *,
        offers: Offers | None = None,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._network = network
        self._executors = executors
        self._remote = remote
        self._trusts = trusts
        self._offers = offers or Offers()
        self.lease_ms = lease_ms
        self._leases_due: int | None = None
        self._own_id = network.peer_id
        self._backlog = Backlog(self._own_id, rng)
        self._blocked = BlockedTasks(manager.dependencies, manager.dependency, self._fail_blocked)
        self._roll = Roll(network, executors, self._offers, trusts)
        self._recorder = Recorder(manager, clock, rng, self._backlog, self._roll, self._own_id)
        self._nursery: trio.Nursery | None = None
        self._attempts: dict[TaskId, Attempt] = {}
        self._pools: dict[str, RunnerPool] = {}
        self._limits = TimeLimits()
        self._former: dict[TaskId, set[PeerId]] = {}
        self._wake = trio.Event()
        self._idle = trio.Event()
        feed.listen(self._observe)
        manager.on_unsaved(self._begin_unsaved)
        network.on_change(self._peers_changed)

    @property
    def personas(self) -> PersonaLibrary | None:
        """Whom this node acts as, to be set before it runs; None when it does not look, and does what it is given."""
        return self._roll.personas

    @personas.setter
    def personas(self, personas: PersonaLibrary | None) -> None:
        self._roll.personas = personas

    @property
    def waiting(self) -> int:
        """How many tasks wait for an executor."""
        return len(self._backlog.tasks)

    @property
    def executing(self) -> int:
        """How many attempts run, at this node and at its peers."""
        return len(self._attempts)

    @property
    def delegated(self) -> int:
        """How many slots of connected peers are taken by tasks of this node."""
        return self._roll.busy_elsewhere

    @property
    def local_load(self) -> int:
        """How many tasks this node's own executors have, waiting ones included."""
        return self._backlog.waiting_here + self._roll.busy_here

    def wake(self) -> None:
        """Ask the plan again soon, and look at the executors anew."""
        self._roll.forget()
        self._wake.set()

    def explain(self, record: TaskRecord, facts: Sequence[Fact]) -> Explanation:
        """Tell why a task is where it is, given what has happened to it."""
        away = {
            peer.peer_id: peer.last_error
            for peer in self._network.peers()
            if not peer.connected and (peer.peer_id == record.target or self._trusts(peer.peer_id))
        }
        return explain(record, facts, self._situation(record, self._roll.whole(), away))

    def _situation(self, record: TaskRecord, roster: Roster, away: Mapping[PeerId, str]) -> Situation:
        return Situation(
            roster=roster,
            backlog=self._backlog,
            away=away,
            draining=self._manager.draining,
            now=self._clock.now(),
            awaited=self._manager.awaited(record),
        )

    async def run(self) -> None:
        """Dispatch until cancelled; what runs here is stopped and released then."""
        self._restore()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    self._wake = trio.Event()
                    await self._sleep_until(self._dispatch(nursery))
        finally:
            self._nursery = None
            for attempt in list(self._attempts.values()):
                if not attempt.worker.agent:  # what agents do goes on, and they are there when the node is again
                    self._recorder.release(attempt)

    async def _sleep_until(self, wake_at: int | None) -> None:
        if wake_at is None:
            await self._wake.wait()
            return
        with trio.move_on_after(max(0.0, (wake_at - self._clock.now()) / 1000)):
            await self._wake.wait()

    async def drain(self) -> None:
        """Return when no attempt runs any more; tasks that wait keep waiting."""
        while self._attempts:
            self._idle = trio.Event()
            await self._idle.wait()

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Go on with what the store held: what was under way when the last process ended is planned again.

        That it is given up must be saved first, as the feed will tell: otherwise it would be planned twice. A cancel
        may have come before, and then that is recorded.

        Whoever was to stop a task may not have heard of it, and is told when it is connected again, however often this
        node has ended since: a record does not tell, and to stop a task twice does no harm.
        """
        for record in reversed(self._manager.list_tasks()):
            if record.status in _STOPPED:
                self._tell_to_stop(record)
            if record.terminal or record.id in self._attempts:
                continue
            if record.status is TaskStatus.PENDING:
                if not (record.task.depends_on and self._blocked.takes(record)):
                    self._backlog.update(record)
                continue
            if self._offers.keeps(record):
                self._resume(record)
                continue
            self._recorder.record(after_restart(record, self._own_id, self._clock.now()))
        self._cancel_children_left()

    def _cancel_children_left(self) -> None:
        """Cancel the children of cancelled tasks: a crash may have come when only the first cancel was saved."""
        for record in self._manager.list_tasks():
            if record.status in _STOPPED:
                self._manager.cancel_task(record.id)

    def _resume(self, record: TaskRecord) -> None:
        """Let an agent keep what it was doing when the process of this node ended: it has a whole lease to say so."""
        attempt = Attempt(self, self._manager, self._clock, record, self._offers.worker_of(record), self._clock.now())
        attempt.attempt = record.attempt
        attempt.has_started = record.status is not TaskStatus.CLAIMED
        self._attempts[record.id] = attempt
        self._backlog.update(record)
        self._offers.begin(attempt)
        self._watch(attempt)
        if record.status is TaskStatus.CANCELLING:
            self._cancel(record)

    def _observe(self, change: Change) -> None:
        record, fact = change
        kind = type(fact)
        if kind in _OWN_FACTS or (record.task.depends_on and self._holds_back(record)):
            return
        if kind is Submitted and (not self._manager.is_latest(record) or self._starts_at_once(record)):
            return  # it has begun, or what has come of it follows
        if kind is Cancelled:
            self._abandon(record)
        elif isinstance(fact, Released) and record.holder is not None:
            self._backlog.refusals.note(record.id, record.holder, fact.reason)
        self._backlog.update(record)
        if record.terminal:
            if self._former:
                self._stop_former_holders(record)
            if self._blocked:
                self._let_dependents_go(record)
        if kind is CancelRequested or (kind is Failed and record.id in self._attempts):
            self._cancel(record)  # what fails before its attempt has ended was taken from this node
        else:
            self._wake_if_waiting()

    def _holds_back(self, record: TaskRecord) -> bool:
        if not self._blocked.takes(record):
            return False
        if record.deadline is not None:
            self._wake.set()
        return True

    def _fail_blocked(self, record: TaskRecord, failure: Failure) -> None:
        self._recorder.record(Failed(record.id, self._clock.now(), record.attempt, failure))

    def _let_dependents_go(self, ended: TaskRecord) -> None:
        for record in self._blocked.let_go(ended):
            if not self._starts_at_once(record):
                self._backlog.update(record)

    def _begin_unsaved(self, record: TaskRecord, fresh: bool) -> None:  # noqa: FBT001 - as the manager calls it
        """Begin a task while it is being saved, where it need not wait for others: one commit less to wait for.

        After a crash before that, nobody was told that it is accepted, and whoever asks again has it done again.
        """
        if (fresh or record.target == self._own_id) and not record.task.depends_on:
            self._starts_at_once(record)

    def _starts_at_once(self, record: TaskRecord) -> bool:
        nursery, now = self._nursery, self._clock.now()
        if nursery is None or self._manager.draining:
            return False
        worker = start_at_once(self._backlog, record, self._roll.last(), now=now)
        if worker is None:
            return False
        self._start(record, worker, now, nursery)
        return True

    def _abandon(self, record: TaskRecord) -> None:
        """Tell a peer that was lost with a task, and may still work on it, that nobody waits for its answer."""
        if record.lost_leases:
            self._tell_to_stop(record)

    def _note_former_holder(self, record: TaskRecord) -> None:
        """Remember a peer that was lost with a task which somebody else begins now, until the task has ended.

        To stop it sooner would be final for that peer, and the task may come back to it, and find it at work.
        """
        if record.lost_leases and record.holder is not None:
            self._former.setdefault(record.id, set()).add(record.holder)

    def _stop_former_holders(self, record: TaskRecord) -> None:
        for holder in self._former.pop(record.id, set()) - {record.holder}:
            self._tell_holder_to_stop(record.id, holder)

    def _tell_to_stop(self, record: TaskRecord) -> None:
        """Tell the peer that had a task, if one had it; an agent, a former one too, hears it when it asks."""
        self._tell_holder_to_stop(record.id, record.holder)

    def _tell_holder_to_stop(self, task_id: TaskId, holder: PeerId | None) -> None:
        if holder not in (None, self._own_id) and not self._offers.knows(holder) and self._network.is_peer_id(holder):
            self._remote.abandon(task_id, holder)

    def _wake_if_waiting(self) -> None:
        if self._backlog.tasks and not self._wake.is_set():
            self._wake.set()

    def _peers_changed(self) -> None:
        self._roll.peers_changed()
        self.wake()

    def _dispatch(self, nursery: trio.Nursery) -> int | None:
        now = self._clock.now()
        ends = (self._end_overdue(now), self._end_lapsed(now))
        if self._manager.draining:
            return min((at for at in ends if at is not None), default=None)
        decision = plan(self._backlog, self._roll.call(), now=now)
        if late := (*decision.expired, *self._blocked.expired(now)):
            self._expire(late, now)
        for task_id, worker in decision.starts:
            self._start(self._manager.latest(task_id), worker, now, nursery)
        wake_ats = (*ends, decision.wake_at, self._blocked.next_deadline())
        return min((at for at in wake_ats if at is not None), default=None)

    # --- for those who ask for work ----------------------------------------------------------------------------------

    def plan_now(self) -> None:
        """Ask the plan at once; see `Assigner.plan_now`."""
        self._check_gives_work()
        if self._nursery is not None:
            self._dispatch(self._nursery)
        self.wake()

    def claim_for(self, worker: Worker, task_id: TaskId) -> bool:
        """Give a worker a task out of turn; see `Assigner.claim_for`."""
        self._check_gives_work()
        now = self._clock.now()
        record = None if self._nursery is None else self._backlog.claim(task_id, now)
        if record is None or self._nursery is None:
            return False
        worker.busy += 1
        self._start(record, worker, now, self._nursery)
        return True

    def waiting_tasks(self) -> list[TaskRecord]:
        """Return what waits for a worker, by priority, then by age."""
        return self._backlog.waiting(self._clock.now())

    def _check_gives_work(self) -> None:
        if self._manager.draining:
            raise TaskRejected("this node is stopping and gives no more work", code=ErrorCode.DRAINING)

    def _expire(self, late: Iterable[TaskId], now: int) -> None:
        roster = self._roll.whole()
        for record in map(self._manager.latest, late):
            failure = never_started(record, self._situation(record, roster, {}))
            self._recorder.record(Failed(record.id, now, record.attempt, failure))

    # --- executing ---------------------------------------------------------------------------------------------------

    def _start(self, record: TaskRecord, worker: Worker, now: int, nursery: trio.Nursery) -> None:
        task_id = record.id
        attempt = Attempt(self, self._manager, self._clock, record, worker, now)
        claimed = Claimed(task_id, now, attempt.attempt, worker.peer_id, now + self.lease_ms)
        # Before anybody is told of the claim, because whoever is may cancel the task at once.
        self._attempts[task_id] = attempt
        attempt.has_started = worker.peer_id == self._own_id
        try:
            if attempt.has_started:
                self._manager.apply(claimed, Started(task_id, now, attempt.attempt))
            else:
                self._manager.apply(claimed)
        except (IllegalTransition, TaskNotFound):
            # A cancel or a refusal is on its way: the task is out of the backlog, or will be, and stays so.
            del self._attempts[task_id]
            self._return_slot(worker)
            return
        if attempt.over:
            return
        if (record.task.depends_on or record.task.parent_id is not None) and not self._prepare(attempt):
            return
        if record.holder != worker.peer_id:
            self._note_former_holder(record)
        if attempt.has_started:
            self._pool(record.task.kind, nursery).run_soon(attempt)
        else:
            self._delegate(attempt)

    def _prepare(self, attempt: Attempt) -> bool:
        """Give an attempt the results of what its task depends on; one that cannot have them ends at once."""
        try:
            task = with_inputs(attempt.task, self._manager.dependency)
        except PeertaskError as error:
            attempt.finish(error)
            return False
        attempt.task = task if attempt.holder == self._own_id else for_worker(task)
        return True

    def _pool(self, kind: str, nursery: trio.Nursery) -> RunnerPool:
        pool = self._pools.get(kind)
        if pool is None or pool.executor is not self._executors[kind]:
            if pool is not None:
                pool.retire()
            pool = self._pools[kind] = RunnerPool(self._executors[kind], nursery)
        return pool

    def _delegate(self, attempt: Attempt) -> None:
        self._watch(attempt)
        self._delegate_of(attempt).begin(attempt)

    def _delegate_of(self, attempt: Attempt) -> Delegate:
        return self._offers if attempt.worker.agent else self._remote

    def _watch(self, attempt: Attempt) -> None:
        """End a delegated attempt that takes too long; of an agent also one whose lease lapses."""
        agent = attempt.worker.agent
        # A peer sees itself to the time that one execution may take, and its session tells whether it lives.
        limit = attempt.limit_ms() if agent else attempt.remaining_ms()
        if limit is not None:
            self._limit(attempt, self._clock.now() + limit)
        if agent and self._leases_due is None:
            self._leases_due = attempt.begun_at + self.lease_ms
            self._wake.set()

    def _limit(self, attempt: Attempt, at: int) -> None:
        """End a delegated attempt at a time, whatever its peer does."""
        self._limits.add(attempt, at, running=len(self._attempts))
        self._wake.set()

    def _end_overdue(self, now: int) -> int | None:
        """End the delegated attempts whose limit has passed, and return the next limit."""
        for attempt in self._limits.overdue(now):
            delegate = self._delegate_of(attempt)
            if not attempt.cancel_requested:
                delegate.stop(attempt)
            attempt.finish(attempt.why_stopped())
            delegate.forget(attempt)
        return self._limits.next_at

    def _end_lapsed(self, now: int) -> int | None:
        """End the attempts of agents whose lease has lapsed, and return when to look again."""
        if self._leases_due is None or self._leases_due > now:
            return self._leases_due
        leases = (
            (attempt, Lease(attempt.begun_at, attempt.has_started, self._offers.seen_at(attempt)))
            for attempt in self._attempts.values()
            if attempt.worker.agent
        )
        over, self._leases_due = lapsed(leases, now=now, lease_ms=self.lease_ms)
        for attempt in over:
            attempt.finish(lease_lost(self._manager.latest(attempt.task.id), self.lease_ms))
            self._offers.forget(attempt)
        return self._leases_due

    def _cancel(self, record: TaskRecord) -> None:
        attempt = self._attempts.get(record.id)
        if attempt is None:
            self._recorder.record(Cancelled(record.id, self._clock.now()))
            return
        attempt.cancel_requested = True
        if attempt.holder != self._own_id:
            self._limit(attempt, self._clock.now() + CANCEL_GRACE_MS)
            self._delegate_of(attempt).stop(attempt)
        elif attempt.scope is not None:
            attempt.scope.cancel()
        else:
            attempt.finish(attempt.why_stopped())

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of the end of an attempt; called by it, once."""
        del self._attempts[attempt.task.id]
        worker = self._return_slot(attempt.worker)
        if isinstance(outcome, PeertaskError) and outcome.code in NO_ROOM:
            worker.busy_until = self._clock.now() + pause_ms(outcome.retry_after_ms)
        if not self._attempts:
            self._idle.set()
        self._recorder.conclude(attempt, outcome)

    def _return_slot(self, worker: Worker) -> Worker:
        owner = self._roll.successor(worker)
        owner.busy -= 1
        self._wake_if_waiting()
        return owner
