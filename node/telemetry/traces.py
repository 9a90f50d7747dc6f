"""W3C trace context: travels in the metadata of a task, from whoever asked to whoever executes.

Only opentelemetry's API is used: a program that installs the SDK gets spans; without it a trace context that came with
a task is carried on unchanged, to the tasks that an execution asks for in its turn, and everything else costs next to
nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from protocol import JsonObject, Task

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_propagator: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("peertask")
_nothing: Final = nullcontext()


def inject_traceparent(metadata: JsonObject) -> JsonObject:
    """Return the metadata of a task with the current trace context under ``traceparent``; for use when a task is made.

    A given ``traceparent`` stays as it is, and without a current span nothing is added. The argument is never changed.
    """
    if TRACEPARENT in metadata or not trace.get_current_span().get_span_context().is_valid:
        return metadata
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return {**metadata, **carrier}


def execution_span(task: Task, attempt: int) -> AbstractContextManager[object]:
    """Make the span of one execution current for the length of the context, as a child of the task's trace context.

    An exception that leaves the context is recorded in the span. Without the SDK there is no span of its own: the
    task's trace context, if it has one, is current instead. A tracer provider must be set before the first execution of
    the process; one that is set later gets spans only for tasks that come with a trace context.
    """
    carried = _carried(task)
    if not carried and not _has_sdk():
        return _nothing
    return _tracer.start_as_current_span(
        f"execute {task.kind}",
        context=_propagator.extract(carried) if carried else None,
        kind=trace.SpanKind.CONSUMER,
        attributes={
            "task.id": task.id,
            "task.kind": task.kind,
            "task.project": task.project,
            "task.attempt": attempt,
        },
    )


@cache
def _has_sdk() -> bool:
    # Once, because asking looks into the environment, and that costs a twentieth of a no-op task.
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _carried(task: Task) -> dict[str, str]:
    """Return what of the metadata is trace context; anybody may have written it, so only text counts."""
    metadata = task.metadata
    if not metadata or TRACEPARENT not in metadata:
        return {}
    return {name: value for name in (TRACEPARENT, TRACESTATE) if isinstance(value := metadata.get(name), str)}
