"""A client for outside workers of the node that runs in a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from node.gateways.http.client import ControlClient, Patience, Query
from node.gateways.http.response_models import TaskView
from node.gateways.http.work_models import AgentView, ClaimView, HeldTaskView
from protocol import Artifact, ErrorCode, JsonObject, PeertaskError, TaskId

_NO_CONTENT = 204


class WorkClient(ControlClient):
    """Works on tasks of the node of a data folder, as one agent; errors are those of `ControlClient`.

    The codes NOT_FOUND, STALE_ATTEMPT and ILLEGAL_TRANSITION mean what `WorkService` says.

    Args:
        folder: the data folder.
        agent_id: who asks; `register` says so when the node is to draw an id.
        patience: how long it waits.
    """

    def __init__(self, folder: Path, agent_id: str, patience: Patience | None = None) -> None:
        super().__init__(folder, patience)
        self.agent_id = agent_id

    @classmethod
    async def register(
        cls,
        folder: Path,
        kinds: tuple[str, ...],
        *,
        agent_id: str | None = None,
        persona: str | None = None,
        patience: Patience | None = None,
    ) -> Self:
        """Take part as an agent, and return the client for it.

        Args:
            folder: the data folder.
            kinds: the kinds of tasks that it does.
            agent_id: what it is called; drawn by the node when None.
            persona: whom it acts as.
            patience: how long the client waits.
        """
        body = {"id": agent_id, "kinds": kinds, "persona": persona}
        client = cls(folder, agent_id or "", patience)
        client.agent_id = (await client._ask(AgentView, "POST", "/v1/agents", body=body)).id
        return client

    async def heartbeat(self) -> AgentView:
        """Give a sign of life, and return what the node knows about the agent: what it has, and what it is to stop."""
        return await self._ask(AgentView, "POST", f"{self._path}/heartbeat")

    async def deregister(self) -> None:
        """Leave."""
        await self.remove_agent(self.agent_id)

    async def claim(self, wait_s: float = 0.0) -> ClaimView | None:
        """Claim the next task; None when none came within `wait_s` seconds, 60 at most."""
        return await self._ask_for_task({}, wait_s)

    async def claim_task(self, task_id: TaskId) -> ClaimView:
        """Claim a given task."""
        claim = await self._ask_for_task({"task": task_id}, 0.0)
        if claim is None:  # only a node that stops answers so
            raise PeertaskError("the node is stopping and gives no more work", code=ErrorCode.DRAINING)
        return claim

    async def start(self, claim: ClaimView) -> HeldTaskView:
        """Tell that the work on a claimed task has begun."""
        return await self._ask(HeldTaskView, "POST", self._task_path(claim, "start"), body=_attempt(claim))

    async def progress(self, claim: ClaimView, fraction: float, message: str = "") -> HeldTaskView:
        """Tell how far it is, 0 to 1."""
        body = _attempt(claim, fraction=fraction, message=message)
        return await self._ask(HeldTaskView, "POST", self._task_path(claim, "progress"), body=body)

    async def complete(self, claim: ClaimView, result: str, artifacts: tuple[Artifact, ...] = ()) -> TaskView:
        """Deliver its result."""
        shapes = [
            {"name": part.name, "content": part.content, "media_type": part.media_type, "encoding": part.encoding}
            for part in artifacts
        ]
        body = _attempt(claim, result=result, artifacts=shapes)
        return await self._ask(TaskView, "POST", self._task_path(claim, "complete"), body=body)

    async def fail(
        self,
        claim: ClaimView,
        message: str,
        *,
        code: ErrorCode = ErrorCode.EXECUTION_FAILED,
        retryable: bool = False,
    ) -> TaskView:
        """Tell that the work failed."""
        body = _attempt(claim, message=message, code=code.value, retryable=retryable)
        return await self._ask(TaskView, "POST", self._task_path(claim, "fail"), body=body)

    async def release(self, claim: ClaimView, message: str = "") -> TaskView:
        """Give it back."""
        body = _attempt(claim, message=message)
        return await self._ask(TaskView, "POST", self._task_path(claim, "release"), body=body)

    async def _ask_for_task(self, query: Query, wait_s: float) -> ClaimView | None:
        status, content = await self._succeed("POST", f"{self._path}/claim", query=query, wait_s=wait_s)
        return None if status == _NO_CONTENT else self._parse(ClaimView, status, content)

    @property
    def _path(self) -> str:
        return f"/v1/agents/{quote(self.agent_id, safe='')}"

    def _task_path(self, claim: ClaimView, verb: str) -> str:
        return f"{self._path}/tasks/{claim.task.id}/{verb}"


def _attempt(claim: ClaimView, **fields: Any) -> JsonObject:
    return {"attempt": claim.attempt, **fields}
