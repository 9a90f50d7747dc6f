"""Hypothesis strategies for records, with anything that they can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from protocol import Failure, Submitted, Task, TaskRecord, TaskResult, TaskStatus, begin
from tests.protocol import strategies as of_protocol


@st.composite
def records(draw: st.DrawFn) -> TaskRecord:
    """Draw a record of any status; a result and a failure stand where they belong."""
    task: Task = draw(of_protocol.tasks)
    target, deadline = draw(st.none() | of_protocol.peer_ids), draw(st.none() | of_protocol.counts)
    record = begin(Submitted(task, draw(of_protocol.counts), draw(of_protocol.peer_ids), target, deadline))
    for name in ("attempt", "failures", "lost_leases", "lease_until", "not_before", "updated_at", "seq"):
        setattr(record, name, draw(of_protocol.counts))
    record.holder = draw(st.none() | of_protocol.peer_ids)
    record.progress, record.progress_message = draw(st.floats(0, 1)), draw(of_protocol.texts)
    record.status = draw(st.sampled_from(TaskStatus))
    record.terminal = record.status.terminal
    record.result = draw(_results(task)) if record.status is TaskStatus.COMPLETE else None
    failed = record.status in {TaskStatus.FAILED, TaskStatus.CANCELLED}
    failure: Failure | None = draw(of_protocol.failures) if failed else None
    record.failure = failure
    return record


def _results(task: Task) -> st.SearchStrategy[TaskResult]:
    return of_protocol.results.map(
        lambda result: TaskResult(task.id, result.result, result.duration_ms, result.artifacts)
    )
