"""What every store must do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from node.interfaces import Change, Store
from node.testing.clocks import START_MS
from node.testing.contract import promise
from node.testing.executions import TEST_PEER, make_task
from protocol import (
    Artifact,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeertaskError,
    Progressed,
    Released,
    RetryPolicy,
    Started,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
    new_task_id,
)

# A store that commits in groups needs milliseconds; one that does not in this time has lost something.
COMMIT_LIMIT_S = 30.0
# More than any store commits in one group.
MANY_TASKS = 500


async def check_store(open_store: Callable[[], Store], reopen: Callable[[Store], Store] = lambda store: store) -> None:
    """Check that a store keeps the contract of `Store`.

    Args:
        open_store: returns an empty store, a fresh one each time; the checker runs it.
        reopen: returns a store over what another one, which is not running any more, has kept; for a durable store a
            new one in the same place.

    Raises:
        ContractViolation: names the promise that is broken.
    """
    await _check_commits(open_store())
    await _check_conflicts(open_store())
    await _check_load(open_store())
    await _check_facts(open_store())
    await _check_forget(open_store())
    await _check_reopening(open_store(), reopen)
    await _check_new_together(open_store(), reopen)


async def _check_commits(store: Store) -> None:
    histories = [_history(_finished_life(_task(number))) for number in range(MANY_TASKS)]
    changes = [change for history in histories for change in history]
    async with _running(store) as commits:
        for history in histories:
            store.append(history[:1])
            store.append(history[1:])
        await commits.wait_for(len(changes) // 2)
    promise(
        len(commits.changes) == len(changes), "all that is appended is committed, each exactly once, before leaving"
    )
    by_task: dict[TaskId, list[Change]] = {}
    for change in commits.changes:
        by_task.setdefault(change.record.id, []).append(change)
    promise(
        all(by_task.get(history[0].record.id) == history for history in histories),
        "the changes of a task are committed in the order of appending",
    )


async def _check_conflicts(store: Store) -> None:
    first, second, third, *_ = _history(_finished_life(_task()))
    async with _running(store) as commits:
        _expect_conflict(store.append, [second], "a first record has seq 1")
        store.append((first,))
        _expect_conflict(store.append, [first], "a fact is not taken in twice")
        _expect_conflict(store.append, [third], "no fact is left out")
        _expect_conflict(store.append, [first, second], "of several changes all are taken in, or none")
        store.append((second, third))
    promise(commits.changes == [first, second, third], "what is refused with CONFLICT is not committed")
    promise(await _loaded(store) == [third.record], "what is refused with CONFLICT is not kept")


async def _check_new_together(store: Store, reopen: Callable[[Store], Store]) -> None:
    births = [_history(_waiting_life(_task(number)))[0] for number in range(MANY_TASKS)]
    known, fresh = births[0], _history(_waiting_life(_task(MANY_TASKS)))[0]
    async with _running(store) as commits:
        store.append_new(births)
        for refused in ([fresh, known], [known, fresh]):
            _expect_conflict(store.append_new, refused, "a task that is kept is not new")
        await commits.wait_for(len(births))
        promise(len(await _loaded(store)) == len(births), "of new tasks of which one is kept, none is taken in")
        store.append_new((fresh,))
    promise(commits.changes == [*births, fresh], "new tasks that come together are committed in their order")
    store = reopen(store)
    async with _running(store):
        await _check_loaded(store, [change.record for change in (*births, fresh)])


async def _check_load(store: Store) -> None:
    histories = [_history(life(_task(number))) for number, life in enumerate(_LIVES)]
    shuffled = [*histories[1::2], *reversed(histories[::2])]
    async with _running(store):
        promise(await _loaded(store) == [], "an empty store yields no record")
        for change in (change for history in shuffled for change in history):
            store.append((change,))
        await _check_loaded(store, [history[-1].record for history in histories])


async def _check_facts(store: Store) -> None:
    history = _history(_long_life(_task()))
    task_id = history[0].record.id
    async with _running(store):
        promise(await _facts(store, new_task_id()) == [], "an unknown task has no facts")
        for length, change in enumerate(history, 1):
            store.append((change,))
            kept = await _facts(store, task_id)
            last = [earlier.fact for earlier in history[:length]][length - len(kept) :]
            promise(kept == last, "the facts that are kept are the last ones of the task, in order, without a gap")
            for after_seq in range(length + 2):
                later = last[max(0, after_seq - (length - len(kept))) :]
                promise(await _facts(store, task_id, after_seq) == later, "facts up to after_seq are left out")


async def _check_forget(store: Store) -> None:
    gone, kept = _history(_finished_life(_task(1))), _history(_long_life(_task(2)))
    async with _running(store):
        for change in (*gone, *kept):
            store.append((change,))
        store.forget([gone[0].record.id, new_task_id()])
        promise(await _loaded(store) == [kept[-1].record], "a forgotten record is not loaded, and the others are")
        promise(await _facts(store, gone[0].record.id) == [], "a forgotten task has no facts")
        store.append((gone[0],))
        promise(len(await _loaded(store)) == 2, "a task may come again after it was forgotten")  # noqa: PLR2004 - two


async def _check_reopening(store: Store, reopen: Callable[[Store], Store]) -> None:
    finished, going_on = _history(_finished_life(_task(1))), _history(_long_life(_task(2)))
    async with _running(store):
        for change in (*finished, *going_on[:-1]):
            store.append((change,))
    store = reopen(store)
    async with _running(store) as commits:
        await _check_loaded(store, [finished[-1].record, going_on[-2].record])
        promise(commits.changes == [], "what was committed before is not committed again")
        store.append((going_on[-1],))
        await _check_loaded(store, [finished[-1].record, going_on[-1].record])


async def _check_loaded(store: Store, records: list[TaskRecord]) -> None:
    loaded = await _loaded(store)
    promise(len(loaded) == len(records), f"{len(records)} records are kept, and {len(loaded)} are loaded")
    promise(loaded == records, "the last record of each task is loaded, without loss, the oldest created_at first")


def _expect_conflict(append: Callable[[Sequence[Change]], None], changes: Sequence[Change], text: str) -> None:
    try:
        append(changes)
    except PeertaskError as error:
        promise(error.code is ErrorCode.CONFLICT, f"{text}: CONFLICT says so, and not {error.code}")
    else:
        promise(False, f"{text}: CONFLICT says so")


class _Commits:
    """What a store has committed, and whether all of it on the event loop."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.all_on_loop = True
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()

    def __call__(self, changes: Sequence[Change]) -> None:
        self.all_on_loop = self.all_on_loop and _is_on_loop(self._token)
        self.changes.extend(changes)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, count: int) -> None:
        while len(self.changes) < count:
            await self._changed.wait()


