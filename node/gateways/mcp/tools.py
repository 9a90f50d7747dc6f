"""The tools: what planners and workers ask over MCP, translated to the services of a node, and back.

Nothing here knows the protocol: `server` offers these tools over it. Tasks go by their ids. Whatever a tool answers is
saved. What a tool refuses is an answer too, with the same code, message and remedy as over HTTP.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import trio
from pydantic import BaseModel, ValidationError

from node.clock import SystemClock
from node.coordination.naming import resolve_names
from node.gateways.http.errors import refuse_invalid
from node.gateways.http.limits import SAVE_PATIENCE_S
from node.gateways.http.request_models import ListQuery
from node.gateways.http.response_models import ErrorBody, ErrorView, TaskList, TaskSummary, TaskView
from node.gateways.http.work_models import AgentList, AgentRequest, AgentView, HeldTaskView
from node.gateways.mcp.models import (
    AgentArguments,
    AvailableArguments,
    CancelArguments,
    ClaimAnswer,
    ClaimArguments,
    CompleteArguments,
    FailArguments,
    GoneAnswer,
    GraphAnswer,
    GraphArguments,
    HeldArguments,
    NoArguments,
    PlannedTask,
    ProgressArguments,
    ReleaseArguments,
    StatusArguments,
    WaitingTasks,
)
from node.gateways.mcp.schemas import schema_of
from node.gateways.waiting import done_and_saved, ended, not_saved, saved
from node.interfaces import Clock, GraphTask, Output, TaskService
from node.work_service import AgentRegistration, Claim, WorkService
from protocol import ErrorCode, JsonObject, PeerId, PeertaskError, Task, TaskRecord, parse_task_id

Role = Literal["planner", "worker"]


async def take_any_persona(wanted: str | None) -> None:
    """Check nothing: for nodes that run without coordination."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the tools ask of a node.

    Attributes:
        tasks: its tasks.
        work: its door for outside workers.
        own_id: who it is: the requester of all tasks that come in here.
        clock: tells the time.
        check_persona: refuses a persona that nobody knows, by `InvalidTask`.
    """

    tasks: TaskService
    work: WorkService
    own_id: PeerId
    clock: Clock = field(default_factory=SystemClock)
    check_persona: Callable[[str | None], Awaitable[None]] = take_any_persona


@dataclass(frozen=True)
class Tool:
    """One thing that can be asked.

    Attributes:
        role: who asks it.
        arguments: the model of what is sent.
        answer: the model of what is answered.
        run: does it.
    """

    role: Role
    arguments: type[BaseModel]
    answer: type[BaseModel]
    run: Callable[[Desk, Any], Awaitable[BaseModel]]

    @property
    def name(self) -> str:
        """What it is called: as the function that does it."""
        return self.run.__name__

    @property
    def description(self) -> str:
        """What an agent is told about it."""
        return inspect.getdoc(self.run) or ""

    @cached_property
    def input_schema(self) -> JsonObject:
        """The JSON schema of what is sent."""
        return schema_of(self.arguments, "validation")

    @cached_property
    def output_schema(self) -> JsonObject:
        """The JSON schema of what is answered."""
        return schema_of(self.answer, "serialization")


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What came of a call.

    Attributes:
        content: the answer in its JSON shape; ``{"error": ...}`` when the call was refused.
        is_error: whether it was.
    """

    content: JsonObject
    is_error: bool = False


async def call_tool(desk: Desk, tool: Tool, arguments: Mapping[str, Any]) -> ToolAnswer:
    """Do what is asked; what is refused is an answer too. Cancelling a claim gives back what was claimed."""
    try:
        answer = await tool.run(desk, _checked(tool, arguments))
    except PeertaskError as error:
        return refusal(error)
    return ToolAnswer(answer.model_dump(mode="json"))


def refusal(error: PeertaskError) -> ToolAnswer:
    """Return the answer that tells an error."""
    return ToolAnswer(ErrorView(error=ErrorBody.of(error)).model_dump(mode="json"), is_error=True)


def _checked(tool: Tool, arguments: Mapping[str, Any]) -> BaseModel:
    try:
        return tool.arguments.model_validate(arguments)
    except ValidationError as error:
        known = ", ".join(tool.arguments.model_fields)
        code = ErrorCode.INVALID_TASK if tool.run in {enqueue_task, submit_graph} else ErrorCode.PROTOCOL
        raise refuse_invalid(error, f"the arguments of {tool.name}", known or "none", code) from None


