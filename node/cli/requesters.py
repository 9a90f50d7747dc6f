"""Two ways to have tasks done: through the node that runs in the data folder, or by a node of the command's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from node.cli.options import Invocation
from node.cli.request import Request
from node.cli.settings import data_folder, folder_of, load_settings
from node.coordination.hindrances import Reason
from node.gateways.http.client import ControlClient
from node.gateways.http.folder import occupied
from node.gateways.http.response_models import EventView, TaskView
from node.interfaces import Change
from protocol import ErrorCode, Failure, PeerId, PeertaskError, TaskId, TaskRecord, TaskResult, TaskStatus

if TYPE_CHECKING:
    from node.app import Node

# Each task that is waited for holds a connection, and a node takes 256 from all its clients together.
MAX_OPEN_CALLS: Final = 64
# What a node says when it is full; used when it does not say.
RETRY_AFTER_MS: Final = 100


@dataclass(frozen=True, slots=True)
class Step:
    """How a task stands.

    Attributes:
        status: as the node that was asked knows it.
        holder: who does it; None when nobody does yet.
        attempt: how often it was begun.
        progress: the fraction done, 0 to 1.
        message: what was reported with the progress.
    """

    status: TaskStatus
    holder: PeerId | None
    attempt: int
    progress: float
    message: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ended: with a result or with a failure.

    Attributes:
        task_id: which task.
        result: what came of it.
        failure: why nothing came of it.
        holder: who did it, or did it last.
        attempt: how often it was begun.
    """

    task_id: TaskId
    result: TaskResult | None
    failure: Failure | None
    holder: PeerId | None
    attempt: int

    def error(self) -> PeertaskError:
        """Return the error that says why there is no result."""
        if self.failure is None:
            return PeertaskError(f"task {self.task_id} has a result")
        return self.failure.to_error()


Told = Callable[[Step], None]


class Requester(ABC):
    """Has tasks done.

    Attributes:
        peer_id: who asks, as the worker sees it.
    """

    peer_id: PeerId

    @abstractmethod
    async def submit(self, prompt: str, request: Request, task_id: TaskId) -> None:
        """Ask for a task; one that was asked for before under the same id is not asked for again.

        Waits while the node that is asked is full.

        Raises:
            PeertaskError: the node refuses, cannot be reached, or cannot reach the peer.
        """

    @abstractmethod
    async def follow(self, task_id: TaskId, told: Told) -> Ending:
        """Wait for the end of a task, and tell of each step until then."""

    @abstractmethod
    async def finish(self, task_id: TaskId) -> Ending:
        """Wait for the end of a task."""

    @abstractmethod
    async def waits_for(self, task_id: TaskId) -> Sequence[Reason]:
        """Return what a task waits for now; see `peertask explain`."""

    @abstractmethod
    async def cancel(self, task_id: TaskId) -> None:
        """Ask for a task to be stopped."""


class ThroughLocalNode(Requester):
    """Asks the node that runs in the data folder; tasks go on when the command ends."""

    def __init__(self, client: ControlClient, peer_id: PeerId) -> None:
        self.peer_id = peer_id
        self._client = client
        self._calls = trio.CapacityLimiter(MAX_OPEN_CALLS)
        self._known: dict[str | None, PeerId | None] = {}

    async def submit(self, prompt: str, request: Request, task_id: TaskId) -> None:
        """Ask the node for a task."""
        while True:
            try:
                async with self._calls:
                    to = self._known.get(request.to, request.to)
                    task = await self._client.submit(
                        prompt, to=to, timeout_s=request.timeout_s, id=task_id, **request.fields
                    )
                self._known[request.to] = task.target
                return
            except PeertaskError as error:
                if error.code is not ErrorCode.BUSY:
                    raise
                await trio.sleep((error.retry_after_ms or RETRY_AFTER_MS) / 1000)

    async def follow(self, task_id: TaskId, told: Told) -> Ending:
        """Wait for the end of a task over a stream of its facts."""
        async with self._client.watch(task_id) as items:
            async for item in items:
                if isinstance(item, EventView):
                    told(Step(item.status, item.holder, item.attempt, item.progress, item.message))
        return await self.finish(task_id)

    async def finish(self, task_id: TaskId) -> Ending:
        """Wait for the end of a task by long polls."""
        async with self._calls:
            task = await self._client.finish(task_id)
        return _ending_of_view(task)

    async def waits_for(self, task_id: TaskId) -> Sequence[Reason]:
        """Ask the node what a task waits for."""
        return [view.reason() for view in (await self._client.explain(task_id)).waits_for]

    async def cancel(self, task_id: TaskId) -> None:
        """Ask the node to stop a task."""
        await self._client.cancel(task_id)


