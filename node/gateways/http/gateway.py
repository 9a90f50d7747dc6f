"""What the handlers of requests share: the node, and what they do with its tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from pydantic import BaseModel
from starlette.responses import Response

from node.coordination_service import Coordination
from node.gateways.http.event_stream import Stopping
from node.gateways.http.events import KEEP_ALIVE_S
from node.gateways.http.node_control import NodeControl
from node.gateways.http.request_models import Submission
from node.gateways.waiting import ended, saved
from node.interfaces import Clock, GraphTask, TaskService
from node.work_service import WorkService
from protocol import (
    MAX_PAYLOAD_BYTES,
    ErrorCode,
    PeerId,
    PeertaskError,
    Task,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskResult,
    parse_task_id,
)

_TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked against what its operation takes.

    Attributes:
        path: the variable parts of the path.
        query: the model of the operation's query, when it has one.
        body: the model of the operation's body, when it has one.
        headers: by lower-case name.
        gone: returns when the client does not wait for the answer any more.
    """

    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    gone: Callable[[], Awaitable[None]]

    @property
    def task_id(self) -> TaskId:
        """The task that the path names; raises `InvalidTask` when it names none."""
        return parse_task_id(self.path["id"])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        content: what is sent as JSON, or as plain text; None for an empty answer.
        status: of HTTP.
    """

    content: BaseModel | TaskResult | str | None
    status: int = 200


Handler = Callable[["Gateway", Call], Awaitable[Reply | Response]]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The node, for handlers.

    Attributes:
        service: its tasks.
        node: the rest of it.
        clock: tells the time.
        work: its door for outside workers.
        payload_bytes: the largest task that it takes, as msgpack.
        keep_alive_s: how often a silent stream of events shows that it is there, in seconds.
        stopping: begins when the node stops.
    """

    service: TaskService
    node: NodeControl
    clock: Clock
    work: WorkService
    payload_bytes: int = MAX_PAYLOAD_BYTES
    keep_alive_s: float = KEEP_ALIVE_S
    stopping: Stopping = field(default_factory=Stopping)

    async def target(self, to: str | None) -> PeerId | None:
        """Return the peer that is meant, connected when it was not known.

        Raises:
            PeertaskError: as `NodeControl.connect` does.
        """
        if to is None:
            return None
        known = {self.node.info().peer_id, *(peer.peer_id for peer in self.node.peers() if not peer.hearsay)}
        return PeerId(to) if to in known else await self.node.connect(to)

    @property
    def coordination(self) -> Coordination:
        """What the node coordinates with.

        Raises:
            PeertaskError: code NOT_FOUND, when it runs without coordination.
        """
        if self.node.coordination is None:
            raise PeertaskError(
                "this node runs without coordination, so it knows nothing of personas",
                code=ErrorCode.NOT_FOUND,
                remedy="Start it without --no-coordination",
            )
        return self.node.coordination

    async def check_persona(self, wanted: str | None) -> None:
        """Refuse a task for a persona that nobody knows; see `Coordination.check_persona`."""
        if wanted is not None and self.node.coordination is not None:
            await self.node.coordination.check_persona(wanted, self.node.peers, self.work.active_agents)

    def submit(self, submission: Submission, target: PeerId | None, traceparent: str | None) -> TaskRecord:
        """Take a task in, as asked by this node; the same task again gives the record of the first time.

        Raises:
            InvalidTask: names the field that is wrong, and its limit.
            PeertaskError: as `TaskService.submit` does.
        """
        one = self._placed(submission, target, traceparent)
        return self.service.submit(
            one.task, requester=PeerId(one.task.sender), target=one.target, deadline=one.deadline
        )

    async def submit_graph(self, submissions: Sequence[Submission], traceparent: str | None) -> list[TaskRecord]:
        """Take tasks that depend on each other in, all or none, as asked by this node.

        Raises:
            InvalidTask: names what is wrong.
            PeertaskError: as `TaskService.submit_graph` does.
        """
        graph = []
        for submission in submissions:
            await trio.lowlevel.checkpoint()  # ten thousand of them would hold the node up
            await self.check_persona(submission.persona)
            graph.append(self._placed(submission, await self.target(submission.to), traceparent))
        return self.service.submit_graph(graph, requester=self.node.info().peer_id)

    def _placed(self, submission: Submission, target: PeerId | None, traceparent: str | None) -> GraphTask:
        now = self.clock.now()
        own_id = self.node.info().peer_id
        fields = {name: value for name, value in submission.task_fields().items() if value is not None}
        first = self._first_time(fields.get("id"))
        # Two things differ when a client repeats a request, and it says neither: when the task was made, and its trace.
        trace = first.metadata.get(_TRACEPARENT) if first else traceparent
        if trace is not None:
            fields["metadata"] = {_TRACEPARENT: trace, **fields.get("metadata", {})}
        task = Task.new(**{**fields, "sender": own_id, "timestamp": first.timestamp if first else now})
        deadline = None if submission.timeout_s is None else now + round(submission.timeout_s * 1000)
        return GraphTask(task, target, deadline)

    def _first_time(self, task_id: str | None) -> Task | None:
        try:
            return self.service.latest(parse_task_id(task_id)).task if task_id else None
        except TaskNotFound:
            return None

    async def saved(self, record: TaskRecord) -> TaskRecord:
        """Return the record of a task once the fact that made `record` may be told.

        Raises:
            PeertaskError: code STORE_FAILED, when that takes too long; the task is taken in all the same.
        """
        return await saved(self.service, record)

    async def ended(self, task_id: TaskId, wait_s: float) -> TaskRecord:
        """Return the record of a task when it has ended, at the latest after a time, or when the node stops.

        Raises:
            TaskNotFound: the node does not know it.
        """
        record = self.service.get_task(task_id)
        if wait_s and not record.terminal:
            with trio.move_on_after(wait_s), self.stopping.ends():
                record = await ended(self.service, record)
        return self.service.get_task(record.id)
