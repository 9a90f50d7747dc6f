"""A peer that answers with the Result alone: it says Accept too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from node.interfaces import Change
from node.stores.memory import MemoryStore
from node.testing import (
    HeldStore,
    MemoryHub,
    MemoryNetwork,
    Raise,
    RecordingHandler,
    Return,
    ScriptedExecutor,
    make_task,
)
from protocol import (
    Accept,
    Cancel,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    Frame,
    PeerAdvert,
    Result,
    Started,
    Submitted,
    TaskId,
    TaskResult,
    TaskStatus,
)
from tests.node.memory_node import MemoryNode
from tests.node.remote.pairs import code_of, say

Facts = list[tuple[type[object], ...]]

FAILURE = Failure.of(ErrorCode.EXECUTION_FAILED, "no")


class NotingStore(MemoryStore):
    """Notes the facts that are handed to it together."""

    def __init__(self) -> None:
        super().__init__()
        self.appends: Facts = []

    def append(self, changes: Sequence[Change]) -> None:
        """Keep changes; see `Store.append`."""
        self.appends.append(tuple(type(change.fact) for change in changes))
        super().append(changes)


class Asked:
    """A node whose only peer says what the test lets it say."""

    def __init__(self, hub: MemoryHub) -> None:
        self.store = NotingStore()
        self.ann = MemoryNode(hub, "ann", store=self.store)
        self.peer = MemoryNetwork(hub, "ben")
        self.asked = RecordingHandler()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Asked]:
        """Run both, connected."""
        async with (
            self.ann.running(),
            self.peer.running(self.asked, RecordingHandler(), lambda _peer: PeerAdvert()),
        ):
            await self.ann.network.connect(self.peer.addresses[0])
            yield self

    async def submit(self) -> TaskId:
        """Let the node ask its peer, and wait until the peer has the task."""
        task = make_task(sender=self.ann.peer_id)
        self.ann.manager.submit(task, requester=self.ann.peer_id, target=self.peer.peer_id)
        await self.asked.wait_for_frames(1)
        return task.id

    async def answer(self, *frames: Frame) -> None:
        """Let the peer say something, and wait until it has arrived."""
        await say(self.peer, self.ann.peer_id, *frames)


@pytest.fixture
async def asked(hub: MemoryHub) -> AsyncIterator[Asked]:
    """A node and its peer, connected."""
    async with Asked(hub).running() as asked:
        yield asked


def result_of(task_id: TaskId, failure: Failure | None) -> Result:
    """The end of a task, at the worker."""
    result = TaskResult(task_id, "done", 1) if failure is None else None
    return Result(task_id=task_id, seq=4, result=result, failure=failure)


@pytest.mark.parametrize(("failure", "end"), [(None, Completed), (FAILURE, Failed)])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "after an Accept"])
async def test_a_result_records_the_start_and_the_end(
    autojump_clock: MockClock, asked: Asked, failure: Failure | None, end: type[object], *, alone: bool
) -> None:
    """Together, when no Accept has told of the start; the history is the same."""
    task_id = await asked.submit()
    await asked.answer(*([] if alone else [Accept(task_id)]), result_of(task_id, failure))
    record = await asked.ann.wait(task_id)
    assert (record.seq, record.failure) == (4, failure)
    ends: Facts = [(Started, end)] if alone else [(Started,), (end,)]
    assert asked.store.appends == [(Submitted,), (Claimed,), *ends]
    assert asked.ann.dispatcher.executing == 0


@pytest.mark.parametrize(
    ("failure", "end"),
    [(None, Completed), (FAILURE, Failed), (Failure.of(ErrorCode.CANCELLED, "stopped"), Cancelled)],
)
async def test_a_result_that_comes_when_the_task_is_being_cancelled_is_its_end(
    autojump_clock: MockClock, asked: Asked, failure: Failure | None, end: type[object]
) -> None:
    """It does not start any more; whatever came first is kept."""
    task_id = await asked.submit()
    asked.ann.manager.cancel_task(task_id)
    await asked.asked.wait_until(lambda: asked.asked.frames[-1] == Cancel(task_id))
    await asked.answer(result_of(task_id, failure))
    await asked.ann.wait(task_id)
    assert asked.store.appends == [(Submitted,), (Claimed,), (CancelRequested,), (end,)]


async def test_a_result_of_a_task_that_has_ended_here_is_dropped(autojump_clock: MockClock, asked: Asked) -> None:
    """Its deadline has passed, or somebody has taken it away: what has ended stays as it is."""
    task_id = await asked.submit()
    asked.ann.manager.apply(Failed(task_id, 1, 1, FAILURE))
    await asked.answer(result_of(task_id, None))
    assert asked.ann.manager.get_task(task_id).failure == FAILURE
    assert asked.ann.dispatcher.executing == 0


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Return("done"), TaskStatus.COMPLETE, None),
        (Raise(ValueError("no")), TaskStatus.FAILED, ErrorCode.EXECUTION_FAILED),
    ],
)
async def test_a_worker_that_saves_a_quick_task_with_one_write_answers_with_one_frame(
    autojump_clock: MockClock, hub: MemoryHub, script: Return | Raise, status: TaskStatus, code: ErrorCode | None
) -> None:
    """Both ends record the same of it as of a slow one."""
    store, requester = HeldStore(), NotingStore()
    ben = MemoryNode(hub, "worker", [executor := ScriptedExecutor()], store=store)
    ann = MemoryNode(hub, "requester", store=requester)
    async with ann.running(), ben.running():
        await ann.connect(ben)
        store.hold()
        executor.then(script)
        task_id = ann.submit(to=ben, kind=executor.kind)
        await executor.wait_until_ended(1)
        await wait_all_tasks_blocked()
        assert ann.manager.get_task(task_id).status is TaskStatus.CLAIMED
        store.commit_together(len(store.held))
        record = await ann.wait(task_id)
        assert (record.status, code_of(record)) == (status, code)
        end = Completed if code is None else Failed
        assert requester.appends == [(Submitted,), (Claimed,), (Started, end)]
        assert ben.manager.get_task(task_id).status is status
