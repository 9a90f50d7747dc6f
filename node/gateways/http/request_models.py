"""What clients send: the bodies and queries of requests. Unknown fields are refused.

What a task may contain is said once, in `protocol.Task`: the fields of a task request are taken from there.
"""

from __future__ import annotations

import copy
import inspect
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from node.coordination.dependencies import MAX_GRAPH_TASKS
from node.gateways.http.limits import DEFAULT_LISTED, MAX_BATCH, MAX_DEADLINE_S, MAX_LISTED, MAX_WAIT_S
from node.interfaces import TaskFilter
from protocol import (
    ErrorCode,
    JsonObject,
    PeerId,
    RetryPolicy,
    Task,
    TaskIdField,
    TaskRecord,
    TaskStatus,
    parse_task_id,
)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Submission(_Request):
    """What is asked beside the task itself; `TaskRequest` adds the fields of the task."""

    to: str | None = None
    """Who shall do it: the address or the id of a peer; null lets the node choose."""
    persona: str | None = None
    """Who should do it, as any of the personas that are known; null for anyone."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)] | None = None
    """When the requester stops caring, in seconds from now; null for never."""

    def task_fields(self) -> JsonObject:
        """Return the fields of the task that were given, in their JSON shape."""
        return self.model_dump(mode="json", exclude={"to", "timeout_s"}, exclude_unset=True)


def _fields_of(cls: type, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields of a pydantic dataclass for `create_model`, described by the docstring of the class."""
    one_line_each = re.sub(r"\n\s{8,}", " ", inspect.getdoc(cls) or "")
    meanings = dict(re.findall(r"^ {4}(\w+): (.+)$", one_line_each, re.MULTILINE))
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    described = {name: copy.copy(field) for name, field in fields.items() if name not in without}
    for name, field in described.items():
        field.description = meanings[name]
    return {name: (field.annotation, field) for name, field in described.items()}


RetryRequest: type[BaseModel] = create_model(
    "RetryRequest",
    __base__=_Request,
    __doc__="When a task that did not complete is tried again.",
    **_fields_of(RetryPolicy),
)

_SET_BY_THE_NODE = frozenset({"sender", "timestamp"})

TaskRequest: type[Submission] = create_model(
    "TaskRequest",
    __base__=Submission,
    __doc__="A task that the node shall take in.",
    **{
        **_fields_of(Task, without=_SET_BY_THE_NODE | {"retry"}),
        "id": (
            str | None,
            Field(
                default=None,
                description="A UUID version 4, which makes a repeated request the same task; drawn when null.",
            ),
        ),
        "retry": (
            RetryRequest | None,
            Field(default=None, description="When the task is tried again if it fails; null for the usual policy."),
        ),
    },
)


class BatchRequest(_Request):
    """Several tasks at once."""

    tasks: Annotated[list[TaskRequest], Field(min_length=1, max_length=MAX_BATCH)]
    """The tasks; each is accepted or refused on its own."""


class RetryTasksRequest(_Request):
    """Tasks to have done again."""

    tasks: Annotated[list[TaskIdField], Field(min_length=1, max_length=MAX_BATCH)]
    """Each failed or was cancelled, and was asked for by this node; each is taken or refused on its own."""


class GraphRequest(_Request):
    """Tasks that depend on each other."""

    tasks: Annotated[list[TaskRequest], Field(min_length=1, max_length=MAX_GRAPH_TASKS)]
    """The tasks, in any order; all are accepted, or none is."""


class ConnectRequest(_Request):
    """A peer to stay connected to."""

    address: str
    """A multiaddress with `/p2p/ID`, or the id of a known peer."""


class WaitQuery(_Request):
    """Long polling."""

    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0
    """How long to wait for the end of the task before answering, in seconds."""


def _split(value: object) -> object:
    return frozenset(filter(None, value.split(","))) if isinstance(value, str) else value


class ListQuery(_Request):
    """Which tasks to list."""

    status: Annotated[frozenset[TaskStatus], BeforeValidator(_split)] | None = None
    """One or several, with commas between them."""
    project: str | None = None
    """Of this project only."""
    session_id: str | None = None
    """Of this conversation only."""
    requester: str | None = None
    """Asked by this peer only."""
    before: Annotated[int, Field(ge=0)] | None = None
    """Taken in earlier than this only, in milliseconds since the epoch."""
    code: Annotated[frozenset[ErrorCode], BeforeValidator(_split)] | None = None
    """Ended without a result, with one of these error codes, with commas between them."""
    retry_of: str | None = None
    """Only what repeats this task."""
    unretried: bool = False
    """Leave out what was had done again."""
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = DEFAULT_LISTED
    """At most so many, the newest first."""

    def task_filter(self) -> TaskFilter:
        """Return the filter that the node understands."""
        return TaskFilter(
            statuses=self.status,
            project=self.project,
            requester=PeerId(self.requester) if self.requester else None,
            session_id=self.session_id,
            before=self.before,
            codes=self.code,
            retry_of=parse_task_id(self.retry_of) if self.retry_of else None,
            unretried=self.unretried,
            limit=self.limit,
        )


class EventsQuery(_Request):
    """Where to begin."""

    after: Annotated[int, Field(ge=0)] = 0
    """The number of the last fact that the client knows; later ones that are kept come first. The header
    `Last-Event-ID` says the same and wins."""


class FeedQuery(_Request):
    """Which tasks to watch."""

    project: str | None = None
    """Of this project only."""
    session_id: str | None = None
    """Of this conversation only."""
    requester: str | None = None
    """Asked by this peer only."""

    def matches(self, record: TaskRecord) -> bool:
        """Whether the client wants to hear of a task."""
        return ListQuery(**self.model_dump()).task_filter().matches(record)
