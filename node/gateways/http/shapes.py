"""The JSON that goes over HTTP, both ways. Requests refuse unknown fields; answers have all their fields, always.

What a task may contain is said once, in `protocol.Task`: the fields of requests are taken from there.
"""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, field_serializer
from pydantic.fields import FieldInfo

from node.gateways.http.node_control import Health, NodeInfo
from node.interfaces import Change, PeerInfo, TaskFilter
from protocol import (
    ErrorCode,
    Failure,
    JsonObject,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Released,
    RetryPolicy,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    TaskStatus,
)

# What fits on a line of a terminal, a few times over; a list of a thousand tasks stays below a megabyte.
PREVIEW_CHARS: Final = 200
MAX_LISTED: Final = 1_000
DEFAULT_LISTED: Final = 100
# One answer is made at once; so many take some ten milliseconds.
MAX_BATCH: Final = 1_000
# Proxies and clients give up on silent connections after a minute or more.
MAX_WAIT_S: Final = 60.0
# A year; longer deadlines are mistakes of unit.
MAX_DEADLINE_S: Final = 365 * 24 * 3600.0

# --- requests ---------------------------------------------------------------------------------------------------------


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Submission(_Request):
    """What is asked beside the task itself; `TaskRequest` adds the fields of the task."""

    to: str | None = None
    """Who shall do it: the address or id of a peer; null lets the node choose."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)] | None = None
    """When the requester stops caring, in seconds from now; null for never."""

    def task_fields(self) -> JsonObject:
        """Return the fields of the task that were given, in their JSON shape."""
        return self.model_dump(mode="json", exclude={"to", "timeout_s"}, exclude_unset=True)


def _fields_of(cls: type, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields of a pydantic dataclass for `create_model`, each described by the docstring of the class."""
    text = re.sub(r"\n\s{8,}", " ", inspect.getdoc(cls) or "")
    meanings = dict(re.findall(r"^ {4}(\w+): (.+)$", text, re.MULTILINE))
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    return {
        name: (Annotated[field.annotation, *field.metadata], FieldInfo.merge_field_infos(field, description=meanings[name]))  # type: ignore[valid-type]
        for name, field in fields.items()
        if name not in without
    }
