"""Which frame may follow which, for both roles, as a table.

Two conversations run over a stream. The *session* has one state for each direction: nothing, greeted, or ended. Each
*task* has a state at either end, and a role: whoever submits or attaches is its requester, the other its worker. The
table does not know which of the two this node is: the same law judges what is sent and what is received.

::

    requester                                     worker
    idle ── Submit | Attach ──► waiting           idle ◄── Cancel (crossed the Result)
    waiting ◄── Accept ── running                 waiting ── Accept ──► running
    waiting ◄── Reject | Result ── idle           waiting ── Reject | Result ──► idle
    running ◄── Progress* · Result ── idle        running ── Progress* · Result ──► idle
    waiting, running ── Cancel ──► cancelling     … and the Result, or the Reject, still comes

A Result that answers a Submit or an Attach says Accept too: a task that has ended by then has nothing to wait for.

A Cancel may cross the Result on the wire: the worker is idle again when it comes. So a Cancel is allowed when idle, at
both ends, and has no answer then; it also stops a task of an earlier session. Frames of one stream stay in order, so
that is the only crossing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import (
    Accept,
    Attach,
    Bye,
    Cancel,
    Chunk,
    Decline,
    Discover,
    Frame,
    Heartbeat,
    Hello,
    Offer,
    Peers,
    Progress,
    Register,
    Registered,
    Reject,
    Result,
    Submit,
    TaskFrame,
)
from protocol.task import TaskId


class Role(StrEnum):
    """What one end is for one task."""

    REQUESTER = "requester"
    WORKER = "worker"


class TaskState(StrEnum):
    """How far the conversation about one task is, as one end sees it."""

    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"


class SessionState(StrEnum):
    """How far one direction of a session is."""

    FRESH = "fresh"
    OPEN = "open"
    ENDED = "ended"


_IDLE, _WAITING, _RUNNING, _CANCELLING = TaskState.IDLE, TaskState.WAITING, TaskState.RUNNING, TaskState.CANCELLING

SPOKEN_BY: dict[type[Frame], Role] = {
    Submit: Role.REQUESTER,
    Attach: Role.REQUESTER,
    Cancel: Role.REQUESTER,
    Accept: Role.WORKER,
    Reject: Role.WORKER,
    Progress: Role.WORKER,
    Result: Role.WORKER,
}
"""Who says what: the requester sends and the worker receives the first three, and the other way round."""

_HEARD_BY: dict[type[Frame], Role] = {
    frame: Role.WORKER if speaker is Role.REQUESTER else Role.REQUESTER for frame, speaker in SPOKEN_BY.items()
}

ADDRESSEE: dict[type[Frame], Role] = {**_HEARD_BY, Offer: Role.REQUESTER, Decline: Role.WORKER}
"""Which half of a node a frame is for: an Offer asks whoever has tasks, and Decline answers whoever would do some."""

_SHARED: dict[TaskState, dict[type[TaskFrame], TaskState]] = {
    _IDLE: {Submit: _WAITING, Attach: _WAITING, Cancel: _IDLE},
    _WAITING: {Accept: _RUNNING, Reject: _IDLE, Result: _IDLE, Cancel: _CANCELLING},
    _RUNNING: {Progress: _RUNNING, Result: _IDLE, Cancel: _CANCELLING},
    _CANCELLING: {Accept: _CANCELLING, Reject: _IDLE, Progress: _CANCELLING, Result: _IDLE},
}

TASK_TABLE: dict[Role, dict[TaskState, dict[type[TaskFrame], TaskState]]] = {
    Role.REQUESTER: _SHARED,
    Role.WORKER: _SHARED,
}

_ABOUT_PEERS = (Peers, Register, Registered, Discover)

SESSION_TABLE: dict[SessionState, dict[type[Frame], SessionState]] = {
    SessionState.FRESH: {
        **dict.fromkeys((Hello, Offer, Decline, Heartbeat, *_ABOUT_PEERS, Chunk, *SPOKEN_BY), SessionState.OPEN),
        Bye: SessionState.ENDED,
    },
    SessionState.OPEN: {
        **dict.fromkeys((Offer, Decline, Heartbeat, *_ABOUT_PEERS, Chunk, *SPOKEN_BY), SessionState.OPEN),
        Bye: SessionState.ENDED,
    },
    SessionState.ENDED: {},
}


class Conversation:
    """Judges the frames of one session, in both directions; one for each end.

    Tasks that are idle are forgotten, so it holds no more than what is under way.
    """

    def __init__(self) -> None:
        self._sent = SessionState.FRESH
        self._received = SessionState.FRESH
        self._tasks: dict[Role, dict[TaskId, TaskState]] = {Role.REQUESTER: {}, Role.WORKER: {}}

    def send(self, frame: Frame) -> None:
        """Judge a frame before it is sent.

        Raises:
            LocalProtocolError: the frame is not allowed now; nothing has changed.
        """
        after = SESSION_TABLE[self._sent].get(type(frame))
        if after is None:
            raise LocalProtocolError(f"this node may not send {_name(frame)}: its side of the session is {self._sent}")
        role = SPOKEN_BY.get(type(frame))
        if role is not None and not self._advance(role, frame):
            raise LocalProtocolError(f"this node may not send {self._explain(role, frame)}")
        self._sent = after

    def receive(self, frame: Frame) -> None:
        """Judge a frame that has been received.

        Raises:
            RemoteProtocolError: the frame is not allowed now; the session must end with Bye.
        """
        after = SESSION_TABLE[self._received].get(type(frame))
        if after is None:
            raise RemoteProtocolError(f"{_name(frame)} came when the peer's side of the session was {self._received}")
        role = _HEARD_BY.get(type(frame))
        if role is not None and not self._advance(role, frame):
            raise RemoteProtocolError(f"the peer sent {self._explain(role, frame)}")
        self._received = after

    def state(self, role: Role, task_id: TaskId) -> TaskState:
        """Return how far this end, in the given role, is with a task."""
        return self._tasks[role].get(task_id, _IDLE)

    @property
    def busy(self) -> bool:
        """Whether any task is not idle at this end."""
        return any(self._tasks.values())

    def under_way(self, role: Role) -> list[TaskId]:
        """Return the tasks that are not idle at this end in the given role."""
        return list(self._tasks[role])

    def _advance(self, role: Role, frame: Any) -> bool:
        tasks, task_id = self._tasks[role], frame.task_id
        after = TASK_TABLE[role][tasks.get(task_id, _IDLE)].get(type(frame))
        if after is None:
            return False
        if after is _IDLE:
            tasks.pop(task_id, None)
        else:
            tasks[task_id] = after
        return True

    def _explain(self, role: Role, frame: Any) -> str:
        return f"{_name(frame)} for task {frame.task_id}, whose {role} is {self.state(role, frame.task_id)}"


def _name(frame: Frame) -> str:
    return type(frame).__name__