# --- planners --------------------------------------------------------------------------------------------------------


async def enqueue_task(desk: Desk, asked: PlannedTask) -> TaskView:
    """Put a task in the queue, and return it before it is done. `task_status` and `cancel_task` take its id."""
    placed = await _placed(desk, asked, asked.task_fields())
    record = desk.tasks.submit(placed.task, requester=desk.own_id, target=None, deadline=placed.deadline)
    return _view(desk, await saved(desk.tasks, record))


async def submit_graph(desk: Desk, asked: GraphArguments) -> GraphAnswer:
    """Put tasks that depend on each other in the queue, all or none. In `depends_on` they go by their names."""
    named = resolve_names({name: task.task_fields() for name, task in asked.tasks.items()})
    graph = [await _placed(desk, task, fields) for task, fields in zip(asked.tasks.values(), named.tasks, strict=True)]
    records = desk.tasks.submit_graph(graph, requester=desk.own_id)
    await saved(desk.tasks, records[-1])  # they are saved together
    return GraphAnswer(task_ids=named.ids)


async def list_tasks(desk: Desk, asked: ListQuery) -> TaskList:
    """List the tasks that match, the newest first, without what may be large."""
    return TaskList(tasks=await _summaries(desk, desk.tasks.list_tasks(asked.task_filter())))


async def task_status(desk: Desk, asked: StatusArguments) -> TaskView:
    """Tell where a task stands, with its result or why it failed; with `wait_s` once it has ended."""
    record = desk.tasks.get_task(parse_task_id(asked.task_id))
    if asked.wait_s and not record.terminal:
        with trio.move_on_after(asked.wait_s):
            await ended(desk.tasks, record)
    return _view(desk, desk.tasks.get_task(record.id))


async def cancel_task(desk: Desk, asked: CancelArguments) -> TaskView:
    """Ask for a task and its children to be stopped; what has ended stays as it is."""
    record = desk.tasks.cancel_task(parse_task_id(asked.task_id))
    return _view(desk, await saved(desk.tasks, record))


async def list_agents(desk: Desk, _asked: NoArguments) -> AgentList:
    """List the agents that are there, and what they have."""
    await trio.lowlevel.checkpoint()
    return AgentList.of(desk.work.active_agents())


# --- workers ---------------------------------------------------------------------------------------------------------


async def register_agent(desk: Desk, asked: AgentRequest) -> AgentView:
    """Take part as an agent that does tasks of some kinds (`agent` is what planners put). Do this first.

    The answer has the id that all other tools ask for.
    """
    registration = AgentRegistration(id=asked.id, kinds=asked.kinds, persona=asked.persona)
    agent = await done_and_saved(desk.work.register(registration))
    return AgentView.of(await desk.work.heartbeat(agent.id))


async def available_tasks(desk: Desk, asked: AvailableArguments) -> WaitingTasks:
    """List the tasks that wait for a worker, by priority, then by age."""
    waiting = desk.work.waiting(asked.agent_id, kind=asked.kind, persona=asked.persona, limit=asked.limit)
    return WaitingTasks(tasks=await _summaries(desk, waiting))


async def claim_task(desk: Desk, asked: ClaimArguments) -> ClaimAnswer:
    """Claim the next task, or a given one; null when none came.

    The answer has the `attempt`, which is to be repeated with everything that is said about the task, and `lease_ms`:
    start the task in that time, and from then on call a tool at least as often, such as `heartbeat`.
    """
    with trio.move_on_after(asked.wait_s + SAVE_PATIENCE_S):
        return ClaimAnswer.of(await _claim(desk.work, asked))
    raise not_saved()


async def start_task(desk: Desk, asked: HeldArguments) -> HeldTaskView:
    """Tell that the work on a claimed task has begun. When the answer says `stop`, release the task."""
    work = desk.work.start(asked.agent_id, parse_task_id(asked.task_id), asked.attempt)
    return HeldTaskView.of(await done_and_saved(work))


async def report_progress(desk: Desk, asked: ProgressArguments) -> HeldTaskView:
    """Tell how far the work is; also a sign of life. When the answer says `stop`, release the task."""
    task_id = parse_task_id(asked.task_id)
    work = desk.work.progress(asked.agent_id, task_id, asked.attempt, asked.fraction, asked.message)
    return HeldTaskView.of(await done_and_saved(work))


