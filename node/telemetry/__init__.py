"""What a node tells about itself while it runs: log records, trace context and metrics."""

from node.telemetry.logs import bind_task, configure_logging, default_to_stdlib_logging
from node.telemetry.metrics import NodeMetrics
from node.telemetry.traces import execution_span, inject_traceparent

__all__ = [
    "NodeMetrics",
    "bind_task",
    "configure_logging",
    "default_to_stdlib_logging",
    "execution_span",
    "inject_traceparent",
]
