"""What peers ask of this node: a task to be done, the outcome of one, or that it stop.

Every answer follows a fact of the feed, so a peer is told nothing that is not saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from weakref import WeakValueDictionary

import structlog

from node.coordination.personas import check_declared
from node.coordination.quotas import Access, Usage, task_size
from node.coordination.receipts import Notary
from node.feed import Feed
from node.gateways.offering import Offering
from node.interfaces import Change, Channel, ChannelHandler, Clock, Executor, TaskService
from node.persona_library import PersonaLibrary
from protocol import (
    Accept,
    Attach,
    Cancel,
    Decline,
    ErrorCode,
    Failure,
    Frame,
    PeerId,
    PeertaskError,
    Progress,
    Progressed,
    Reject,
    Result,
    Submit,
    Task,
    TaskFailed,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TooLarge,
)

log = structlog.get_logger(__name__)

# A full disk or a server that is away is not over in less.
UNSAVED_RETRY_AFTER_MS = 1_000


class PeerGateway(ChannelHandler):
    """Translates the worker's half of a session to the task service, and its facts back.

    Args:
        service: what is asked.
        feed: what is answered from.
        clock: turns remaining time into a deadline.
        own_id: this node, which is to do what peers ask.
        executors: what this node can do, by kind.
        access: who may use what.
        usage: what a peer has open here.
        saved: the record of a task as it is saved; None when there is none.
        notary: signs the receipts of results; without one they carry none.
        offering: what this node offers to the one that it works for; None when it works for nobody in particular.
        outside_kinds: what outside workers of this node can do; nothing by default.
        outside_personas: whom those of them act as that do a kind; nobody by default.

    Attributes:
        personas: whom this node acts as, to be set before it runs; None when it does not look at personas.
    """

    def __init__(  # noqa: PLR0913 - what a peer asks for meets all of them here
        self,
        service: TaskService,
        feed: Feed,
        clock: Clock,
        *,
        own_id: PeerId,
        executors: Mapping[str, Executor],
        access: Access,
        usage: Callable[[PeerId], Usage],
        saved: Callable[[TaskId], TaskRecord | None],
        notary: Notary | None = None,
        offering: Offering | None = None,
        outside_kinds: Callable[[], Iterable[str]] = tuple,
        outside_personas: Callable[[str], Iterable[str]] = lambda _kind: (),
    ) -> None:
        self._service = service
        self._feed = feed
        self._clock = clock
        self._own_id = own_id
        self._executors = executors
        self._access = access
        self._usage = usage
        self._saved = saved
        self._notary = notary
        self._offering = offering
        self.personas: PersonaLibrary | None = None
        self._outside_kinds = outside_kinds
        self._outside_personas = outside_personas
        self._repeated: WeakValueDictionary[TaskId, _Delivery] = WeakValueDictionary()

    def kinds_for(self, peer_id: PeerId) -> tuple[str, ...]:
        """Return the kinds that a peer may use here, sorted; what its Hello says."""
        return self._access.kinds_for(peer_id, self._safety())

    def opened(self, channel: Channel) -> None:
        """Wait for what the peer asks, or ask it for work."""
        if self._offering is not None:
            self._offering.make(channel)

    def received(self, channel: Channel, frame: Frame) -> None:
        """Answer a frame of a requester."""
        match frame:
            case Submit():
                self._submit(channel, frame)
            case Attach():
                self._attach(channel, frame)
            case Cancel():
                self._cancel(channel, frame.task_id)
            case Decline() if self._offering is not None:
                self._offering.take_decline(channel, frame)
            case _:
                log.warning("unexpected request dropped", frame=type(frame).__name__, peer_id=channel.peer_id)

    def closed(self, channel: Channel, reason: str) -> None:
        """Leave the tasks of the peer alone: it may attach to them again."""

    def _submit(self, channel: Channel, frame: Submit) -> None:
        task = frame.task
        delivery = _Delivery(channel, self._saved, self._notary, receipt_asked=frame.receipt)
        self._feed.listen_to(task.id, delivery.take)
        try:
            self._admit(channel, task)
            deadline = None if frame.remaining_ms is None else self._clock.now() + frame.remaining_ms
            self._service.submit(task, requester=channel.peer_id, target=self._own_id, deadline=deadline)
        except PeertaskError as error:
            self._feed.unlisten_to(task.id, delivery.take)
            _reject(channel, task.id, _for_strangers(error))
            return
        if not delivery.begun and (record := self._service.find_task(task.id)) is not None:
            self._deliver_again(record, delivery)

    def _admit(self, channel: Channel, task: Task) -> None:
        if task.sender != channel.peer_id:
            raise TaskRejected(
                f"the sender of the task is {task.sender}, but the peer of this connection is {channel.peer_id}",
                remedy="Name your own peer id as the sender",
            )
        if self._service.find_task(task.id) is not None:
            return
        executor = self._executors.get(task.kind)
        if executor is None or not executor.safe or self._access.works_for is not None:
            self._access.check_kind(channel.peer_id, task.kind, self._safety())
        if task.persona is not None and self.personas is not None:
            here = () if executor is None else self.personas.declared
            check_declared(task.persona, {*here, *self._outside_personas(task.kind)})
        self._access.check_usage(channel.peer_id, self._usage(channel.peer_id), task_size(task))

    def _attach(self, channel: Channel, frame: Attach) -> None:
        task_id = frame.task_id
        record = self._own_record(channel, task_id)
        if record is None:
            _reject(channel, task_id, TaskNotFound(f"this node has no task {task_id} of yours"))
            return
        delivery = _Delivery(channel, self._saved, self._notary, receipt_asked=frame.receipt)
        self._feed.listen_to(task_id, delivery.take)
        self._deliver_again(record, delivery)

    def _deliver_again(self, record: TaskRecord, delivery: _Delivery) -> None:
        """Tell of a task that the peer has asked for before, now and from now on."""
        delivery.catch_up(record)
        if record.terminal:
            self._feed.unlisten_to(record.id, delivery.take)
            return
        # A peer that comes back again and again must not leave more than one session behind for each task.
        former = self._repeated.get(record.id)
        if former is not None and former.is_over:
            self._feed.unlisten_to(record.id, former.take)
        self._repeated[record.id] = delivery

    def _cancel(self, channel: Channel, task_id: TaskId) -> None:
        with suppress(TaskNotFound):  # it is not the peer's, or is forgotten: a Cancel has no answer then
            self._service.cancel_task(task_id, requester=channel.peer_id)

    def _own_record(self, channel: Channel, task_id: TaskId) -> TaskRecord | None:
        """Return the record if the peer is its requester; others must not learn that it exists."""
        record = self._service.find_task(task_id)
        return record if record is not None and record.requester == channel.peer_id else None

    def _safety(self) -> dict[str, bool]:
        safety = {kind: executor.safe for kind, executor in self._executors.items()}
        return safety | dict.fromkeys(set(self._outside_kinds()).difference(safety), False)


class _Delivery:
    """Tells one channel what happens to one task; of one that has ended by then, its Result alone.

    Attributes:
        begun: whether the task is known to be saved, so that a failure from then on is its end, and no refusal.
    """

    __slots__ = ("__weakref__", "_accepted", "_channel", "_notary", "_receipt_asked", "_saved", "begun")

    def __init__(
        self,
        channel: Channel,
        saved: Callable[[TaskId], TaskRecord | None],
        notary: Notary | None,
        *,
        receipt_asked: bool,
    ) -> None:
        self._channel = channel
        self._saved = saved
        self._notary = notary
        self._receipt_asked = receipt_asked
        self._accepted = False
        self.begun = False

    @property
    def is_over(self) -> bool:
        """Whether nobody hears it any more."""
        return self._channel.closed

    def take(self, change: Change) -> None:
        """Pass a change on, as far as the protocol has words for it."""
        record, fact = change
        if not self.begun:
            if record.failure is not None:  # the store has refused it: the first fact of a task is no failure
                _reject(self._channel, record.id, TaskFailed(record.failure))
                return
            self._begin(record, self._saved(record.id) or record)
        if record.terminal:
            self._finish(record)
        elif self._accepted and type(fact) is Progressed:
            _send(
                self._channel,
                Progress(task_id=record.id, seq=record.seq, fraction=record.progress, message=record.progress_message),
            )

    def catch_up(self, record: TaskRecord) -> None:
        """Accept a task that is known, or tell its end if that has come."""
        self._begin(record, record)
        if record.terminal:
            self._finish(record)

    def _begin(self, record: TaskRecord, saved: TaskRecord) -> None:
        """Accept the task, unless its end is saved already, and about to be told: a Result says Accept too."""
        self.begun = True
        self._accepted = not saved.terminal
        if self._accepted:
            _send(self._channel, Accept(record.id, record.seq))

    def _finish(self, record: TaskRecord) -> None:
        notary = self._notary
        receipt = None if notary is None else notary.with_result(record, asked=self._receipt_asked)
        frame = Result(task_id=record.id, seq=record.seq, result=record.result, failure=record.failure, receipt=receipt)
        error = _send(self._channel, frame)
        if isinstance(error, TooLarge):
            failure = Failure.from_error(error)
            _send(self._channel, Result(task_id=record.id, seq=record.seq, failure=failure))


def _for_strangers(error: PeertaskError) -> PeertaskError:
    """Return what a peer may know: that nothing can be saved is trouble of this node, and where it would be its own."""
    if error.code is not ErrorCode.STORE_FAILED:
        return error
    log.warning("a task was refused, because it cannot be saved", reason=str(error))
    return TaskRejected(
        "this node cannot save tasks at the moment", code=ErrorCode.BUSY, retry_after_ms=UNSAVED_RETRY_AFTER_MS
    )


def _reject(channel: Channel, task_id: TaskId, error: PeertaskError) -> None:
    log.info("task refused", task_id=task_id, peer_id=channel.peer_id, code=error.code.value, reason=error.message)
    message = Failure.from_error(error).message  # cut to what a frame takes
    frame = Reject(task_id=task_id, code=error.code, message=message, retry_after_ms=error.retry_after_ms)
    _send(channel, frame)


def _send(channel: Channel, frame: Frame) -> PeertaskError | None:
    """Send unless the session is over, when the peer will ask again on the next one; return why a frame is not sent.

    What a peer does not take must not reach the parts of the node that told of it.
    """
    if channel.closed:
        return None
    try:
        channel.send(frame)
    except PeertaskError as error:
        log.info("answer not sent", peer_id=channel.peer_id, frame=type(frame).__name__, reason=str(error))
        return error
    return None
