"""The runners of one executor: slots, bursts, turns for everybody else, and what stops an attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.background import open_background
from node.interfaces import Execution, Outcome, Output
from node.runners import ATTEMPTS_A_PASS, LocalAttempt, RunnerPool
from node.testing import TEST_PEER, Delay, FakeExecution, Hang, Raise, Return, ScriptedExecutor, SeenExecution, Until
from protocol import ErrorCode, PeertaskError


class Trial(FakeExecution, LocalAttempt):
    """An attempt that remembers its end."""

    def __init__(self, prompt: str = "a prompt", limit_ms: int | None = None) -> None:
        super().__init__(prompt, holder=TEST_PEER)
        self.scope: trio.CancelScope | None = None
        self.over = False
        self.outcome: Outcome | None = None
        self._limit_ms = limit_ms

    def limit_ms(self) -> int | None:
        """What the test said."""
        return self._limit_ms

    def stop(self) -> None:
        """Cancel it while it runs."""
        assert self.scope is not None
        self.scope.cancel()

    def why_stopped(self) -> PeertaskError:
        """One reason for all."""
        return PeertaskError("stopped", code=ErrorCode.CANCELLED)

    def finish(self, outcome: Outcome) -> None:
        """Note the first one."""
        if not self.over:
            self.over = True
            self.outcome = outcome

    @property
    def code(self) -> ErrorCode | None:
        """Of the error that it ended with."""
        return self.outcome.code if isinstance(self.outcome, PeertaskError) else None


@asynccontextmanager
async def pool_of(executor: ScriptedExecutor) -> AsyncIterator[RunnerPool]:
    """A pool that runs."""
    async with open_background() as nursery:
        yield RunnerPool(executor, nursery)


@pytest.mark.parametrize("slots", [1, 2, 7, 100])
async def test_a_burst_of_attempts_that_block_has_all_its_runners_soon(autojump_clock: MockClock, slots: int) -> None:
    """Every slot is taken although each runner wakes only two others; the rest wait, and then go on."""
    gate = trio.Event()
    executor = ScriptedExecutor(slots=slots).on("a prompt", Until(gate), Return("done"))
    async with pool_of(executor) as pool:
        trials = [Trial() for _ in range(3 * slots)]
        for trial in trials:
            pool.run_soon(trial)
        await wait_all_tasks_blocked()
        assert executor.running == slots
        gate.set()
        await wait_all_tasks_blocked()
        assert executor.most_at_once == slots
        assert [trial.outcome for trial in trials] == [Output("done")] * len(trials)


async def test_a_retired_pool_finishes_what_it_has_and_ends(autojump_clock: MockClock) -> None:
    """Whoever registers a kind again leaves no runners behind, and loses no attempt."""
    gate = trio.Event()
    executor = ScriptedExecutor(slots=2).on("a prompt", Until(gate), Return("done"))
    trials = [Trial() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        idle = RunnerPool(ScriptedExecutor(), nursery)
        idle.run_soon(Trial("quick"))
        pool = RunnerPool(executor, nursery)
        for trial in trials:
            pool.run_soon(trial)
        await wait_all_tasks_blocked()
        pool.retire()
        idle.retire()
        gate.set()
    assert [trial.outcome for trial in trials] == [Output("done")] * 3


async def test_attempts_that_come_one_by_one_all_run(autojump_clock: MockClock) -> None:
    """While others block: nobody is forgotten because a runner is only just waking up."""
    executor = ScriptedExecutor(slots=8)
    async with pool_of(executor) as pool:
        trials = []
        for number in range(200):
            executor.on(f"prompt {number}", Delay(number % 5))
            trials.append(Trial(f"prompt {number}"))
            pool.run_soon(trials[-1])
            if number % 3 == 0:
                await trio.lowlevel.checkpoint()
        await trio.sleep(10)
        assert all(trial.over for trial in trials)


class AtOnce(ScriptedExecutor):
    """Ends without ever giving the event loop a turn."""

    async def execute(self, execution: Execution) -> Output:
        """Return at once."""
        self.seen.append(SeenExecution(execution.task, execution.attempt, execution.holder, "returned"))
        return Output("")


async def test_attempts_that_end_at_once_let_others_have_their_turn() -> None:
    """A thousand of them do not keep the event loop for themselves."""
    executor = AtOnce(slots=1)
    turns: list[int] = []

    async def watch() -> None:
        while len(executor.seen) < 1_000:
            turns.append(len(executor.seen))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with pool_of(executor) as pool, trio.open_nursery() as nursery:
            for _ in range(1_000):
                pool.run_soon(Trial())
            nursery.start_soon(watch)
    steps = [later - earlier for earlier, later in pairwise(turns)]
    assert max(steps) <= 2 * ATTEMPTS_A_PASS  # the order within a pass is by chance


async def test_an_attempt_that_is_over_is_not_run(autojump_clock: MockClock) -> None:
    """Cancelled while it was ready: the executor never sees it, and the next one runs."""
    executor = ScriptedExecutor(slots=1)
    async with pool_of(executor) as pool:
        gone, next_one = Trial("gone"), Trial("next")
        pool.run_soon(gone)
        pool.run_soon(next_one)
        gone.finish(PeertaskError("cancelled before", code=ErrorCode.CANCELLED))
        await wait_all_tasks_blocked()
        assert [seen.task.prompt for seen in executor.seen] == ["next"]
        assert next_one.outcome == Output("next")


async def test_an_attempt_that_is_cancelled_ends_and_its_runner_goes_on(autojump_clock: MockClock) -> None:
    """The scope belongs to that attempt alone."""
    executor = ScriptedExecutor(slots=1).on("hang", Hang())
    async with pool_of(executor) as pool:
        for _ in range(3):
            stopped, after = Trial("hang"), Trial("after")
            pool.run_soon(stopped)
            pool.run_soon(after)
            await wait_all_tasks_blocked()
            stopped.stop()
            await wait_all_tasks_blocked()
            assert stopped.code is ErrorCode.CANCELLED
            assert (stopped.scope, after.scope) == (None, None)
            assert after.outcome == Output("after")


async def test_an_attempt_has_so_much_time_and_no_more(autojump_clock: MockClock) -> None:
    """The limit of one is not the limit of the next; no time at all is enough for what ends at once."""
    executor = ScriptedExecutor(slots=1).on("slow", Delay(500), Return("done"))
    async with pool_of(executor) as pool:
        trials = [Trial("slow", 499), Trial("slow", 501), Trial("slow"), Trial("slow", 0), Trial("slow", 1_000)]
        for trial in trials:
            pool.run_soon(trial)
        await trio.sleep(10)
        ends = [trial.code for trial in trials]
        assert ends == [ErrorCode.CANCELLED, None, None, ErrorCode.CANCELLED, None]


async def test_an_error_is_an_outcome(autojump_clock: MockClock) -> None:
    """With its code when it has one."""
    executor = ScriptedExecutor().then(Raise(PeertaskError("full", code=ErrorCode.BUSY)), Raise(OSError("no disk")))
    async with pool_of(executor) as pool:
        trials = [Trial(), Trial()]
        for trial in trials:
            pool.run_soon(trial)
            await wait_all_tasks_blocked()
        assert [trial.code for trial in trials] == [ErrorCode.BUSY, ErrorCode.EXECUTION_FAILED]
        assert str(trials[1].outcome) == "OSError: no disk"
        assert "scripted" in repr(pool)


async def test_runners_that_are_cancelled_from_outside_leave_their_attempts_unfinished(
    autojump_clock: MockClock,
) -> None:
    """Whoever gave them the attempts sees to them: they were not stopped for a reason of their own."""
    executor = ScriptedExecutor().on("a prompt", Hang())
    trial = Trial()
    async with pool_of(executor) as pool:
        pool.run_soon(trial)
        await wait_all_tasks_blocked()
    assert not trial.over
    assert executor.running == 0
