"""Everything that the gateway can be asked: one table, from which the routes and their description are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from node.gateways.http import node_handlers, persona_handlers, task_handlers, work_handlers
from node.gateways.http.gateway import Handler
from node.gateways.http.persona_models import PersonaList, PersonaRequest, PersonaView
from node.gateways.http.request_models import (
    BatchRequest,
    ConnectRequest,
    EventsQuery,
    FeedQuery,
    GraphRequest,
    ListQuery,
    RetryTasksRequest,
    TaskRequest,
    WaitQuery,
)
from node.gateways.http.response_models import (
    BatchView,
    ExplanationView,
    GraphView,
    HealthView,
    NodeView,
    PeerList,
    PeerView,
    ReceiptView,
    TaskList,
    TaskSummary,
    TaskView,
)
from node.gateways.http.work_models import (
    AgentList,
    AgentRequest,
    AgentView,
    AttemptRequest,
    ClaimQuery,
    ClaimView,
    CompleteRequest,
    FailRequest,
    HeldTaskView,
    ProgressRequest,
    ReleaseRequest,
)
from protocol import TaskResult

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that the gateway can be asked.

    Attributes:
        method: of HTTP.
        path: with the variable parts in braces.
        name: unique, for generated clients.
        summary: one line for people.
        details: what else there is to know.
        handler: what answers it.
        query: what it takes after the question mark.
        body: what it takes as JSON.
        answers: the content by status; None for an answer without one.
        media_type: of those answers.
        errors: the statuses that this operation adds to those of every one; any other is possible, but rare.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    details: str = ""
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel | TaskResult] | None] = field(default_factory=dict)
    media_type: str = JSON
    errors: tuple[int, ...] = ()


_FACTS = (
    "Events are named `fact`, `lagged` (facts are missing here, because the client was too slow or they are no longer"
    " kept), `end` (the task has ended; its data is the task) and `stopping` (the node stops)."
)

_CLAIMED = "/v1/agents/{agent_id}/tasks/{id}"
_NOT_THE_HOLDER = (403, 404, 409, 503)

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/tasks",
        name="submitTask",
        summary="Take a task in.",
        details="200 when the task has ended, 202 when it has not. A request with an `id` can be repeated safely: the"
        " same task again is the task of the first time, and another one is refused with 409."
        " A `traceparent` header goes into the metadata of the task.",
        handler=task_handlers.submit,
        query=WaitQuery,
        body=TaskRequest,
        answers={200: TaskView, 202: TaskView},
        errors=(409, 413, 429, 502, 503),
    ),
    Operation(
        method="POST",
        path="/v1/tasks:batch",
        name="submitBatch",
        summary="Take up to 1,000 tasks in.",
        details="Each is accepted or refused on its own; the results have the order of the tasks.",
        handler=task_handlers.submit_batch,
        body=BatchRequest,
        answers={200: BatchView},
        errors=(413,),
    ),
    Operation(
        method="POST",
        path="/v1/tasks:retry",
        name="retryTasks",
        summary="Have up to 1,000 tasks done again that failed or were cancelled.",
        details="Each is taken or refused on its own; the results have the order of the tasks. What is taken is a new"
        " task whose `retry_of` names the old one, which stays as it is. Each is retried once: then its retry can be.",
        handler=task_handlers.retry_tasks,
        body=RetryTasksRequest,
        answers={200: BatchView},
    ),
    Operation(
        method="POST",
        path="/v1/tasks:graph",
        name="submitGraph",
        summary="Take tasks that depend on each other in, all or none.",
        details="Up to 10,000 tasks with up to 100,000 dependencies, in any order; `depends_on` and `parent_id` name"
        " tasks of the graph or of the node. They are saved together, and none begins before that. The same graph again"
        " is the one of the first time.",
        handler=task_handlers.submit_graph,
        body=GraphRequest,
        answers={202: GraphView},
        errors=(409, 413, 429, 502, 503),
    ),
    Operation(
        method="GET",
        path="/v1/tasks",
        name="listTasks",
        summary="List tasks, the newest first.",
        handler=task_handlers.list_tasks,
        query=ListQuery,
        answers={200: TaskList},
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}",
        name="getTask",
        summary="Show a task.",
        handler=task_handlers.get_task,
        query=WaitQuery,
        answers={200: TaskView},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/result",
        name="getResult",
        summary="Show the result of a task.",
        details="202 with a summary of the task while it has not ended. When it failed or was cancelled, the failure is"
        " the error of this request.",
        handler=task_handlers.get_result,
        query=WaitQuery,
        answers={200: TaskResult, 202: TaskSummary},
        errors=(404, 410, 502, 504),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/receipt",
        name="getReceipt",
        summary="Show the receipt of a task that is complete.",
        details="Signed by the peer that carried it out, which is asked when the receipt did not come with the result;"
        " `peertask verify` checks it. 409 when the task is not complete.",
        handler=task_handlers.get_receipt,
        answers={200: ReceiptView},
        errors=(404, 409, 429, 502, 504),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/explanation",
        name="explainTask",
        summary="Tell why a task is where it is.",
        details="Who was asked, who could do it, and what it waits for, as it is at the moment of the request.",
        handler=task_handlers.explain,
        answers={200: ExplanationView},
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{id}/cancel",
        name="cancelTask",
        summary="Ask for a task to be stopped.",
        details="200 when the task has ended (perhaps with a result that came first), 202 when its holder is told.",
        handler=task_handlers.cancel,
        answers={200: TaskView, 202: TaskView},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/events",
        name="watchTask",
        summary="Stream the facts of a task until it has ended.",
        details=f"{_FACTS} The id of a `fact` is its number. 204 when a client that reconnects has seen everything.",
        handler=task_handlers.watch_task,
        query=EventsQuery,
        answers={200: None, 204: None},
        media_type=EVENTS,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/events",
        name="watchAll",
        summary="Stream the facts of all tasks, from now on.",
        details="The first event is `ready`, or for a client that reconnects `lagged`: nothing is replayed here, list"
        " the tasks to catch up. Then `fact`, `lagged` and `stopping` as for one task; the id of a `fact` is the task's"
        " id, a slash, and the number.",
        handler=task_handlers.watch_all,
        query=FeedQuery,
        answers={200: None},
        media_type=EVENTS,
    ),
    Operation(
        method="POST",
        path="/v1/agents",
        name="registerAgent",
        summary="Let an outside worker take part.",
        handler=work_handlers.register,
        body=AgentRequest,
        answers={200: AgentView},
        errors=(409, 429, 503),
    ),
    Operation(
        method="GET",
        path="/v1/agents",
        name="listAgents",
        summary="List the outside workers that are there.",
        handler=work_handlers.list_agents,
        answers={200: AgentList},
    ),
    Operation(
        method="POST",
        path="/v1/agents/{agent_id}/heartbeat",
        name="beat",
        summary="Give a sign of life.",
        details="It renews the leases of all tasks that the agent has started; any other request of the agent does too."
        " 404 when the agent has not registered, or was silent for longer than a lease.",
        handler=work_handlers.heartbeat,
        answers={200: AgentView},
        errors=(404, 503),
    ),
    Operation(
        method="DELETE",
        path="/v1/agents/{agent_id}",
        name="deregisterAgent",
        summary="Let an agent go; what it holds is given to others.",
        handler=work_handlers.deregister,
        answers={204: None},
        errors=(404, 503),
    ),
    Operation(
        method="POST",
        path="/v1/agents/{agent_id}/claim",
        name="claimTask",
        summary="Claim a task for an agent.",
        details="204 when none came. 409 when the task that was asked for does not wait, or somebody else was first.",
        handler=work_handlers.claim,
        query=ClaimQuery,
        answers={200: ClaimView, 204: None},
        errors=(403, 404, 409, 429, 503),
    ),
    Operation(
        method="POST",
        path=f"{_CLAIMED}/start",
        name="startTask",
        summary="Tell that the work on a claimed task has begun.",
        handler=work_handlers.start,
        body=AttemptRequest,
        answers={200: HeldTaskView},
        errors=_NOT_THE_HOLDER,
    ),
    Operation(
        method="POST",
        path=f"{_CLAIMED}/progress",
        name="progressTask",
        summary="Tell how far the work is.",
        details="Starts the task when that was not told. Progress never goes back: a smaller fraction than an earlier"
        " one is a sign of life only, and the answer has the greatest.",
        handler=work_handlers.progress,
        body=ProgressRequest,
        answers={200: HeldTaskView},
        errors=_NOT_THE_HOLDER,
    ),
    Operation(
        method="POST",
        path=f"{_CLAIMED}/complete",
        name="completeTask",
        summary="Deliver the result of a task.",
        details="The same result of the same attempt again is answered as the first time.",
        handler=work_handlers.complete,
        body=CompleteRequest,
        answers={200: TaskView},
        errors=(*_NOT_THE_HOLDER, 413),
    ),
    Operation(
        method="POST",
        path=f"{_CLAIMED}/fail",
        name="failTask",
        summary="Tell that the work failed.",
        details="The task is tried again when the failure is retryable and its retry policy allows it.",
        handler=work_handlers.fail,
        body=FailRequest,
        answers={200: TaskView},
        errors=_NOT_THE_HOLDER,
    ),
    Operation(
        method="POST",
        path=f"{_CLAIMED}/release",
        name="releaseTask",
        summary="Give a task back.",
        details="That counts neither as a failure nor as a lost lease. A task that is to stop is cancelled then.",
        handler=work_handlers.release,
        body=ReleaseRequest,
        answers={200: TaskView},
        errors=_NOT_THE_HOLDER,
    ),
    Operation(
        method="GET",
        path="/v1/peers",
        name="listPeers",
        summary="List the peers that are known, the connected ones first.",
        handler=node_handlers.list_peers,
        answers={200: PeerList},
    ),
    Operation(
        method="POST",
        path="/v1/peers",
        name="connectPeer",
        summary="Connect to a peer, and stay connected.",
        handler=node_handlers.connect,
        body=ConnectRequest,
        answers={200: PeerView},
        errors=(502,),
    ),
    Operation(
        method="DELETE",
        path="/v1/peers/{peer_id}",
        name="disconnectPeer",
        summary="End the session with a peer, and do not dial it again.",
        handler=node_handlers.disconnect,
        answers={204: None},
    ),
    Operation(
        method="GET",
        path="/v1/personas",
        name="listPersonas",
        summary="List the personas that have a definition here, or that the node or a peer acts as.",
        details="Files are read anew. 404 when the node runs without coordination, as for the others about personas.",
        handler=persona_handlers.list_personas,
        answers={200: PersonaList},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/personas/{id}",
        name="getPersona",
        summary="Show a persona.",
        handler=persona_handlers.get_persona,
        answers={200: PersonaView},
        errors=(404,),
    ),
    Operation(
        method="PUT",
        path="/v1/personas/{id}",
        name="putPersona",
        summary="Define a persona, or define it anew.",
        handler=persona_handlers.put_persona,
        body=PersonaRequest,
        answers={200: PersonaView},
        errors=(404,),
    ),
    Operation(
        method="DELETE",
        path="/v1/personas/{id}",
        name="removePersona",
        summary="Forget the definition of a persona; its file is removed.",
        details="Tasks that name it stay.",
        handler=persona_handlers.remove_persona,
        answers={204: None},
        errors=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/node",
        name="showNode",
        summary="Show the node itself.",
        handler=node_handlers.show_node,
        answers={200: NodeView},
    ),
    Operation(
        method="GET",
        path="/v1/health",
        name="showHealth",
        summary="Tell whether the node does its work.",
        details="503 when it is draining or failing.",
        handler=node_handlers.show_health,
        answers={200: HealthView, 503: HealthView},
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="showMetrics",
        summary="Show all metrics in the text format of Prometheus.",
        handler=node_handlers.show_metrics,
        answers={200: None},
        media_type=METRICS,
    ),
)