class ByOwnNode(Requester):
    """Asks with a node that lives as long as the command; what is not done by then is cancelled."""

    def __init__(self, node: Node) -> None:
        self.peer_id = node.peer_id
        self._node = node
        self._known: dict[str, PeerId] = {}
        self._connecting = trio.Lock()

    async def submit(self, prompt: str, request: Request, task_id: TaskId) -> None:
        """Take a task in, once its peer is connected."""
        to = None if request.to is None else await self._peer_at(request.to)
        await self._node.enqueue(prompt, to=to, timeout=request.timeout_s, id=task_id, **request.fields)

    async def _peer_at(self, to: str) -> str:
        """Return the peer at an address; reading and dialling one takes longer than a small task."""
        if not to.startswith("/"):
            return to
        async with self._connecting:
            if to not in self._known:
                self._known[to] = await self._node.connect(to)
        return self._known[to]

    async def follow(self, task_id: TaskId, told: Told) -> Ending:
        """Wait for the end of a task, listening to its facts."""
        async with self._node.watch(task_id) as changes:
            async for change in changes:
                if isinstance(change, Change):
                    record = change.record
                    told(Step(record.status, record.holder, record.attempt, record.progress, record.progress_message))
        return await self.finish(task_id)

    async def finish(self, task_id: TaskId) -> Ending:
        """Wait for the end of a task."""
        return _ending_of_record(await self._node.manager.wait(task_id))

    async def waits_for(self, task_id: TaskId) -> Sequence[Reason]:
        """Return what a task waits for."""
        return (await self._node.explain(task_id)).waits_for

    async def cancel(self, task_id: TaskId) -> None:
        """Stop a task."""
        self._node.cancel(task_id)


@asynccontextmanager
async def open_requester(call: Invocation, *, detached: bool = False) -> AsyncIterator[Requester]:
    """Have tasks done for the length of the context, by the node of the data folder if one runs there.

    Args:
        call: the options of the command.
        detached: whether tasks shall outlive the command, which only a running node can do.

    Raises:
        PeertaskError: NODE_UNAVAILABLE, when `detached` and no node runs; INVALID_CONFIG.
    """
    async with AsyncExitStack() as stack:
        try:
            client = ControlClient(data_folder(call))
            requester: Requester = ThroughLocalNode(client, (await client.info()).peer_id)
        except PeertaskError as error:
            if detached or error.code is not ErrorCode.NODE_UNAVAILABLE:
                raise
            requester = ByOwnNode(await stack.enter_async_context(_own_node(call)))
        yield requester


@asynccontextmanager
async def _own_node(call: Invocation) -> AsyncIterator[Node]:
    """Run a node that only asks, as the peer of the data folder, unless another command does so at this moment."""
    import structlog

    from node.app import open_node
    from node.telemetry import configure_logging

    config = load_settings(call, defaults={"log_level": "warning", **({"log_format": "json"} if call.as_json else {})})
    configure_logging(config.log_level, config.log_format)
    private = config.model_copy(update={"listen": (), "http": None})
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(occupied(folder_of(config)))
        except PeertaskError as error:
            log = structlog.get_logger(__name__)
            log.warning("this command asks as a fresh peer, which closed kinds refuse", reason=error.message)
            private = private.model_copy(update={"data": None})
        yield await stack.enter_async_context(open_node(private, control=False))


def _ending_of_view(task: TaskView) -> Ending:
    return Ending(task.id, task.result, task.failure, task.holder, task.attempt)


def _ending_of_record(record: TaskRecord) -> Ending:
    return Ending(record.id, record.result, record.failure, record.holder, record.attempt)
