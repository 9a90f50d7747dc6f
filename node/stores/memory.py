"""Records in the memory of this process: what a program that embeds a node needs, and the fastest there is.

A record is kept as it was handed in. Facts are kept only while their task goes on: the record of a finished one tells
how it ended, and a node keeps a hundred thousand of those.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from node.interfaces import Change, Committed, Store
from node.work_service import Agent, AgentStore
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

# A task has four facts; more of them are progress, ten a second at the most, and a watcher that comes back wants the
# last seconds of it. At some 120 bytes each, 256 tasks that report without end hold 2 MB.
MAX_FACTS_PER_TASK = 64


class MemoryAgents(AgentStore):
    """Keeps agents in this process."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    async def agents(self) -> list[Agent]:
        """Return every agent, in the order of their registration."""
        return sorted(self._agents.values(), key=lambda agent: agent.registered_at)

    async def save_agent(self, agent: Agent) -> None:
        """Keep an agent, instead of the one that had its id."""
        self._agents[agent.id] = agent

    async def remove_agent(self, agent_id: str) -> None:
        """Drop an agent, if it is there."""
        self._agents.pop(agent_id, None)


class MemoryStore(MemoryAgents, Store):
    """Keeps everything in this process; what is appended is committed before `append` returns.

    What it holds outlives `running`: a node that is started again on the same store goes on where the last one stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[TaskId, TaskRecord] = {}
        self._facts: dict[TaskId, list[Fact]] = {}
        self._committed: Committed | None = None

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Be open for the length of the context.

        Raises:
            PeertaskError: code STORE_FAILED, when it is open already.
        """
        if self._committed is not None:
            raise PeertaskError(
                "the memory store is open already",
                code=ErrorCode.STORE_FAILED,
                remedy="Give each node a store of its own",
            )
        self._committed = committed
        try:
            yield
        finally:
            self._committed = None

    def append(self, changes: Sequence[Change]) -> None:
        """Keep the last record and the facts of some changes, and call `committed` with them.

        Raises:
            PeertaskError: code CONFLICT, when another `seq` is next; STORE_FAILED, when the store is not open.
        """
        if self._committed is None:
            raise PeertaskError("the memory store is not open", code=ErrorCode.STORE_FAILED)
        record = changes[-1].record
        task_id = record.id
        known = self._records.get(task_id)
        if record.seq != len(changes) + (0 if known is None else known.seq):
            raise _conflict(changes[0].record, known)
        self._records[task_id] = record
        if record.terminal:
            self._facts.pop(task_id, None)
        else:
            self._keep_facts(task_id, changes)
        self._committed(changes)

    def append_new(self, changes: Sequence[Change]) -> None:
        """Keep the first changes of several tasks, and call `committed` with them; raises as `append` does."""
        if self._committed is None:
            raise PeertaskError("the memory store is not open", code=ErrorCode.STORE_FAILED)
        for record, _ in changes:
            if record.id in self._records:
                raise _conflict(record, self._records[record.id])
        for record, fact in changes:
            self._records[record.id] = record
            self._facts[record.id] = [fact]
        self._committed(changes)

    def _keep_facts(self, task_id: TaskId, changes: Sequence[Change]) -> None:
        facts = self._facts.get(task_id)
        if facts is None:
            facts = self._facts[task_id] = []
        for change in changes:
            facts.append(change.fact)
        if len(facts) > MAX_FACTS_PER_TASK:
            del facts[:-MAX_FACTS_PER_TASK]

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record, the oldest first; those of one millisecond in the order of their first append."""
        for record in sorted(self._records.values(), key=lambda record: record.created_at):
            yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the last 64 facts of a task whose number is greater than `after_seq`; none once the task has ended."""
        facts = self._facts.get(task_id)
        if facts is None:
            return
        first_seq = self._records[task_id].seq - len(facts) + 1
        for fact in facts[max(0, after_seq + 1 - first_seq) :]:
            yield fact

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks, if they are there."""
        for task_id in task_ids:
            self._records.pop(task_id, None)
            self._facts.pop(task_id, None)


def _conflict(record: TaskRecord, known: TaskRecord | None) -> PeertaskError:
    last = "holds no record of it" if known is None else f"holds number {known.seq} of it"
    return PeertaskError(
        f"task {record.id}: fact number {record.seq} cannot be kept, because the store {last}",
        code=ErrorCode.CONFLICT,
    )
