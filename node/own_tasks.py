"""What a program asks of the node that it embeds: tasks of its own, submitted, awaited, watched and stopped."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import trio

from node.awaited_tasks import outcome
from node.config import NodeConfig
from node.coordination.dependencies import for_worker, with_inputs
from node.coordination.naming import resolve_names
from node.coordination.receipts import Notary
from node.coordination_service import Coordination
from node.executors.receipts import request_receipt
from node.executors.remote import RemoteDelegate
from node.feed import Feed
from node.gateways.http.node_control import NodeControl
from node.interfaces import Change, Clock, Executor, GraphTask, Lagged, TaskFilter
from node.manager import TaskManager
from node.mapping import MappedTask, map_prompts
from node.net.network import PeerNetwork
from node.retrying import submit_again
from node.telemetry import inject_traceparent
from node.work import WorkDoor
from protocol import (
    ErrorCode,
    PeerId,
    PeertaskError,
    Receipt,
    Task,
    TaskId,
    TaskNotFound,
    TaskRecord,
    TaskRejected,
    TaskResult,
    parse_task_id,
)


class OwnTasks(NodeControl):
    """The tasks that a node has from the program that embeds it; `Node` is one, and has the parts.

    Attributes:
        config: the settings of the node.
        peer_id: who the node is: the requester of all these tasks.
        manager: the map of its tasks.
        feed: tells what happens to them.
        coordination: what it coordinates with; None when the settings say that it does not.
        work: the door of outside workers.
    """

    config: NodeConfig
    peer_id: PeerId
    manager: TaskManager
    feed: Feed
    coordination: Coordination | None
    work: WorkDoor
    _clock: Clock
    _network: PeerNetwork
    _executors: dict[str, Executor]
    _remote: RemoteDelegate
    _notary: Notary

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """The kinds of tasks that this node carries out, sorted."""

    @abstractmethod
    def note(self, fact: str, **fields: Any) -> None:
        """Add an entry to the audit log that is no fact of a task, when this node keeps one."""

    async def submit(self, prompt: str, **options: Any) -> TaskResult:
        """Submit a task, and return its result when it has one.

        Cancelling the call cancels the task; `enqueue` is for tasks that outlive their caller.

        Args:
            prompt: what to do.
            options: as those of `enqueue`.

        Raises:
            TaskFailed: the task failed, was cancelled or was refused; `failure` says why.
            PeertaskError: as `enqueue` does.
        """
        task_id = await self._take_in(prompt, **options)
        return await self._result_or_cancel(task_id)

    async def enqueue(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the task, and bounds no wait here
        **fields: Any,
    ) -> TaskId:
        """Submit a task, and return its id once it is saved, before it is done.

        When this node has all the open tasks that it may have, this waits for room. Cancelling the call while it waits
        to be saved leaves the task in.

        Args:
            prompt: what to do.
            to: the peer that is to do it, as an id, or as an address with ``/p2p/ID``, which is dialled first; this
                node's own id for itself. None lets the node choose: itself,
                or the least busy of the peers that it was told to connect to, or that it allows.
            timeout: how long the task may take in all, in seconds; None for as long as it takes.
            fields: any other field of `Task` by name: ``kind``, ``params``, ``priority``, ``retry``…

        Raises:
            InvalidTask: names the field that is wrong, and its limit.
            PeertaskError: INVALID_ADDRESS, PEER_UNREACHABLE and the like, when `to` is an address; DRAINING when the
                node is stopping; CONFLICT when the id belongs to another task.
        """
        task_id = await self._take_in(prompt, to=to, timeout=timeout, **fields)
        await self.manager.wait_saved(task_id)
        return task_id

    async def _take_in(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        **fields: Any,
    ) -> TaskId:
        fresh = "id" not in fields
        task, target, deadline = await self._place(prompt, to=to, timeout=timeout, **fields)
        while True:
            try:
                self.manager.submit(task, requester=self.peer_id, target=target, deadline=deadline, fresh=fresh)
                return task.id
            except TaskRejected as error:
                if error.code is not ErrorCode.BUSY:
                    raise
                await self.manager.wait_for_room()

    async def _place(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        **fields: Any,
    ) -> GraphTask:
        metadata = inject_traceparent(fields.pop("metadata", None) or {})
        if metadata:
            fields["metadata"] = metadata
        task = Task.new(prompt, self.peer_id, timestamp=self._clock.now(), **fields)
        if task.persona is not None and self.coordination is not None:
            await self.coordination.check_persona(task.persona, self.peers, self.work.active_agents)
        target = None if to is None else await self._resolve(to)
        if target is None:
            self._check_somebody_may_come(task.kind)
        return GraphTask(task, target, None if timeout is None else self._clock.now() + round(timeout * 1000))

    async def submit_graph(self, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, TaskId]:
        """Submit tasks that depend on each other, all or none, and return their ids by name once they are saved.

        Args:
            tasks: the options of each task, by its name: its ``prompt``, and what `enqueue` takes. ``depends_on`` and
                ``parent_id`` hold names of others, or ids of tasks that this node has already.

        Raises:
            InvalidTask: names what is wrong: a field and its limit, a name that is not there, a cycle as a path.
            TooLarge: there are more tasks or dependencies than a graph, or this node, may have.
            PeertaskError: as `enqueue` does; BUSY when there is no room for all of them now.
        """
        named = resolve_names(tasks)
        graph = [await self._place(**fields) for fields in named.tasks]
        for record in self.manager.submit_graph(graph, requester=self.peer_id):
            await self.manager.wait_saved(record.id)
        return named.ids

    async def result(self, task_id: str) -> TaskResult:
        """Return the result of a task when it has one; cancelling the call leaves the task alone.

        Raises:
            TaskFailed: the task failed or was cancelled.
            TaskNotFound: the node does not know it.
        """
        return outcome(await self.manager.wait(parse_task_id(task_id)))

    def map(
        self, prompts: Iterable[str], *, concurrency: int | None = None, **options: Any
    ) -> AsyncGenerator[MappedTask]:
        """Submit a task for each prompt, and yield how each ended, as they end.

        Args:
            prompts: what to do; taken as there is room.
            concurrency: how many tasks are open at once; as many as a peer takes by default.
            options: as those of `enqueue`, the same for all.
        """

        async def enqueue(prompt: str) -> TaskId:
            return await self.enqueue(prompt, **options)

        limit = max(1, concurrency or self.config.max_in_flight)
        return map_prompts(prompts, enqueue, self.manager, self.feed, concurrency=limit)

    def get_task(self, task_id: str) -> TaskRecord:
        """Return what this node knows about a task; raises `TaskNotFound`."""
        return self.manager.get_task(parse_task_id(task_id))

    def list_tasks(self, task_filter: TaskFilter | None = None) -> list[TaskRecord]:
        """Return what this node knows about the tasks that match, the newest first."""
        return self.manager.list_tasks(task_filter)

    async def receipt(self, task_id: str) -> Receipt:
        """Return the signed word of whoever carried a task out, that this is what came of it.

        It is at hand when it came with the result, and when this node carried the task out; else the peer that did is
        asked, and its answer checked.

        Raises:
            TaskNotFound: the node does not know the task.
            IllegalTransition: it is not complete.
            PeertaskError: PEER_UNREACHABLE and others, as `request_receipt` does.
        """
        record = self.get_task(task_id)
        receipt = record.receipt or self._notary.at_hand(record)
        if receipt is None:
            sent = for_worker(with_inputs(record.task, self.manager.dependency))
            receipt = await request_receipt(self._remote, record, sent)
            self.note("ReceiptTaken", task_id=record.id, receipt=receipt.to_dict())
        return receipt

    def cancel(self, task_id: str) -> TaskRecord:
        """Ask for a task to be stopped; `result` tells when it has."""
        return self.manager.cancel_task(parse_task_id(task_id))

    async def retry(self, task_id: str) -> TaskId:
        """Have a task done again that failed or was cancelled, and return the id of the new task once it is saved.

        The new task is as the first one, which stays as it is, and names it in its metadata as ``retry_of``.

        Raises:
            TaskNotFound: the node does not know it.
            PeertaskError: FORBIDDEN when another peer asked for it, ILLEGAL_TRANSITION when it has not ended or has a
                result, CONFLICT when it has been retried already; BUSY or DRAINING as `enqueue`.
        """
        (became,) = submit_again(self.manager, [parse_task_id(task_id)], own_id=self.peer_id, now=self._clock.now())
        if isinstance(became, PeertaskError):
            raise became
        await self.manager.wait_saved(became.id)
        return became.id

    def watch(
        self, task_id: str | None = None, after_seq: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Change | Lagged]]:
        """Watch the facts of one task, ending with its last, or of all; see `TaskService.watch`."""
        return self.manager.watch(None if task_id is None else parse_task_id(task_id), after_seq)

    def _check_somebody_may_come(self, kind: str) -> None:
        known = any(not peer.hearsay for peer in self._network.peers())
        here = kind in self._executors or kind in self.work.kinds
        if not here and not known and not self.config.workers:
            raise TaskRejected(
                f"this node has no executor for kind {kind!r}, and knows no peer that could have one",
                code=ErrorCode.NO_EXECUTOR,
                remedy=f"Name a peer, or use one of the kinds here: {', '.join(self.kinds)}",
            )

    async def _resolve(self, to: str) -> PeerId:
        peer_id = PeerId(to)
        if peer_id == self.peer_id or self._network.channel(peer_id) is not None:
            return peer_id
        if to.startswith("/") or any(peer.hearsay and peer.peer_id == to for peer in self._network.peers()):
            return await self._network.connect(to)
        return self._network.keep(to)

    async def _result_or_cancel(self, task_id: TaskId) -> TaskResult:
        try:
            return outcome(await self.manager.wait(task_id))
        except trio.Cancelled:
            with suppress(TaskNotFound):
                self.manager.cancel_task(task_id)
            raise
