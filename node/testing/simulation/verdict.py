"""What must be true of all nodes when a simulation has come to rest: every link whole, every node up, nothing to do."""

from __future__ import annotations

from collections.abc import Sequence

from node.testing.simulation.judge import Judge
from node.testing.simulation.node import SimulatedNode
from protocol import ErrorCode, PeerId, TaskRecord, TaskStatus


def check_rest(nodes: Sequence[SimulatedNode], judge: Judge, seconds: float) -> None:
    """Tell a judge what is wrong at the end.

    Args:
        nodes: all of them, up and connected.
        judge: is told.
        seconds: how long they had to come to rest.
    """
    for node in nodes:
        for record in node.records().values():
            if not record.terminal:
                what = f"is {record.status} at {node.name}, {seconds:.0f} s after all faults were over"
                judge.find("every task ends", what, record.id)
            elif record.requester == node.peer_id:
                _check_both_sides(node.peer_id, record, judge)
        if all(record.terminal for record in node.records().values()):
            _check_nothing_left(node, judge)


def _check_both_sides(own_id: PeerId, record: TaskRecord, judge: Judge) -> None:
    """Check that the worker has recorded what the requester has."""
    if record.result is not None and not judge.produced(record.id, record.result.result):
        judge.find("nothing invented", f"has a result at {own_id} that no execution returned", record.id)
    if record.holder in (None, own_id):
        return
    told = record.status is TaskStatus.COMPLETE or (
        record.failure is not None and record.failure.code is ErrorCode.EXECUTION_FAILED
    )
    if not told or record.holder in judge.agents:
        return
    other = judge.saved(record.holder, record.id)
    if other is None:
        judge.find(
            "both sides remember", f"is {record.status} at {own_id}, but {record.holder} has no record of it", record.id
        )
    elif (other.result, other.failure) != (record.result, record.failure):
        what = f"is {record.status} at {own_id} and {other.status}, or otherwise so, at its holder {record.holder}"
        judge.find("both sides remember", what, record.id)


def _check_nothing_left(node: SimulatedNode, judge: Judge) -> None:
    """Check that nothing is kept for tasks that have all ended."""
    now = node.running
    left = {
        "attempts that run": now.dispatcher.executing,
        "tasks that wait": now.dispatcher.waiting,
        "slots that are taken": now.dispatcher.local_load,
        "slots of peers that are taken": now.dispatcher.delegated,
        "claims of agents": len(now.offers.held),
        "open tasks": now.manager.open_tasks,
        "tasks of peers": sum(now.manager.usage(peer).tasks for peer in node.world.peer_ids),
        "tasks that somebody listens to": len(now.feed._by_task),  # noqa: SLF001 - nothing else needs to know
        "delegated tasks": sum(map(len, now.remote._open.values())),  # noqa: SLF001 - as above
    }
    for what, count in left.items():
        if count:
            judge.find("bounded queues", f"{node.name} is at rest, and has still {count} {what}")


def check_bounds(node: SimulatedNode, judge: Judge) -> None:
    """Tell a judge what a node has too much of, at any moment."""
    manager, capacity = node.manager, node.world.make.capacity
    own = manager.usage(node.peer_id).tasks
    if max(own, manager.open_tasks - own) > capacity.open_tasks:
        judge.find("bounded queues", f"{node.name} has {manager.open_tasks} open tasks, {own} of them its own")
    for channel in node.running.network.channels():
        busy = len(node.running.remote._open.get(channel, ()))  # noqa: SLF001 - as above
        if busy > channel.in_flight:
            judge.find("bounded queues", f"{node.name} has given {channel.peer_id} {busy} tasks at once")
