"""The work door as an agent reaches it that speaks MCP; it needs the extra `mcp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from node.gateways.http.response_models import ErrorView
from node.interfaces import Output
from node.work_service import Agent, AgentRegistration, AgentState, Claim, HeldTask, WorkService
from protocol import Failure, JsonObject, TaskId, TaskRecord, TaskStatus

if TYPE_CHECKING:
    from mcp import Client


class McpWork(WorkService):
    """The door of a node, over an MCP client: a `FakeAgentSession` can work through it.

    The records that it returns are what the tools tell: they have no `lease_until`, no `not_before` and no receipt.

    Args:
        client: a session with the server, open.
        door: the door behind the server: answers at once what `WorkService` has no waiting for.
    """

    def __init__(self, client: Client, door: WorkService) -> None:
        self._client = client
        self._door = door

    async def register(self, registration: AgentRegistration) -> Agent:
        """Let an agent take part; see `WorkService.register`."""
        asked = {"id": registration.id, "kinds": registration.kinds, "persona": registration.persona}
        return _state(await self._ask("register_agent", **asked)).agent

    async def heartbeat(self, agent_id: str) -> AgentState:
        """Take a sign of life; see `WorkService.heartbeat`."""
        return _state(await self._ask("heartbeat", agent_id=agent_id))

    async def deregister(self, agent_id: str) -> None:
        """Let an agent go; see `WorkService.deregister`."""
        await self._ask("deregister_agent", agent_id=agent_id)

    def active_agents(self) -> Sequence[AgentState]:
        """Return the agents that are there, as the door behind tells them."""
        return self._door.active_agents()

    async def cleanup_expired(self) -> Sequence[Agent]:
        """Have the door behind forget the silent agents: no agent may ask for that."""
        return await self._door.cleanup_expired()

    async def claim(self, agent_id: str, wait_s: float = 0.0) -> Claim | None:
        """Claim the next task; see `WorkService.claim`."""
        claim = (await self._ask("claim_task", agent_id=agent_id, wait_s=wait_s))["claim"]
        return None if claim is None else _claim(claim)

    async def claim_task(self, agent_id: str, task_id: TaskId) -> Claim:
        """Claim a given task; see `WorkService.claim_task`."""
        return _claim((await self._ask("claim_task", agent_id=agent_id, task_id=task_id))["claim"])

    def waiting(
        self, agent_id: str | None = None, *, kind: str | None = None, persona: str | None = None, limit: int = 100
    ) -> list[TaskRecord]:
        """Return what waits for a worker, as the door behind tells it."""
        return self._door.waiting(agent_id, kind=kind, persona=persona, limit=limit)

    async def start(self, agent_id: str, task_id: TaskId, attempt: int) -> HeldTask:
        """Tell that the work has begun; see `WorkService.start`."""
        return _held(await self._ask("start_task", agent_id=agent_id, task_id=task_id, attempt=attempt))

    async def progress(
        self, agent_id: str, task_id: TaskId, attempt: int, fraction: float, message: str = ""
    ) -> HeldTask:
        """Tell how far the work is; see `WorkService.progress`."""
        said = {"attempt": attempt, "fraction": fraction, "message": message}
        return _held(await self._ask("report_progress", agent_id=agent_id, task_id=task_id, **said))

    async def complete(self, agent_id: str, task_id: TaskId, attempt: int, output: Output) -> TaskRecord:
        """Deliver a result; see `WorkService.complete`."""
        artifacts = [
            {"name": part.name, "content": part.content, "media_type": part.media_type, "encoding": part.encoding}
            for part in output.artifacts
        ]
        said = {"attempt": attempt, "result": output.text, "artifacts": artifacts}
        return _record(await self._ask("complete_task", agent_id=agent_id, task_id=task_id, **said))

    async def fail(self, agent_id: str, task_id: TaskId, attempt: int, failure: Failure) -> TaskRecord:
        """Tell that the work failed; see `WorkService.fail`."""
        said = {
            "attempt": attempt,
            "code": failure.code,
            "message": failure.message,
            "retryable": failure.retryable,
        }
        return _record(await self._ask("fail_task", agent_id=agent_id, task_id=task_id, **said))

    async def release(self, agent_id: str, task_id: TaskId, attempt: int, message: str = "") -> TaskRecord:
        """Give a task back; see `WorkService.release`."""
        said = {"attempt": attempt, "message": message}
        return _record(await self._ask("release_task", agent_id=agent_id, task_id=task_id, **said))

    async def _ask(self, tool: str, **arguments: Any) -> JsonObject:
        answer = await self._client.call_tool(tool, arguments)
        content: JsonObject = answer.structured_content
        if answer.is_error:
            raise ErrorView.model_validate(content).error.to_error()
        return content


def _state(shape: JsonObject) -> AgentState:
    agent = Agent(
        id=shape["id"],
        kinds=tuple(shape["kinds"]),
        persona=shape["persona"],
        registered_at=shape["registered_at"],
        heard_at=shape["heard_at"],
    )
    return AgentState(agent=agent, lapses_at=shape["lapses_at"], tasks=tuple(map(_held, shape["tasks"])))


def _held(shape: JsonObject) -> HeldTask:
    return HeldTask(
        task_id=TaskId(shape["task_id"]),
        attempt=shape["attempt"],
        status=TaskStatus(shape["status"]),
        progress=shape["progress"],
        stop=shape["stop"],
    )


def _claim(shape: JsonObject) -> Claim:
    return Claim(
        record=_record(shape["task"]),
        attempt=shape["attempt"],
        lease_ms=shape["lease_ms"],
        remaining_ms=shape["remaining_ms"],
    )


def _record(shape: JsonObject) -> TaskRecord:
    return TaskRecord.from_dict({**shape, "task": shape, "lease_until": 0, "not_before": 0})
