"""What outside workers send and get; what else there is to say stands in `request_models` and `response_models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from node.gateways.http.limits import MAX_WAIT_S
from node.gateways.http.response_models import TaskView, iso_time
from node.work_service import MAX_AGENT_KINDS, WORKER_FAILURES, AgentState, Claim, HeldTask
from protocol import MAX_MESSAGE_CHARS, Artifact, ErrorCode, Failure, Name, TaskId, TaskStatus


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, defer_build=True)


# --- what they send --------------------------------------------------------------------------------------------------


class AgentRequest(_Request):
    """An outside worker that wants to take part."""

    kinds: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_AGENT_KINDS)]
    """The kinds of tasks that it does."""
    id: Name | None = None
    """What it is called; drawn when null. An agent that registers again has begun anew: what it held is given to
    others."""
    persona: Name | None = None
    """Whom it acts as; null when it only does tasks that name nobody."""


class ClaimQuery(_Request):
    """What to claim."""

    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0
    """How long to wait for a task, in seconds. The agent counts as alive meanwhile."""
    task: str | None = None
    """This one and no other, out of turn."""


class AttemptRequest(_Request):
    """Which claim of a task is meant."""

    attempt: Annotated[int, Field(ge=1)]
    """The fencing token that the claim was answered with."""


class ProgressRequest(AttemptRequest):
    """How far the work is."""

    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    """0 to 1. One that is less than an earlier one is only a sign of life."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)] = ""
    """For people."""


class CompleteRequest(AttemptRequest):
    """What came of a task."""

    result: str
    """The text of the result."""
    artifacts: tuple[Artifact, ...] = ()
    """Named output beside it."""


def _check_failure(code: ErrorCode) -> ErrorCode:
    if code not in WORKER_FAILURES:
        raise ValueError(f"a worker knows only {', '.join(sorted(WORKER_FAILURES))}")
    return code


class FailRequest(AttemptRequest):
    """Why a task was not done."""

    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)]
    """What failed, where and why."""
    code: Annotated[ErrorCode, AfterValidator(_check_failure)] = ErrorCode.EXECUTION_FAILED
    """What kind of failure it is: EXECUTION_FAILED, INVALID_TASK, TOO_LARGE, FORBIDDEN or TIMEOUT."""
    retryable: bool = False
    """Whether another attempt may succeed; the retry policy of the task has the last word."""

    def failure(self) -> Failure:
        """Return the failure that the record keeps."""
        return Failure(code=self.code, message=self.message, retryable=self.retryable)


class ReleaseRequest(AttemptRequest):
    """Why a task is given back."""

    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)] = ""
    """For people."""


# --- what they get ---------------------------------------------------------------------------------------------------


class HeldTaskView(_Response):
    """A task that an agent has."""

    task_id: TaskId
    attempt: int
    """The fencing token."""
    status: TaskStatus
    progress: float
    """The fraction done, 0 to 1, as recorded."""
    stop: bool
    """Whether the agent is to stop, because the requester does not want the task any more: it gives the task back."""

    @classmethod
    def of(cls, held: HeldTask) -> Self:
        """Describe it."""
        return cls.model_validate(held)


class AgentView(_Response):
    """An outside worker that has registered."""

    id: str
    kinds: tuple[str, ...]
    persona: str | None
    registered_at: int
    """In milliseconds since the epoch, as the other times."""
    registered_at_iso: str
    heard_at: int
    """When it gave its last sign of life."""
    heard_at_iso: str
    lapses_at: int
    """When it counts as gone unless it gives another."""
    tasks: tuple[HeldTaskView, ...]
    """What it has."""

    @classmethod
    def of(cls, state: AgentState) -> Self:
        """Describe an agent."""
        agent = state.agent
        return cls(
            id=agent.id,
            kinds=agent.kinds,
            persona=agent.persona,
            registered_at=agent.registered_at,
            registered_at_iso=iso_time(agent.registered_at),
            heard_at=agent.heard_at,
            heard_at_iso=iso_time(agent.heard_at),
            lapses_at=state.lapses_at,
            tasks=tuple(map(HeldTaskView.of, state.tasks)),
        )


class AgentList(_Response):
    """The agents that are there, in the order of their registration."""

    agents: tuple[AgentView, ...]

    @classmethod
    def of(cls, states: Sequence[AgentState]) -> Self:
        """Describe them."""
        return cls(agents=tuple(map(AgentView.of, states)))


class ClaimView(_Response):
    """A task that was given to an agent."""

    task: TaskView
    attempt: int
    """The fencing token: to be repeated with everything that is said about the task."""
    lease_ms: int
    """How long the lease lasts, in milliseconds: the task must be started in that time, and from then on the agent must
    give a sign of life at least as often."""
    remaining_ms: int | None
    """How long the requester still cares, in milliseconds; null for as long as it takes."""

    @classmethod
    def of(cls, claim: Claim) -> Self:
        """Describe a claim."""
        return cls(
            task=TaskView.of(claim.record),
            attempt=claim.attempt,
            lease_ms=claim.lease_ms,
            remaining_ms=claim.remaining_ms,
        )
