"""The contract checkers: each finds an implementation that breaks a promise, and names the promise."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from node.interfaces import Change, Channel, ChannelHandler, Committed, Execution, Executor, Output
from node.stores.memory import MemoryStore
from node.testing import (
    ContractViolation,
    Hang,
    MemoryChannel,
    MemoryNetwork,
    Raise,
    Return,
    ScriptedExecutor,
    check_channels,
    check_executor,
    check_network,
    check_store,
    make_task,
    open_memory_hub,
)
from protocol import ErrorCode, Fact, Frame, PeerAdvert, PeerId, PeertaskError, TaskId, TaskRecord

# --- stores ----------------------------------------------------------------------------------------------------------


class _CommitsTwice(MemoryStore):
    def append(self, changes: Sequence[Change]) -> None:
        super().append(changes)
        if self._committed is not None:
            self._committed(changes)


class _CommitsTheLastFirst(MemoryStore):
    """Commits what is appended together from the last change to the first."""

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        async with super().running(lambda changes: committed(changes[::-1])):
            yield


class _CommitsTooLate(MemoryStore):
    """Keeps the last change to itself."""

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        waiting: list[Change] = []

        def delayed(changes: Sequence[Change]) -> None:
            waiting.extend(changes)
            while len(waiting) > 1:
                committed((waiting.pop(0),))

        async with super().running(delayed):
            yield


class _CommitsInAThread(MemoryStore):
    def append(self, changes: Sequence[Change]) -> None:
        thread = threading.Thread(target=super().append, args=(changes,))
        thread.start()
        thread.join()


class _TakesAnything(MemoryStore):
    def append(self, changes: Sequence[Change]) -> None:
        record = changes[-1].record
        self._records[record.id] = record
        if self._committed is not None:
            self._committed(changes)


class _TakesTheFirstOnly(MemoryStore):
    def append(self, changes: Sequence[Change]) -> None:
        super().append(changes[:1])


class _SaysTheWrongCode(MemoryStore):
    def append(self, changes: Sequence[Change]) -> None:
        try:
            super().append(changes)
        except PeertaskError as error:
            raise PeertaskError("no", code=ErrorCode.STORE_FAILED) from error


class _LoadsAsItCame(MemoryStore):
    async def load(self) -> AsyncGenerator[TaskRecord]:
        for record in self._records.values():
            yield record


class _LoadsTheFirstRecordOnly(MemoryStore):
    async def load(self) -> AsyncGenerator[TaskRecord]:
        for record in [record async for record in super().load()][:1]:
            yield record


class _LosesTheMiddle(MemoryStore):
    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        kept = self._facts.get(task_id, [])
        for fact in [*kept[:1], *kept[2:]][after_seq:]:
            yield fact


class _IgnoresAfterSeq(MemoryStore):
    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        async for fact in super().facts(task_id, min(after_seq, 0)):
            yield fact


class _TakesNewOnesOneByOne(MemoryStore):
    def append_new(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.append((change,))


class _ForgetsNothing(MemoryStore):
    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Keep everything."""


class _ForgetsAll(MemoryStore):
    def forget(self, task_ids: Iterable[TaskId]) -> None:
        super().forget([*self._records, *task_ids])


@pytest.mark.parametrize(
    ("store", "promise"),
    [
        (_CommitsTwice, "each exactly once"),
        (_CommitsTheLastFirst, "in the order of appending"),
        (_CommitsTooLate, "before leaving"),
        (_CommitsInAThread, "committed is called on the event loop"),
        (_TakesAnything, "a first record has seq 1"),
        (_TakesTheFirstOnly, "each exactly once"),
        (_SaysTheWrongCode, "CONFLICT says so, and not STORE_FAILED"),
        (_LoadsAsItCame, "the oldest created_at first"),
        (_LoadsTheFirstRecordOnly, "records are kept, and 1 are loaded"),
        (_LosesTheMiddle, "without a gap"),
        (_IgnoresAfterSeq, "facts up to after_seq are left out"),
        (_TakesNewOnesOneByOne, "of new tasks of which one is kept, none is"),
        (_ForgetsNothing, "a forgotten record is not loaded"),
        (_ForgetsAll, "a forgotten record is not loaded, and the others are"),
    ],
)
async def test_a_store_that_breaks_a_promise_is_found(store: Callable[[], MemoryStore], promise: str) -> None:
    """Each promise of a store has a check that fails without it."""
    with pytest.raises(ContractViolation, match=promise):
        await check_store(store)


async def test_a_durable_store_that_starts_empty_is_found() -> None:
    """A store that is opened again must have what the last one committed."""
    with pytest.raises(ContractViolation, match="2 records are kept, and 0 are loaded"):
        await check_store(MemoryStore, lambda _former: MemoryStore())


# --- executors -------------------------------------------------------------------------------------------------------


class _Reports(ScriptedExecutor):
    async def execute(self, execution: Execution) -> Output:
        execution.progress(50)
        return await super().execute(execution)


class _LeaksSlots(ScriptedExecutor):
    async def execute(self, execution: Execution) -> Output:
        if sum(seen.ended == "raised" for seen in self.seen) >= self.slots:
            raise PeertaskError("full", code=ErrorCode.BUSY)
        return await super().execute(execution)


