"""W3C trace context: travels in the metadata of a task, from whoever asked to whoever executes.

Only opentelemetry's API is used: a program that installs the SDK gets spans; without it a trace context that came with
a task is carried on unchanged, to the tasks that an execution asks for in its turn, and everything else costs next to
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from protocol import JsonObject, Task

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

SAVE_SPAN: Final = "TaskManager.SaveTask"
LOAD_SPAN: Final = "TaskManager.LoadTask"
TASK_ID: Final = "task.id"
TASK_STATE: Final = "task.state"

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


def store_tracer() -> trace.Tracer | None:
    """Return what makes the spans of a store; None without the SDK, so that a change costs nothing then."""
    return _tracer if _has_sdk() else None


@contextmanager
def store_span(name: str, task_id: str) -> Iterator[Callable[[str], None]]:
    """Make a span of what is done with one task in a store, for the length of the context.

    Yields:
        What to call with the state of the task, when it is known; not called, there was no such task.
    """
    tracer = store_tracer()
    if tracer is None:
        yield _ignore
        return
    with tracer.start_as_current_span(name, kind=trace.SpanKind.CLIENT, attributes={TASK_ID: task_id}) as span:
        yield lambda state: span.set_attribute(TASK_STATE, state)


def _ignore(_state: str) -> None:
    """Take the state that no span wants."""


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
