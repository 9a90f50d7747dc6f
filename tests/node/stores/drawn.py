"""Hypothesis strategies for lives of tasks, with any values that the protocol allows."""

from __future__ import annotations

from hypothesis import strategies as st

from node.interfaces import Change
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    Failed,
    Progressed,
    Released,
    Started,
    Submitted,
    Task,
    Transition,
    begin,
)
from tests.node.stores.lives import continued
from tests.protocol import strategies

_times = st.integers(0, strategies.LARGEST_INTEGER)


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """A life of a task, with any values that the protocol allows."""
    task: Task = draw(strategies.tasks)
    submitted = Submitted(
        task,
        draw(_times),
        draw(strategies.peer_ids),
        draw(st.none() | strategies.peer_ids),
        draw(st.none() | _times),
    )
    changes = [Change(begin(submitted), submitted)]
    attempts = draw(st.integers(0, 3))
    for attempt in range(1, attempts + 1):
        facts: list[Transition] = [
            Claimed(task.id, draw(_times), attempt, draw(strategies.peer_ids), draw(_times)),
            Started(task.id, draw(_times), attempt),
            Progressed(task.id, draw(_times), attempt, draw(st.floats(0, 1)), draw(strategies.texts), draw(_times)),
        ]
        if attempt < attempts:
            reason = draw(strategies.codes)
            facts.append(Released(task.id, draw(_times), attempt, reason, draw(strategies.texts), draw(_times)))
        changes += continued(changes[-1], *facts)
    ending = draw(st.sampled_from(_ENDINGS[bool(attempts)]))
    result, failure = draw(strategies.results), draw(strategies.failures)
    result = type(result)(task.id, result.result, result.duration_ms, result.artifacts)
    ends: dict[str, list[Transition]] = {
        "open": [],
        "complete": [Completed(task.id, draw(_times), attempts, result, draw(st.none() | strategies.receipts))],
        "failed": [Failed(task.id, draw(_times), attempts, failure)],
        "cancelling": [CancelRequested(task.id, draw(_times))],
        "cancelled": [CancelRequested(task.id, draw(_times)), Cancelled(task.id, draw(_times))],
        "withdrawn": [Cancelled(task.id, draw(_times))],
    }
    return changes + continued(changes[-1], *ends[ending])


_ENDINGS = {True: ("open", "complete", "failed", "cancelling", "cancelled"), False: ("open", "failed", "withdrawn")}