def _is_on_loop(token: trio.lowlevel.TrioToken) -> bool:
    try:
        return trio.lowlevel.current_trio_token() is token
    except RuntimeError:
        return False


@asynccontextmanager
async def _running(store: Store) -> AsyncIterator[_Commits]:
    commits = _Commits()
    with trio.fail_after(COMMIT_LIMIT_S):
        async with store.running(commits):
            yield commits
    promise(commits.all_on_loop, "committed is called on the event loop")


async def _loaded(store: Store) -> list[TaskRecord]:
    return [record async for record in store.load()]


async def _facts(store: Store, task_id: TaskId, after_seq: int = 0) -> list[Fact]:
    return [fact async for fact in store.facts(task_id, after_seq)]


# --- lives of tasks --------------------------------------------------------------------------------------------------


def _task(number: int = 0) -> Task:
    return make_task(
        f"prompt {number}: “ünïcode” \U0001f9ea\n",
        timestamp=START_MS + number,
        params={"depth": [1, {"x": None}], "ratio": 0.5, "big": 2**63},
        depends_on=(new_task_id(),),
        retry=RetryPolicy(attempts=5),
        session_id="talk-1",
        timeout_ms=1000,
        metadata={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )


def _history(facts: Iterable[Fact]) -> list[Change]:
    changes: list[Change] = []
    for fact in facts:
        record = begin(fact) if isinstance(fact, Submitted) else advance(changes[-1].record, fact)
        changes.append(Change(record, fact))
    return changes


def _submitted(task: Task) -> Submitted:
    return Submitted(task, task.timestamp, TEST_PEER, TEST_PEER, task.timestamp + 60_000)


def _attempt(task: Task, attempt: int, at: int) -> list[Transition]:
    return [Claimed(task.id, at, attempt, TEST_PEER, at + 30_000), Started(task.id, at + 1, attempt)]


def _finished_life(task: Task) -> list[Fact]:
    at = task.timestamp
    artifact = Artifact(name="plot.png", content="iVBORw==", media_type="image/png", encoding="base64")
    result = TaskResult(task.id, "done: ✓", 12, (artifact,))
    return [_submitted(task), *_attempt(task, 1, at + 1), Completed(task.id, at + 9, 1, result)]


def _failed_life(task: Task) -> list[Fact]:
    at = task.timestamp
    failure = Failure.of(ErrorCode.EXECUTION_FAILED, "ValueError: no")
    released = Released(task.id, at + 5, 1, ErrorCode.LEASE_LOST, "the worker is gone", at + 7)
    return [
        _submitted(task),
        *_attempt(task, 1, at + 1),
        released,
        *_attempt(task, 2, at + 8),
        Failed(task.id, at + 20, 2, failure),
    ]


def _cancelled_life(task: Task) -> list[Fact]:
    at = task.timestamp
    return [_submitted(task), *_attempt(task, 1, at + 1), CancelRequested(task.id, at + 5), Cancelled(task.id, at + 6)]


def _long_life(task: Task) -> list[Fact]:
    at = task.timestamp
    steps = [Progressed(task.id, at + 10 + n, 1, n / 100, f"step {n}", at + 40_000) for n in range(5)]
    return [_submitted(task), *_attempt(task, 1, at + 1), *steps]


def _waiting_life(task: Task) -> list[Fact]:
    return [_submitted(task)]


_LIVES = (_waiting_life, _finished_life, _long_life, _failed_life, _cancelled_life)
