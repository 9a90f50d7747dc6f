"""What agents send to the tools, and what the tools answer that is not said over HTTP too. Unknown fields are refused.

The schemas of the tools are made of these models and of those of `node.gateways.http`.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from node.coordination.dependencies import MAX_GRAPH_TASKS
from node.gateways.http.limits import DEFAULT_LISTED, MAX_DEADLINE_S, MAX_WAIT_S
from node.gateways.http.response_models import TaskSummary
from node.gateways.http.work_models import (
    AttemptRequest,
    ClaimView,
    CompleteRequest,
    FailRequest,
    ProgressRequest,
    ReleaseRequest,
)
from node.interfaces import AGENT_KIND
from node.work_service import Claim
from protocol import JsonObject, Name, TaskId


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)


# --- what planners send ----------------------------------------------------------------------------------------------


class PlannedTask(_Arguments):
    """A task as a planner puts it; all but the description may be left out."""

    description: str
    """What to do; the prompt."""
    title: str | None = None
    """What people call it."""
    persona: str | None = None
    """Who should do it; null for anyone."""
    kind: str = AGENT_KIND
    """The kind of the task: `agent` is for agents, the others are what the executors of the node can do."""
    params: JsonObject | None = None
    """For whoever does it."""
    project: str | None = None
    """Groups tasks for people."""
    priority: int | None = None
    """0 to 255, higher first."""
    depends_on: tuple[str, ...] = ()
    """The tasks that must be complete before: their ids, or in a graph their names."""
    parent_id: str | None = None
    """The task that this one is a part of, as in `depends_on`."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)] | None = None
    """When the planner stops caring, in seconds from now; null for never."""

    def task_fields(self) -> JsonObject:
        """Return the fields of the task that were given, in their JSON shape."""
        given = self.model_dump(mode="json", exclude={"description", "title", "timeout_s"}, exclude_none=True)
        titled = {} if self.title is None else {"metadata": {"title": self.title}}
        return {**given, **titled, "prompt": self.description}


class GraphArguments(_Arguments):
    """Tasks that depend on each other."""

    tasks: Annotated[dict[str, PlannedTask], Field(min_length=1, max_length=MAX_GRAPH_TASKS)]
    """The tasks by their names, in any order; all are accepted, or none is."""


class StatusArguments(_Arguments):
    """Which task, and how long to wait for its end."""

    task_id: str
    """Its id."""
    wait_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0
    """How long to wait for the end of the task before answering, in seconds."""


class CancelArguments(_Arguments):
    """Which task."""

    task_id: str
    """Its id."""


class NoArguments(_Arguments):
    """Nothing."""


# --- what workers send -----------------------------------------------------------------------------------------------


class AgentArguments(_Arguments):
    """Which agent asks."""

    agent_id: str
    """The id that the registration was answered with."""


class AvailableArguments(_Arguments):
    """Which of the waiting tasks."""

    agent_id: str | None = None
    """Only what this agent may claim."""
    kind: str | None = None
    """Only of this kind."""
    persona: str | None = None
    """Only what somebody who acts as this persona may do."""
    limit: Annotated[int, Field(ge=1, le=DEFAULT_LISTED)] = DEFAULT_LISTED
    """At most so many."""


class ClaimArguments(AgentArguments):
    """Who claims, and what."""

    task_id: str | None = None
    """This task and no other, out of turn; null for the next one."""
    wait_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0
    """How long to wait for a task, in seconds. The agent counts as alive meanwhile."""


class HeldArguments(AgentArguments, AttemptRequest):
    """Which claim of a task is meant."""

    task_id: str
    """The task."""


class ProgressArguments(HeldArguments, ProgressRequest):
    """How far the work is."""


class CompleteArguments(HeldArguments, CompleteRequest):
    """What came of a task."""


class FailArguments(HeldArguments, FailRequest):
    """Why a task was not done."""


class ReleaseArguments(HeldArguments, ReleaseRequest):
    """Why a task is given back."""


# --- what they get ---------------------------------------------------------------------------------------------------


class GraphAnswer(_Answer):
    """A graph that was taken in."""

    task_ids: dict[str, TaskId]
    """The id of each task, by its name."""


class WaitingTasks(_Answer):
    """Tasks that wait for a worker, by priority, then by age."""

    tasks: tuple[TaskSummary, ...]


class ClaimAnswer(_Answer):
    """What a claim brought."""

    claim: ClaimView | None
    """The task that was given to the agent; null when none came."""

    @classmethod
    def of(cls, claim: Claim | None) -> Self:
        """Describe what a claim brought."""
        return cls(claim=None if claim is None else ClaimView.of(claim))


class GoneAnswer(_Answer):
    """An agent that has left."""

    agent_id: Name
    """What it was called."""
