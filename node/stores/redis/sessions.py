"""Conversations that all nodes and programs on a Redis server share: task contexts that no node keeps a record in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from node.stores.redis import scripts
from node.stores.redis.connection import RedisConnection, connected, failure_of
from node.stores.redis.keys import session_key, task_key
from node.stores.redis.packing import Argument
from node.stores.redis.settings import RedisSettings
from node.stores.redis.task_context import ContextStatus, Message, State, TaskContext, iso_time
from node.telemetry import LOAD_SPAN, SAVE_SPAN, store_span
from protocol import ErrorCode, JsonObject, PeertaskError, new_task_id

WORKFLOW_ID = "workflowId"
USER_ID = "userId"


def completed(context: TaskContext, at_ms: int) -> TaskContext:
    """Return a context as it is when its workflow has ended well.

    Args:
        context: as it was.
        at_ms: now, in milliseconds since the epoch.
    """
    at = iso_time(at_ms)
    status = ContextStatus(state=State.COMPLETED, timestamp=at, completed_at=at)
    return context.model_copy(update={"status": status})


class RedisSessions:
    """Looks task contexts up, and writes those that belong to no node; `open_sessions` makes one.

    Every operation is a checkpoint and may be cancelled; whether one that was under way was carried out is then not
    known. Each raises `PeertaskError` with code STORE_FAILED when the server is away or does not answer within twice
    `connect_timeout_ms`. Nothing is tried again.
    """

    def __init__(self, settings: RedisSettings, connection: RedisConnection) -> None:
        self._settings = settings
        self._connection = connection

    async def get_task(self, task_id: str) -> TaskContext | None:
        """Return the context of a task, also of one that a node keeps; None when there is none.

        Raises:
            PeertaskError: code STORE_FAILED, also when the value is no task context; names the key.
        """
        with store_span(LOAD_SPAN, task_id) as tell:
            value = await self._connection.command("get", self._key(task_id))
            context = None if value is None else self._read(task_id, value)
            if context is not None:
                tell(context.status.state)
            return context

    async def get_or_create_task(
        self,
        session_id: str,
        task_id: str | None = None,
        *,
        workflow_id: str,
        user_id: str,
        history: Sequence[Message] = (),
        metadata: JsonObject | None = None,
    ) -> TaskContext:
        """Return the context of a task, and make it when there is none; of several callers one makes it.

        Args:
            session_id: the conversation.
            task_id: which task; by default the newest of the conversation.
            workflow_id: goes into the metadata of a new one.
            user_id: goes into the metadata of a new one.
            history: the messages of a new one so far.
            metadata: more for the metadata of a new one.
        """
        if task_id is None:
            known = await self.tasks_of_session(session_id)
            if known:
                return known[-1]
        fresh = TaskContext(
            id=task_id or new_task_id(),
            session_id=session_id,
            status=ContextStatus(state=State.IN_PROGRESS),
            history=tuple(history),
            metadata={**(metadata or {}), WORKFLOW_ID: workflow_id, USER_ID: user_id},
        )
        there = await self._write(fresh, only_new=True)
        return fresh if there is None else self._read(fresh.id, there)

    async def update_task(self, context: TaskContext) -> None:
        """Write a context, in place of the one that is there; its time to live begins anew.

        Raises:
            PeertaskError: code CONFLICT, when a node keeps the task: only the node writes it.
        """
        await self._write(context, only_new=False)

    async def delete_task(self, task_id: str) -> bool:
        """Drop the context of a task, and return whether there was one; raises as `update_task` does."""
        reply = await self._connection.run(scripts.DELETE, [self._key(task_id)])
        if reply[0] == scripts.CONFLICT:
            raise self._kept_by_a_node(task_id, reply[1])
        return bool(reply[1])

    async def tasks_of_session(self, session_id: str) -> list[TaskContext]:
        """Return the contexts of a conversation that are still there, the oldest first."""
        ids = await self._connection.command("zrange", session_key(self._settings.instance_name, session_id), 0, -1)
        found = [await self.get_task(task_id.decode()) for task_id in ids]
        return [context for context in found if context is not None]

    async def _write(self, context: TaskContext, *, only_new: bool) -> bytes | None:
        """Write a context, and return the one that is there instead."""
        keys = [self._key(context.id), session_key(self._settings.instance_name, context.session_id)]
        arguments: list[Argument] = [context.to_json(), self._settings.ttl_s, context.id, int(only_new)]
        with store_span(SAVE_SPAN, context.id) as tell:
            tell(context.status.state)
            reply = await self._connection.run(scripts.UPDATE, keys, arguments)
        if reply[0] == scripts.CONFLICT:
            raise self._kept_by_a_node(context.id, reply[1])
        return bytes(reply[1]) if reply[0] == scripts.EXISTS else None

    def _key(self, task_id: str) -> str:
        return task_key(self._settings.instance_name, task_id)

    def _read(self, task_id: str, value: bytes) -> TaskContext:
        try:
            return TaskContext.from_json(value)
        except PeertaskError as error:
            why = f"the key {self._key(task_id)} holds no task context: {error.message}"
            raise failure_of(self._settings.address, why, "Find out who wrote it, and delete the key") from None

    def _kept_by_a_node(self, task_id: str, value: bytes) -> PeertaskError:
        node = self._read(task_id, value).kept_by
        return PeertaskError(
            f"the node {node} keeps task {task_id} in the Redis server at {self._settings.address}",
            code=ErrorCode.CONFLICT,
            remedy="Let the node change its task, or choose another id",
        )


@asynccontextmanager
async def open_sessions(settings: RedisSettings) -> AsyncIterator[RedisSessions]:
    """Hold a client of a Redis server for the length of the context; it connects with the first operation.

    Raises:
        PeertaskError: code INVALID_CONFIG, when the client library is not installed.
    """
    async with connected(settings) as connection:
        yield RedisSessions(settings, connection)
