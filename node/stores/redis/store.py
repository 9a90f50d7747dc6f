"""The store of a node in a Redis server.

One task writes: it takes what waits in line in groups, and has the server carry each out in one step. While the server
is away everything stays in line; the writer connects again with back-off, claims the node anew, and goes on with the
same group, which the server takes only as far as it has not taken it before.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import trio

from node.background import open_background
from node.interfaces import Change, Committed, Store
from node.stores.redis import scripts
from node.stores.redis.connection import RedisConnection, RedisFailure, connected, failure_of
from node.stores.redis.keys import NodeKeys
from node.stores.redis.line import Group, LastSeqs, Line
from node.stores.redis.outage import Outage
from node.stores.redis.packing import Argument, pack_group, pack_places, unpack_facts
from node.stores.redis.settings import RedisSettings
from node.stores.redis.task_context import read_record
from protocol import Fact, PeerId, PeertaskError, TaskId, TaskRecord

log = structlog.get_logger(__name__)

# A task has four facts, more of them are progress: as many as a watcher that was away for half a minute wants.
MAX_FACTS_PER_TASK: Final = 256
# How long a node that stops waits for a server that saves nothing; service managers kill after ten.
LEAVE_LIMIT_S: Final = 5.0
# Records read at a time: small enough for the server to answer others in between.
PAGE: Final = 128
# Ids or numbers read, or times renewed, at a time.
LARGE_PAGE: Final = 1_000
# Times are renewed this often within the time that a task is kept, so that two failures in a row lose nothing.
REFRESHES_PER_TTL: Final = 4


class FencedError(RedisFailure):
    """Another process writes for the node; nothing that this one does will change that."""


class RedisStore(Store):
    """Keeps the records and facts of one node in a Redis server, which others may use too.

    A record is kept for `task_ttl_hours` after its last change, and an open task for as long as the node runs.

    Args:
        settings: where the server is.
        owner: the node; it sees its own records only.
    """

    def __init__(self, settings: RedisSettings, *, owner: PeerId) -> None:
        self._settings = settings
        self._keys = NodeKeys(settings.instance_name, owner)
        self._committed: Committed | None = None
        self._connection: RedisConnection | None = None
        self._moved = trio.lowlevel.ParkingLot()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process = f"{uuid.uuid4()}:"
        self._claims = 0
        self._line = Line()
        self._group = Group()
        self._came = trio.Event()
        self._seqs = LastSeqs()
        self._open: set[TaskId] = set()
        self._outage = Outage(self._settings.connect_retry_count, self._settings.timeout_s)

    def __repr__(self) -> str:
        return f"<RedisStore {self._settings.address} waiting={len(self._line)}>"

    @property
    def failure(self) -> PeertaskError | None:
        """Why nothing can be saved at the moment; None when all is well, or a connection is being tried again."""
        return self._outage.failure

    # --- open and closed ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Write for the node for the length of the context, in place of any other process that did.

        On leaving, waits for what is in line for as long as it gets shorter; after five seconds without, logs what is
        not saved.

        Raises:
            PeertaskError: code STORE_FAILED, when the server cannot be reached after `connect_retry_count` more tries,
                or the store is open already; INVALID_CONFIG, when the client library is not installed.
        """
        if self._committed is not None:
            raise self._error("this store is open already", "Give each node a store of its own")
        self._committed = committed
        self._begin_anew()
        try:
            async with open_background() as nursery:
                await nursery.start(self._write)
                nursery.start_soon(self._refresh)
                try:
                    yield
                finally:
                    with trio.CancelScope(shield=True):
                        await self._leave()
        finally:
            self._committed = None

    async def _leave(self) -> None:
        while len(self._line) and not isinstance(self.failure, FencedError):
            done = self._line.done
            with trio.move_on_after(LEAVE_LIMIT_S):
                while len(self._line) and self._line.done == done:
                    await self._moved.park()
            if self._line.done == done:
                break
        if len(self._line):
            log.error("changes are not saved", changes=len(self._line), why=str(self.failure or "it does not answer"))

    # --- what a node asks --------------------------------------------------------------------------------------------

    def append(self, changes: Sequence[Change]) -> None:
        """Put changes of one task in line; see `Store.append`."""
        if self._committed is None:
            raise self._error("this store is not open", "Use it within its context running")
        self._seqs.take(changes)
        self._note_open(changes[-1].record)
        self._line.add(changes)
        self._came.set()

    def append_new(self, changes: Sequence[Change]) -> None:
        """Put new tasks in line, which the server saves in one step; see `Store.append_new`."""
        if self._committed is None:
            raise self._error("this store is not open", "Use it within its context running")
        self._seqs.take_new(changes)
        self._open.update(record.id for record, _ in changes)
        self._line.add(changes)
        self._came.set()

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Put tasks in line whose records and facts are dropped, if they are there."""
        for task_id in task_ids:
            self._seqs.forget(task_id)
            self._open.discard(task_id)
            self._line.add(task_id)
        self._came.set()

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record that is kept, the oldest first; waits for what is in line.

        A value that cannot be read is logged and, while the store is open, set aside where a person finds it.

        Raises:
            PeertaskError: code STORE_FAILED, when the server cannot be reached.
        """
        await self._all_saved()
        gone: list[TaskId] = []
        unreadable: list[TaskId] = []
        for start in range(0, await self._count(), PAGE):
            ids = await self._ids(start, PAGE)
            for task_id, value in zip(ids, await self._read(ids, facts_too=False), strict=True):
                if value is None:
                    gone.append(task_id)
                elif (record := self._record(task_id, value)) is None:
                    unreadable.append(task_id)
                else:
                    self._note_open(record)
                    yield record
        await self._clear(gone, set_aside=False)
        await self._clear(unreadable, set_aside=True)

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the last 256 facts of a task whose number is greater than `after_seq`; waits for what is in line.

        Raises:
            PeertaskError: code STORE_FAILED, when the server cannot be reached, or what it holds is not a task.
        """
        await self._all_saved()
        value, items = await self._read([task_id], facts_too=True)
        record = None if value is None else self._record(task_id, value)
        if record is None:
            return
        try:
            facts = unpack_facts(items, record, after_seq)
        except (KeyError, ValueError, TypeError, PeertaskError) as error:
            key = self._keys.places(task_id)[2]
            raise self._error(f"the key {key} holds what is not a fact ({error})", f"Delete {key}") from None
        for fact in facts:
            yield fact

    def _note_open(self, record: TaskRecord) -> None:
        if record.terminal:
            self._open.discard(record.id)
        else:
            self._open.add(record.id)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _all_saved(self) -> None:
        """Return when what is in line now is saved; raises why not, when that is known."""
        awaited = self._line.appended
        while self._line.done < awaited:
            if self.failure is not None:
                raise self.failure
            await self._moved.park()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[RedisConnection]:
        if self._connection is not None:
            yield self._connection
            return
        async with connected(self._settings) as connection:
            yield connection

    async def _count(self) -> int:
        async with self._reading() as connection:
            return int(await connection.command("zcard", self._keys.index))

    async def _ids(self, start: int, count: int) -> list[TaskId]:
        async with self._reading() as connection:
            found = await connection.command("zrange", self._keys.index, start, start + count - 1)
        return [TaskId(task_id.decode()) for task_id in found]

    async def _read(self, task_ids: Sequence[TaskId], *, facts_too: bool) -> list[Any]:
        async with self._reading() as connection:
            return list(await connection.run(scripts.READ, pack_places(task_ids, self._keys), [int(facts_too)]))

    def _record(self, task_id: TaskId, value: bytes) -> TaskRecord | None:
        """Return the record in a value; None, with a word in the log, when there is none that can be read."""
        try:
            return read_record(value, self._keys.node)
        except PeertaskError as error:
            log.error(  # noqa: TRY400 - the reason is in words, and the traceback would show the value
                "a task cannot be read",
                key=self._keys.places(task_id)[0],
                server=str(self._settings.address),
                why=error.message,
                remedy=f"Its value stays in the server, at a start under {self._keys.unreadable(task_id)}",
            )
            return None

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, task_status: trio.TaskStatus[None]) -> None:
        """Connect and save, again and again; is started when the first connection is made."""
        started = False

        def start() -> None:
            nonlocal started
            started = True
            task_status.started()

        while not isinstance(self.failure, FencedError):
            try:
                await self._write_over_one_connection(None if started else start)
            except RedisFailure as error:
                self._outage.fail(error, trio.current_time(), for_good=isinstance(error, FencedError))
                self._moved.unpark_all()
                if self.failure is not None and not started:
                    raise
            await trio.sleep(self._outage.pause_s)

    async def _write_over_one_connection(self, start: Callable[[], None] | None) -> None:
        self._outage.begin(trio.current_time())
        async with connected(self._settings) as connection:
            await self._claim(connection, take_over=start is not None)
            self._connection = connection
            try:
                if start is not None:
                    await self._learn_seqs(connection)
                    start()
                await self._save_all(connection)
            finally:
                self._connection = None

    async def _claim(self, connection: RedisConnection, *, take_over: bool) -> None:
        self._claims += 1
        arguments: list[Argument] = [self._writer, self._process, self._settings.ttl_s, int(take_over)]
        self._check(await connection.run(scripts.CLAIM, [self._keys.writer], arguments))

    async def _learn_seqs(self, connection: RedisConnection) -> None:
        for start in range(0, await self._count(), LARGE_PAGE):
            ids = await self._ids(start, LARGE_PAGE)
            facts = [self._keys.places(task_id)[2] for task_id in ids]
            for task_id, seq in zip(ids, await connection.run(scripts.LAST_SEQS, facts), strict=True):
                if seq:
                    self._seqs.know(task_id, seq)

    async def _save_all(self, connection: RedisConnection) -> None:
        while True:
            while not len(self._line):
                self._outage.end()
                self._came = trio.Event()
                await self._came.wait()
            if self._group.empty:
                self._group = self._line.take()
            self._outage.begin(trio.current_time())
            await self._save(connection, self._group)
            self._outage.end()

    async def _save(self, connection: RedisConnection, group: Group) -> None:
        if group.saves:
            await self._save_changes(connection, group)
            self._commit(group)
        await self._drop(connection, group.forgets, set_aside=False)
        self._line.done += len(group.forgets)
        group.forgets = []
        self._moved.unpark_all()

    async def _save_changes(self, connection: RedisConnection, group: Group) -> None:
        maybe_saved, group.maybe_saved = group.maybe_saved, True
        names, values = pack_group(group, self._keys)
        keys = [self._keys.writer, self._keys.index, *names]
        arguments: list[Argument] = [self._writer, self._settings.ttl_s, MAX_FACTS_PER_TASK, int(maybe_saved), *values]
        reply = await connection.run(scripts.SAVE, keys, arguments)
        group.maybe_saved = maybe_saved  # what is refused here is not saved now
        self._check(reply)

    def _commit(self, group: Group) -> None:
        changes = group.changes()
        self._line.done += len(group.saves)
        group.saves = []
        self._moved.unpark_all()
        if self._committed is not None:
            self._committed(changes)

    async def _clear(self, task_ids: Sequence[TaskId], *, set_aside: bool) -> None:
        """Drop what was found to be no record, unless the store is only read."""
        if self._connection is not None:
            for task_id in task_ids:
                self._seqs.forget(task_id)
            await self._drop(self._connection, task_ids, set_aside=set_aside)

    async def _drop(self, connection: RedisConnection, task_ids: Sequence[TaskId], *, set_aside: bool) -> None:
        for start in range(0, len(task_ids), LARGE_PAGE):
            page = task_ids[start : start + LARGE_PAGE]
            keys = [self._keys.writer, self._keys.index]
            for task_id in page:
                keys.extend((*self._keys.places(task_id), self._keys.unreadable(task_id) if set_aside else ""))
            self._check(await connection.run(scripts.FORGET, keys, [self._writer, *page]))

    async def _refresh(self) -> None:
        """Keep the open tasks from running out of time while nothing happens to them."""
        while True:
            await trio.sleep(self._settings.ttl_s / REFRESHES_PER_TTL)
            connection, open_tasks = self._connection, list(self._open)
            if connection is None:
                continue
            try:
                for start in range(0, max(1, len(open_tasks)), LARGE_PAGE):
                    places = pack_places(open_tasks[start : start + LARGE_PAGE], self._keys)
                    keys = [self._keys.writer, self._keys.index, *places]
                    await connection.run(scripts.REFRESH, keys, [self._writer, self._settings.ttl_s])
            except RedisFailure as error:
                log.debug("times are not renewed now, and will be later", why=str(error))

    @property
    def _writer(self) -> str:
        """What this connection of this process calls itself in the server."""
        return f"{self._process}{self._claims}"

    def _check(self, reply: Sequence[bytes]) -> None:
        """Raise what the reply of a script says."""
        if reply[0] == scripts.FENCED and reply[1]:
            raise FencedError(
                f"the Redis server at {self._settings.address}: another process writes for the node {self._keys.node}",
                remedy="Stop one of the two: each node needs a key of its own, and one process",
            )
        if reply[0] == scripts.FENCED:
            raise self._error("it has lost what it held", "Let it keep its data: set appendonly to yes")
        if reply[0] == scripts.CONFLICT:
            task_id = TaskId(reply[1].decode())
            raise self._error(
                f"it holds fact number {reply[2].decode()} of task {task_id}, which this process has not written",
                f"Find out who writes the key {self._keys.places(task_id)[2]}, and delete it when nobody needs it",
            )

    def _error(self, why: str, remedy: str) -> RedisFailure:
        return failure_of(self._settings.address, why, remedy)
