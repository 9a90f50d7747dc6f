"""Writes the audit log of a node that runs: a listener of the feed makes the entries, and a task writes them.

An entry is made as soon as its fact is told, which takes a few microseconds; made in bulk, they would hold everything
else up for milliseconds. Files are written in a thread, some ten times a second at most. A disk that is full stops
nothing: what cannot be written waits, then is counted, and the gap stands in the log when there is room again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import structlog
import trio

from node.audit.bodies import fact_body
from node.audit.chain import GAP, PRUNED, Head, SignedHead, body_of, seal_body
from node.audit.segments import MAX_LINE_BYTES, Opened, Segments
from node.background import open_background
from node.interfaces import Change, Clock
from node.telemetry import NodeMetrics
from protocol import ErrorCode, PeerId, PeertaskError, Sign

log = structlog.get_logger(__name__)

# What is lost when the process is killed; and a tenth of a percent of a core when the node has little to do.
FLUSH_S: Final = 0.1
# Some ten seconds of a busy node, and all that a full disk costs in memory.
MAX_UNWRITTEN_BYTES: Final = 32 * 1024 * 1024
# A signature takes 50 us; so much of the log can be checked without the head that is kept beside it.
SEAL_AFTER_MS: Final = 60_000
SEAL_AFTER_ENTRIES: Final = 10_000
# A disk that is full stays so for a while, and whoever makes room looks at the health of the node.
RETRY_S: Final = 1.0

_Done = TypeVar("_Done")


class _Batch(NamedTuple):
    """What is written at once; the same again when that fails, because a part of it may be there."""

    lines: bytes
    entries: int
    head: SignedHead


class AuditLog:
    """The audit log of one node.

    Args:
        segments: its files.
        clock: tells the time.
        node: who this is.
        sign: signs with the key of `node`.

    Attributes:
        failure: why nothing can be written at the moment; None when all is well.
        entries: how many this process has written.
        missed: how many it could not write in all.
    """

    def __init__(self, segments: Segments, clock: Clock, node: PeerId, sign: Sign) -> None:
        self.failure: PeertaskError | None = None
        self.entries = 0
        self.missed = 0
        self._segments = segments
        self._clock = clock
        self._node = node
        self._sign = sign
        self._news = trio.Event()
        self._head: Head | None = None
        self._lines: list[bytes] = []
        self._batch: _Batch | None = None
        self._unwritten_bytes = 0
        self._untold_missed = 0
        self._missed_since = 0
        self._sealed_at = 0
        self._unsealed = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what comes for the length of the context; on leaving, all that came is written and sealed."""
        await self._flush()
        try:
            async with open_background() as nursery:
                nursery.start_soon(self._run)
                yield
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    def show(self, metrics: NodeMetrics) -> None:
        """Add what was written and what was not to the metrics of the node."""
        metrics.counter("audit_entries", "Entries written to the audit log.", lambda: self.entries)
        metrics.counter("audit_missed", "Entries that could not be written to the audit log.", lambda: self.missed)

    def observe(self, change: Change) -> None:
        """Make the entry of a fact; made to be a listener of the feed."""
        if self._has_room:
            self._link(change.fact.at, fact_body(change))
        else:
            self._miss()

    def note(self, fact: str, **fields: Any) -> None:
        """Make an entry that is no fact of a task: what an agent, a peer or an operator did. Never blocks.

        Args:
            fact: its name, in the past tense, such as ``AgentRegistered``.
            fields: what else it says, as values of JSON; ``n``, ``at``, ``prev`` and ``fact`` are taken.

        Raises:
            ValueError: a name is taken, JSON cannot carry a value, or the entry is too large.
            TypeError: JSON cannot carry a value.
        """
        body = body_of(fact, fields)
        if len(body) > MAX_LINE_BYTES // 2:
            raise ValueError(f"an entry of {len(body):,} bytes is too large; name the place of large data instead")
        if self._has_room:
            self._link(self._clock.now(), body)
        else:
            self._miss()

    @property
    def _has_room(self) -> bool:
        return self._head is not None and self._unwritten_bytes <= MAX_UNWRITTEN_BYTES

    def _link(self, at: int, body: str) -> None:
        line, self._head = (self._head or Head()).link(at, body)
        if not self._lines:
            self._news.set()
        self._lines.append(line)
        self._unwritten_bytes += len(line)
        self._unsealed += 1

    def _miss(self) -> None:
        if not self._untold_missed:
            self._missed_since = self._clock.now()
        self._untold_missed += 1
        self.missed += 1
        self._news.set()

    def _tell_gap(self) -> None:
        if self._untold_missed:
            fields = {"missed": self._untold_missed, "since": self._missed_since}
            self._untold_missed = 0
            self._link(self._clock.now(), body_of(GAP, fields))

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            await trio.sleep(FLUSH_S if self.failure is None else RETRY_S)
            self._news = trio.Event()
            with trio.CancelScope(shield=True):  # a thread that writes must not be left alone with the file
                await self._flush()
            if self._lines:
                self._news.set()

    async def _close(self) -> None:
        self.note("NodeStopped", node=self._node)
        await self._flush(final=True)
        if self._batch is not None or self._untold_missed:
            lost = self._untold_missed + len(self._lines) + (self._batch.entries if self._batch else 0)
            log.error("the end of the audit log is lost", entries=lost)
        self._segments.close()

    async def _flush(self, *, final: bool = False) -> None:
        """Write what there is; what failed before comes first."""
        if self._head is None and not await self._open():
            return
        written = self._batch is None or await self._write_batch(sync=False)
        if written:
            self._seal_if_due(final=final)
            if self._lines and await self._write(sync=final) and not final:
                await self._prune()

    async def _open(self) -> bool:
        opened = await self._attempt(self._segments.open)
        if opened is None:
            return False
        self._head = opened.head
        self._sealed_at = self._clock.now()
        self._note_opening(opened)
        self._tell_gap()
        return True

    def _note_opening(self, opened: Opened) -> None:
        if opened.lost:
            log.error("entries at the end of the audit log are gone", entries=opened.lost)
            self.note("EntriesLost", count=opened.lost)
        if opened.torn is not None:
            log.warning("a line of the audit log was cut off, and is set aside", file=str(opened.torn))
            self.note("TornLineSetAside", file=opened.torn.name)
        self.note("NodeStarted", node=self._node, after_crash=not opened.clean)

    def _seal_if_due(self, *, final: bool) -> None:
        now = self._clock.now()
        due = self._unsealed >= SEAL_AFTER_ENTRIES or now - self._sealed_at >= SEAL_AFTER_MS or final
        if due and self._unsealed and self._head is not None:
            self._link(now, seal_body(self._head, self._node, self._sign))
            self._unsealed, self._sealed_at = 0, now

    async def _write(self, *, sync: bool) -> bool:
        head = SignedHead.of(self._head or Head(), self._node, self._sign)
        self._batch = _Batch(b"".join(self._lines), len(self._lines), head)
        self._lines = []
        return await self._write_batch(sync=sync)

    async def _write_batch(self, *, sync: bool) -> bool:
        lines, entries, head = self._batch or _Batch(b"", 0, SignedHead(Head(), self._node, ""))
        if not await self._attempt(partial(self._segments.append, lines, head, sync=sync)):
            return False
        self._batch = None
        self.entries += entries
        self._unwritten_bytes -= len(lines)
        self._tell_gap()
        return True

    async def _prune(self) -> None:
        """Remove what is too old, once the log says so."""
        surplus = await self._attempt(self._segments.surplus)
        if surplus is None or not surplus[0]:
            return
        files, last = surplus
        self.note(PRUNED, up_to=last.number, digest=last.digest)
        if await self._write(sync=True):
            await self._attempt(partial(self._segments.remove, files))

    async def _attempt(self, work: Callable[[], _Done]) -> _Done | None:
        """Do something with the files in a thread; None when it failed, and `failure` says why."""
        try:
            done = await trio.to_thread.run_sync(work)
        except OSError as error:
            self._fail(error)
            return None
        if self.failure is not None:
            log.info("the audit log is written again", missed=self._untold_missed)
            self.failure = None
        return done

    def _fail(self, error: OSError) -> None:
        self._news.set()  # to try again
        if self.failure is None:
            log.error("the audit log cannot be written", folder=str(self._segments.folder), reason=str(error))
        self.failure = PeertaskError(
            f"the audit log in {self._segments.folder} cannot be written: {error.strerror or error}",
            code=ErrorCode.STORE_FAILED,
            remedy="Make room, or let this user write there; what is missing will be counted in the log",
        )
