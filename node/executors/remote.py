"""Delegation: a task that a peer carries out is executed by asking the peer and waiting for its answer.

Submitting is idempotent by UUID, so an attempt after a lost connection is the same request again: the worker attaches it to
what it has, and answers with the result if that is there already.
"""

from __future__ import annotations

import structlog
import trio

from node.interfaces import Channel, ChannelHandler, Execution, Executor, Network, Output
from protocol import (
    Accept,
    Cancel,
    ErrorCode,
    Frame,
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

# A worker has as long as this to stop a task and say so: TERM and KILL of a process group take it 5 s at most.
CANCEL_GRACE_S = 10.0
# A node that was cut off longer than it takes to cancel so many tasks leaves the older ones to run to their end.
MAX_OWED_CANCELS = 1_000


class RemoteExecutor(Executor, ChannelHandler):
    """Carries tasks out by the peers that hold them.

    Args:
        network: whose channels lead to the peers.
    """

    kind = "remote"
    starts_itself = True

    def __init__(self, network: Network) -> None:
        self.slots = 0
        self._network = network
        self._delegations: dict[Channel, dict[TaskId, _Delegation]] = {}
        self._owed_cancels: dict[TaskId, PeerId] = {}

    async def execute(self, execution: Execution) -> Output:
        """Ask the holder for the task, and return its result.

        Cancellation asks the holder to stop, and waits at most 10 s for its last word: a result that was there first is
        returned all the same.

        Raises:
            PeertaskError: PEER_UNREACHABLE without a session, PEER_LOST when it ends before the result, BUSY and the other
                codes of Reject as the peer gave them.
            TaskFailed: the peer says that the task failed.
        """
        channel = self._network.channel(execution.holder)
        if channel is None:
            raise PeertaskError(f"there is no session with peer {execution.holder}", code=ErrorCode.PEER_UNREACHABLE)
        delegation = _Delegation(execution)
        task_id = execution.task.id
        channel.send(Submit(execution.task, execution.remaining_ms()))
        tasks = self._delegations.setdefault(channel, {})
        tasks[task_id] = delegation
        try:
            await self._outcome(channel, delegation)
        finally:
            tasks.pop(task_id, None)
        return delegation.output()

    async def _outcome(self, channel: Channel, delegation: _Delegation) -> None:
        try:
            await delegation.ended.wait()
        except trio.Cancelled:
            self._ask_to_stop(channel, delegation)
            with trio.move_on_after(CANCEL_GRACE_S, shield=True):
                await delegation.ended.wait()
            if not delegation.complete:
                raise

    def _ask_to_stop(self, channel: Channel, delegation: _Delegation) -> None:
        task_id = delegation.execution.task.id
        try:
            channel.send(Cancel(task_id))
        except PeertaskError:
            self._owed_cancels[task_id] = channel.peer_id
            while len(self._owed_cancels) > MAX_OWED_CANCELS:
                self._owed_cancels.pop(next(iter(self._owed_cancels)))
            delegation.lose("the session ended before the task could be cancelled")

    def received(self, channel: Channel, frame: Frame) -> None:
        """Take an answer of a peer to its delegation; answers to tasks that were given up are dropped."""
        delegation = self._delegations.get(channel, {}).get(getattr(frame, "task_id", TaskId("")))
        if delegation is not None:
            delegation.take(frame)

    def opened(self, channel: Channel) -> None:
        """Cancel what this node wanted stopped while the peer was away."""
        owed = [task_id for task_id, peer_id in self._owed_cancels.items() if peer_id == channel.peer_id]
        for task_id in owed:
            del self._owed_cancels[task_id]
            channel.send(Cancel(task_id))

    def closed(self, channel: Channel, reason: str) -> None:
        """Lose everything that was under way on a channel."""
        for delegation in self._delegations.pop(channel, {}).values():
            delegation.lose(reason)


class _Delegation:
    """One task at one peer: what it has answered so far."""

    __slots__ = ("_error", "_output", "ended", "execution")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.ended = trio.Event()
        self._output: Output | None = None
        self._error: PeertaskError | None = None

    @property
    def complete(self) -> bool:
        """Whether the peer sent a result."""
        return self._output is not None

    def take(self, frame: Frame) -> None:
        match frame:
            case Result():
                self._take_result(frame)
            case Accept():
                self.execution.started()
            case Progress():
                self.execution.started()
                self.execution.progress(frame.fraction, frame.message)
            case Reject():
                self._end_with(
                    PeertaskError(
                        f"peer {self.execution.holder} refused the task: {frame.message}",
                        code=frame.code,
                        retry_after_ms=frame.retry_after_ms,
                    )
                )
            case _:
                log.warning("unexpected answer dropped", frame=type(frame).__name__, peer_id=self.execution.holder)

    def _take_result(self, frame: Result) -> None:
        if frame.result is not None:
            self._output = Output(frame.result.result, frame.result.artifacts, frame.result.duration_ms)
            self.ended.set()
        elif frame.failure is not None:
            self._end_with(TaskFailed(frame.failure))

    def lose(self, reason: str) -> None:
        self._end_with(
            PeertaskError(f"the session with peer {self.execution.holder} ended: {reason}", code=ErrorCode.PEER_LOST)
        )

    def _end_with(self, error: PeertaskError) -> None:
        self._error = error
        self.ended.set()

    def output(self) -> Output:
        if self._output is not None:
            return self._output
        raise self._error or PeertaskError("a delegation ended without an answer")