async def complete_task(desk: Desk, asked: CompleteArguments) -> TaskView:
    """Deliver the result of a task. The same result again is answered as the first time."""
    output = Output(asked.result, asked.artifacts)
    work = desk.work.complete(asked.agent_id, parse_task_id(asked.task_id), asked.attempt, output)
    return _view(desk, await done_and_saved(work))


async def fail_task(desk: Desk, asked: FailArguments) -> TaskView:
    """Tell that the work failed, and why; the retry policy of the task decides whether it is tried again."""
    work = desk.work.fail(asked.agent_id, parse_task_id(asked.task_id), asked.attempt, asked.failure())
    return _view(desk, await done_and_saved(work))


async def release_task(desk: Desk, asked: ReleaseArguments) -> TaskView:
    """Give a task back, so that somebody else does it; it counts as nothing."""
    work = desk.work.release(asked.agent_id, parse_task_id(asked.task_id), asked.attempt, asked.message)
    return _view(desk, await done_and_saved(work))


async def heartbeat(desk: Desk, asked: AgentArguments) -> AgentView:
    """Give a sign of life, which renews the leases of all that was started; tells what the agent is to stop."""
    return AgentView.of(await desk.work.heartbeat(asked.agent_id))


async def deregister_agent(desk: Desk, asked: AgentArguments) -> GoneAnswer:
    """Leave; what the agent has is given to others at once."""
    await done_and_saved(desk.work.deregister(asked.agent_id))
    return GoneAnswer(agent_id=asked.agent_id)


_ALL = (
    Tool("planner", PlannedTask, TaskView, enqueue_task),
    Tool("planner", GraphArguments, GraphAnswer, submit_graph),
    Tool("planner", ListQuery, TaskList, list_tasks),
    Tool("planner", StatusArguments, TaskView, task_status),
    Tool("planner", CancelArguments, TaskView, cancel_task),
    Tool("planner", NoArguments, AgentList, list_agents),
    Tool("worker", AgentRequest, AgentView, register_agent),
    Tool("worker", AvailableArguments, WaitingTasks, available_tasks),
    Tool("worker", ClaimArguments, ClaimAnswer, claim_task),
    Tool("worker", HeldArguments, HeldTaskView, start_task),
    Tool("worker", ProgressArguments, HeldTaskView, report_progress),
    Tool("worker", CompleteArguments, TaskView, complete_task),
    Tool("worker", FailArguments, TaskView, fail_task),
    Tool("worker", ReleaseArguments, TaskView, release_task),
    Tool("worker", AgentArguments, AgentView, heartbeat),
    Tool("worker", AgentArguments, GoneAnswer, deregister_agent),
)

TOOLS: Final[Mapping[str, Tool]] = {tool.name: tool for tool in _ALL}
"""Every tool by its name: those of planners, then those of workers."""


async def _placed(desk: Desk, asked: PlannedTask, fields: JsonObject) -> GraphTask:
    await trio.lowlevel.checkpoint()  # ten thousand of them would hold the node up
    await desk.check_persona(asked.persona)
    now = desk.clock.now()
    task = Task.new(**{**fields, "sender": desk.own_id, "timestamp": now})
    return GraphTask(task, None, None if asked.timeout_s is None else now + round(asked.timeout_s * 1000))


async def _claim(work: WorkService, asked: ClaimArguments) -> Claim | None:
    if asked.task_id is not None:
        return await work.claim_task(asked.agent_id, parse_task_id(asked.task_id))
    return await work.claim(asked.agent_id, asked.wait_s)


async def _summaries(desk: Desk, records: list[TaskRecord]) -> tuple[TaskSummary, ...]:
    summaries = []
    for record in records:
        await trio.lowlevel.checkpoint()  # a thousand of them would hold the node up for a tenth of a second
        summaries.append(TaskSummary.of(record, blocked=desk.tasks.is_blocked(record)))
    return tuple(summaries)


def _view(desk: Desk, record: TaskRecord) -> TaskView:
    tasks = desk.tasks
    return TaskView.of(
        record,
        blocked=tasks.is_blocked(record),
        waits_for=tasks.awaited(record),
        children=tasks.children(record.id),
    )
