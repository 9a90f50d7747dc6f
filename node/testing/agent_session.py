"""An outside worker in the process of a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from node.interfaces import Output
from node.work_service import AgentRegistration, AgentState, Claim, HeldTask, WorkService
from protocol import ErrorCode, Failure, PeertaskError, Task, TaskId, TaskRecord


class FakeAgentSession:
    """A simulated agent: takes part for the length of a context, and does at the work door what it is told to.

    It remembers its claims, so the test names a task only when it has several. Nothing happens by itself: an agent that
    is not told to beat is silent.

    Args:
        work: the door.
        kinds: what it does.
        agent_id: what it is called; drawn when None.
        persona: whom it acts as.

    Attributes:
        agent_id: what it is called, from when the context is entered.
        claims: what it has claimed, and has not ended, by task.
    """

    def __init__(
        self,
        work: WorkService,
        kinds: tuple[str, ...] = ("agent",),
        *,
        agent_id: str | None = None,
        persona: str | None = None,
    ) -> None:
        self.agent_id = agent_id or ""
        self.claims: dict[TaskId, Claim] = {}
        self._work = work
        self._registration = AgentRegistration.of(id=agent_id, kinds=kinds, persona=persona)
        self._is_there = False

    async def __aenter__(self) -> Self:
        await self.register()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_there and kind is None:
            await self.leave()

    async def register(self) -> None:
        """Take part, or begin anew."""
        self.agent_id = (await self._work.register(replace(self._registration, id=self.agent_id or None))).id
        self._is_there = True

    async def leave(self) -> None:
        """Deregister, unless the node has forgotten it."""
        self._is_there = False
        try:
            await self._work.deregister(self.agent_id)
        except PeertaskError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise

    def crash(self) -> None:
        """Be gone without a word."""
        self._is_there = False

    async def beat(self) -> AgentState:
        """Give a sign of life."""
        return await self._work.heartbeat(self.agent_id)

    async def claim(self, wait_s: float = 0.0) -> Claim | None:
        """Ask for a task."""
        claim = await self._work.claim(self.agent_id, wait_s)
        if claim is not None:
            self.claims[claim.record.id] = claim
        return claim

    async def claim_task(self, task_id: TaskId) -> Claim:
        """Ask for a given task."""
        claim = self.claims[task_id] = await self._work.claim_task(self.agent_id, task_id)
        return claim

    async def start(self, claim: Claim | None = None) -> HeldTask:
        """Begin to work."""
        claim = self._meant(claim)
        return await self._work.start(self.agent_id, claim.record.id, claim.attempt)

    async def report(self, fraction: float, message: str = "", claim: Claim | None = None) -> HeldTask:
        """Tell how far the work is."""
        claim = self._meant(claim)
        return await self._work.progress(self.agent_id, claim.record.id, claim.attempt, fraction, message)

    async def complete(self, text: str = "done", claim: Claim | None = None) -> TaskRecord:
        """Deliver a result."""
        claim = self._meant(claim)
        record = await self._work.complete(self.agent_id, claim.record.id, claim.attempt, Output(text))
        self.claims.pop(claim.record.id, None)
        return record

    async def fail(
        self,
        message: str = "it went wrong",
        claim: Claim | None = None,
        *,
        code: ErrorCode = ErrorCode.EXECUTION_FAILED,
        retryable: bool = False,
    ) -> TaskRecord:
        """Tell that the work failed."""
        claim = self._meant(claim)
        failure = Failure(code=code, message=message, retryable=retryable)
        record = await self._work.fail(self.agent_id, claim.record.id, claim.attempt, failure)
        self.claims.pop(claim.record.id, None)
        return record

    async def give_back(self, message: str = "", claim: Claim | None = None) -> TaskRecord:
        """Give a task back."""
        claim = self._meant(claim)
        record = await self._work.release(self.agent_id, claim.record.id, claim.attempt, message)
        self.claims.pop(claim.record.id, None)
        return record

    async def work(self, answer: Callable[[Task], str] = lambda task: task.prompt, wait_s: float = 0.0) -> int:
        """Do one task after the other until none comes within a time, and return how many."""
        done = 0
        while (claim := await self.claim(wait_s)) is not None:
            await self.start(claim)
            await self.complete(answer(claim.record.task), claim)
            done += 1
        return done

    def _meant(self, claim: Claim | None) -> Claim:
        if claim is not None:
            return claim
        if len(self.claims) != 1:
            raise ValueError(f"agent {self.agent_id} has {len(self.claims)} claims; name one")
        return next(iter(self.claims.values()))