class _StopsLate(ScriptedExecutor):
    async def execute(self, execution: Execution) -> Output:
        try:
            return await super().execute(execution)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)


@pytest.mark.parametrize(
    ("make_executor", "promise"),
    [
        (lambda: ScriptedExecutor(slots=0), "has a slot at least"),
        (lambda: ScriptedExecutor(safe="yes"), "says whether it is safe"),  # type: ignore[arg-type]
        (_Reports, "a fraction from 0 to 1"),
        (lambda: _LeaksSlots().on("fail", Raise(OSError())), "gives its slot back"),
        (lambda: ScriptedExecutor().on("fail", Return("done")), "raises an error"),
        (lambda: ScriptedExecutor().on("fail", Raise(OSError())).on("hang", Return("")), "does not end by itself"),
        (lambda: _StopsLate().on("fail", Raise(OSError())).on("hang", Hang()), "ends within 10.0 s, not 60.0 s"),
    ],
)
async def test_an_executor_that_breaks_a_promise_is_found(
    make_executor: Callable[[], Executor], promise: str, autojump_clock: MockClock
) -> None:
    """Each promise of an executor has a check that fails without it."""
    with pytest.raises(ContractViolation, match=promise):
        await check_executor(make_executor, make_task(), endless_task=make_task("hang"), failing_task=make_task("fail"))


async def test_an_output_that_no_result_can_hold_is_found() -> None:
    """What an executor returns must fit a `TaskResult`."""
    with pytest.raises(ContractViolation, match="fits a TaskResult"):
        await check_executor(lambda: ScriptedExecutor().then(Return(Output(7))), make_task())  # type: ignore[arg-type]


# --- networks --------------------------------------------------------------------------------------------------------


class _MixesHandlersUp(MemoryNetwork):
    @asynccontextmanager
    async def running(
        self, worker: ChannelHandler, requester: ChannelHandler, advert: Callable[[PeerId], PeerAdvert]
    ) -> AsyncIterator[None]:
        async with super().running(requester, worker, advert):
            yield


class _TellsNobodyOfTheEnd(MemoryNetwork):
    def ended(self, channel: MemoryChannel) -> None:
        self._sessions.pop(channel.peer_id, None)
        self._tell_change()


class _FindsNoChannel(MemoryNetwork):
    def channel(self, peer_id: PeerId) -> Channel | None:
        found = super().channel(peer_id)
        return found if found is None or len(self._sessions) > 1 else None


class _DialsAgain(MemoryNetwork):
    async def disconnect(self, peer_id: PeerId) -> None:
        await super().disconnect(peer_id)
        self.keep(f"/memory/{peer_id}/p2p/{peer_id}")


class _DialsOnce(MemoryNetwork):
    async def connect(self, address: str) -> PeerId:
        peer_id = await super().connect(address)
        self._kept.pop(peer_id, None)
        return peer_id


class _TrustsAnybody(MemoryNetwork):
    def _checked(self, name: PeerId, peer_id: PeerId, address: str) -> PeerId:
        return (
            super()._checked(name, name, address) if name != self.peer_id else super()._checked(name, peer_id, address)
        )


class _AnnouncesNothing(MemoryNetwork):
    def announce(self) -> None:
        """Say nothing."""


class _LosesFrames(MemoryNetwork):
    def received(self, channel: MemoryChannel, frame: Frame) -> None:
        if len(getattr(getattr(frame, "task", None), "prompt", "")) < 100_000:
            super().received(channel, frame)


def _pair_of(
    network: type[MemoryNetwork],
) -> Callable[[], AbstractAsyncContextManager[tuple[MemoryNetwork, MemoryNetwork]]]:
    @asynccontextmanager
    async def pair() -> AsyncIterator[tuple[MemoryNetwork, MemoryNetwork]]:
        async with open_memory_hub() as hub:
            yield network(hub, "ann"), network(hub, "ben")

    return pair


@pytest.mark.parametrize(
    ("network", "promise"),
    [
        (_TellsNobodyOfTheEnd, "both handlers are told once of the end"),
        (_DialsAgain, "does not dial again by itself"),
        (_TrustsAnybody, "fails with WRONG_PEER"),
    ],
)
async def test_a_network_that_breaks_a_promise_is_found(
    network: type[MemoryNetwork], promise: str, autojump_clock: MockClock
) -> None:
    """A promise of a network that is broken is named."""
    with pytest.raises(ContractViolation, match=promise):
        await check_network(_pair_of(network))


@pytest.mark.parametrize("network", [_FindsNoChannel, _DialsOnce, _AnnouncesNothing])
async def test_a_network_on_which_nothing_happens_is_found(
    network: type[MemoryNetwork], autojump_clock: MockClock
) -> None:
    """What must come about and does not ends the check after a while."""
    with pytest.raises(trio.TooSlowError):
        await check_network(_pair_of(network))


@pytest.mark.parametrize("network", [_MixesHandlersUp, _LosesFrames])
async def test_a_channel_that_loses_frames_is_found(network: type[MemoryNetwork], autojump_clock: MockClock) -> None:
    """A frame that does not arrive, or at the wrong handler, ends the check after a while."""
    with pytest.raises(trio.TooSlowError):
        await check_channels(_pair_of(network))
