"""What a node tells about itself while it runs: log records, trace context and metrics."""

from node.telemetry.logs import bind_task, configure_logging, default_to_stdlib_logging
from node.telemetry.metrics import Durations, NodeMetrics
from node.telemetry.traces import (
    LOAD_SPAN,
    SAVE_SPAN,
    TASK_ID,
    TASK_STATE,
    execution_span,
    inject_traceparent,
    store_span,
    store_tracer,
)

__all__ = [
    "LOAD_SPAN",
    "SAVE_SPAN",
    "TASK_ID",
    "TASK_STATE",
    "Durations",
    "NodeMetrics",
    "bind_task",
    "configure_logging",
    "default_to_stdlib_logging",
    "execution_span",
    "inject_traceparent",
    "store_span",
    "store_tracer",
]
