"""Delegation: a task that a peer carries out is executed by asking the peer; its answers say what comes of it.

Submitting is idempotent by UUID, so an attempt after a lost connection is the same request again: the worker attaches
it to what it has, and answers with the result if that is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

import structlog

from node.coordination.receipts import Notary
from node.interfaces import Channel, ChannelHandler, Delegate, Delegation, Network, Outcome, Receipted
from protocol import (
    Accept,
    Attach,
    Cancel,
    Decline,
    ErrorCode,
    Frame,
    LocalProtocolError,
    Offer,
    PeerId,
    PeertaskError,
    Progress,
    Reject,
    Result,
    Submit,
    TaskFailed,
    TaskId,
)

log = structlog.get_logger(__name__)

# A node that was cut off longer than it takes to cancel so many tasks leaves the older ones to run to their end.
MAX_OWED_CANCELS = 1_000
# A peer answers a question about a task that is over from memory.
ASKED_RETRY_AFTER_MS = 1_000


class RemoteDelegate(Delegate, ChannelHandler):
    """Has tasks carried out by the peers that hold them.

    The errors that it finishes with are PEER_UNREACHABLE without a session, PEER_LOST when one ends before the
    result, the code of a Reject, and `TaskFailed` when the peer says that the task failed.

    Args:
        network: whose channels lead to the peers.
        trusts: tells whether a peer may be given tasks that did not name it.
        notary: checks the receipts of results; without one they are dropped.
    """

    def __init__(self, network: Network, trusts: Callable[[PeerId], bool], notary: Notary | None = None) -> None:
        self._network = network
        self._trusts = trusts
        self._notary = notary
        self._asks = notary is not None and notary.asks
        self._open: dict[Channel, dict[TaskId, Delegation]] = {}
        self._owed_cancels: dict[tuple[TaskId, PeerId], None] = {}
        self._declined: WeakSet[Channel] = WeakSet()  # one answer a session is enough

    def begin(self, delegation: Delegation) -> None:
        """Submit the task to its holder."""
        channel = self._network.channel(delegation.holder)
        if channel is None:
            delegation.finish(
                PeertaskError(f"there is no session with peer {delegation.holder}", code=ErrorCode.PEER_UNREACHABLE)
            )
            return
        try:
            channel.send(Submit(delegation.task, delegation.remaining_ms(), self._asks))
        except PeertaskError as error:
            delegation.finish(error)
            return
        self._owed_cancels.pop(
            (delegation.task.id, delegation.holder), None
        )  # what was to be stopped there is wanted again
        self._open.setdefault(channel, {})[delegation.task.id] = delegation

    def attach(self, delegation: Delegation) -> None:
        """Ask the holder for the outcome of a task that it has had, with its receipt; `finish` follows.

        Raises:
            PeertaskError: PEER_UNREACHABLE without a session, BUSY while the task is under way or asked for already.
        """
        channel = self._network.channel(delegation.holder)
        if channel is None:
            raise PeertaskError(
                f"there is no session with peer {delegation.holder}",
                code=ErrorCode.PEER_UNREACHABLE,
                remedy="Connect to it with `peertask peers --connect ADDRESS`",
            )
        try:
            channel.send(Attach(delegation.task.id, receipt=True))
        except LocalProtocolError as error:
            raise PeertaskError(
                f"peer {delegation.holder} is being asked about task {delegation.task.id} already",
                code=ErrorCode.BUSY,
                retry_after_ms=ASKED_RETRY_AFTER_MS,
            ) from error
        self._open.setdefault(channel, {})[delegation.task.id] = delegation

    def stop(self, delegation: Delegation) -> None:
        """Ask the holder to stop, now or, when the session is lost, as soon as there is one again."""
        channel = self._network.channel(delegation.holder)
        task_id = delegation.task.id
        # Owed until the holder answers: it may be lost with the session although it was sent.
        self._owe_cancel(task_id, delegation.holder)
        if channel is not None and task_id in self._open.get(channel, ()) and _send_cancel(channel, task_id):
            return
        delegation.finish(PeertaskError("the session ended before the task was stopped", code=ErrorCode.PEER_LOST))

    def abandon(self, task_id: TaskId, holder: PeerId) -> None:
        """Tell a former holder to stop, now or as soon as there is a session again."""
        channel = self._network.channel(holder)
        if channel is None or not _send_cancel(channel, task_id):
            self._owe_cancel(task_id, holder)

    def forget(self, delegation: Delegation) -> None:
        """Drop a task that its holder never answered: the prompt would be kept until the session ends."""
        channel = self._network.channel(delegation.holder)
        if channel is not None:
            self._open.get(channel, {}).pop(delegation.task.id, None)

    def _owe_cancel(self, task_id: TaskId, holder: PeerId) -> None:
        self._owed_cancels[task_id, holder] = None
        if len(self._owed_cancels) > MAX_OWED_CANCELS:
            del self._owed_cancels[next(iter(self._owed_cancels))]

    def opened(self, channel: Channel) -> None:
        """Stop what this node wanted stopped while the peer was away."""
        for task_id, peer_id in [owed for owed in self._owed_cancels if owed[1] == channel.peer_id]:
            if _send_cancel(channel, task_id):
                del self._owed_cancels[task_id, peer_id]

    def received(self, channel: Channel, frame: Frame) -> None:
        """Take an answer of a peer, or its offer; answers to tasks that were given up are dropped."""
        tasks = self._open.get(channel, {})
        if self._owed_cancels and isinstance(frame, Result | Reject):
            self._owed_cancels.pop((frame.task_id, channel.peer_id), None)
        match frame:
            case Accept():
                if (delegation := tasks.get(frame.task_id)) is not None:
                    delegation.started()
            case Result() | Reject():
                if (delegation := tasks.pop(frame.task_id, None)) is not None:
                    delegation.finish(self._outcome_of(delegation, frame))
            case Progress():
                if (delegation := tasks.get(frame.task_id)) is not None:
                    delegation.progress(frame.fraction, frame.message)
            case Offer():
                self._consider(channel, frame)
            case _:
                log.warning("unexpected answer dropped", frame=type(frame).__name__, peer_id=channel.peer_id)

    def _outcome_of(self, delegation: Delegation, frame: Result | Reject) -> Outcome:
        if isinstance(frame, Reject):
            return _refusal(delegation.holder, frame)
        if frame.failure is not None:
            return TaskFailed(frame.failure)
        if frame.result is None:
            return PeertaskError("the peer sent a Result without a result or a failure", code=ErrorCode.PROTOCOL)
        if frame.receipt is None or self._notary is None:
            return frame.result
        faults = self._notary.faults(frame.receipt, delegation.holder, delegation.task, frame.result)
        if not faults:
            return Receipted(frame.result, frame.receipt)
        # The result is the peer's all the same: the session says so, though nothing proves it to others.
        log.warning("receipt dropped", task_id=frame.task_id, peer_id=delegation.holder, faults=faults)
        return frame.result

    def _consider(self, channel: Channel, offer: Offer) -> None:
        """Decline the offer of a peer that this node gives no work; that of another is in the roster by now."""
        if not offer.slots or channel in self._declined:
            return
        if self._network.channel(channel.peer_id) is not channel:
            message = "an offer comes after the greeting. Begin the session with Hello"
        elif not self._trusts(channel.peer_id):
            message = f"its operator has not named you. The operator can: peertask node --worker {channel.peer_id}"
        else:
            log.info("work was asked for", peer_id=channel.peer_id, slots=offer.slots)
            return
        self._declined.add(channel)
        log.warning("an offer was declined", peer_id=channel.peer_id, reason=message)
        with suppress(PeertaskError):  # the session is over: nobody listens
            channel.send(Decline(ErrorCode.FORBIDDEN, message))

    def closed(self, channel: Channel, reason: str) -> None:
        """Lose everything that was under way on a channel."""
        for delegation in self._open.pop(channel, {}).values():
            delegation.finish(
                PeertaskError(f"the session with peer {channel.peer_id} ended: {reason}", code=ErrorCode.PEER_LOST)
            )


def _send_cancel(channel: Channel, task_id: TaskId) -> bool:
    try:
        channel.send(Cancel(task_id))
    except PeertaskError as error:
        log.info("cancel not sent", task_id=task_id, peer_id=channel.peer_id, reason=str(error))
        return False
    return True


def _refusal(peer_id: PeerId, frame: Reject) -> PeertaskError:
    return PeertaskError(
        f"peer {peer_id} refused the task: {frame.message}",
        code=frame.code,
        retry_after_ms=frame.retry_after_ms,
    )
