"""What the parts of a no-op task cost in CPU, in one process and without a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from node.app import open_node
from node.bench.figures import Figure
from node.bench.pair import BODY, TURNS
from node.clock import SystemClock
from node.config import NodeConfig
from node.feed import Feed
from node.manager import TaskManager
from node.net.identity import create_identity, peer_id_of
from node.stores.memory import MemoryStore
from protocol import (
    Accept,
    Claimed,
    Completed,
    Conversation,
    Frame,
    FrameDecoder,
    Hello,
    PeerId,
    Result,
    Started,
    Submit,
    Submitted,
    Task,
    TaskResult,
    advance,
    begin,
    encode_frame,
)

TASKS = 2_000
_US_PER_S = 1_000_000


async def costs(_seconds: float) -> list[Figure]:
    """What each part of a task costs, as the processor counts it, so that a busy machine shows little in it."""
    peer = peer_id_of(create_identity())
    tasks = [Task.new(BODY, peer, timestamp=1, kind="echo") for _ in range(TASKS)]
    encoded = _encode(tasks)
    parts: dict[str, Callable[[], object]] = {
        "its three frames, encoded": lambda: _encode(tasks),
        "its three frames, decoded and checked": lambda: FrameDecoder().feed(encoded),
        "its three frames, judged by the conversation": lambda: _judge_frames(tasks),
        "its four facts, judged": lambda: _judge_facts(tasks, peer),
    }
    figures = [_figure(name, min([_cpu_s(part) for _ in range(TURNS)])) for name, part in parts.items()]
    kept = min([await _keep_facts(tasks, peer) for _ in range(TURNS)])
    done = min([await _do(tasks) for _ in range(TURNS)])
    return [
        *figures,
        _figure("its four facts, judged, kept and told", kept),
        _figure("all of it at one node: submitted, planned, executed, told", done),
    ]


def _figure(name: str, seconds: float) -> Figure:
    return Figure("costs", name, seconds / TASKS * _US_PER_S, "µs")


def _cpu_s(part: Callable[[], object]) -> float:
    began = time.process_time()
    part()
    return time.process_time() - began


def _frames_of(task: Task) -> tuple[Frame, ...]:
    result = TaskResult(task.id, task.prompt, 1)
    return Submit(task), Accept(task.id), Result(task_id=task.id, seq=4, result=result)


def _encode(tasks: Sequence[Task]) -> bytes:
    return b"".join(piece for task in tasks for frame in _frames_of(task) for piece in encode_frame(frame))


def _judge_frames(tasks: Sequence[Task]) -> None:
    conversation = Conversation()
    conversation.receive(Hello())
    conversation.send(Hello())
    for task in tasks:
        submit, accept, result = _frames_of(task)
        conversation.receive(submit)
        conversation.send(accept)
        conversation.send(result)


def _judge_facts(tasks: Sequence[Task], peer: PeerId) -> None:
    for task in tasks:
        record = begin(Submitted(task, 1, peer, peer, None))
        for fact in (Claimed(task.id, 2, 1, peer, 3), Started(task.id, 2, 1)):
            record = advance(record, fact)
        advance(record, Completed(task.id, 3, 1, TaskResult(task.id, task.prompt, 1)))


async def _keep_facts(tasks: Sequence[Task], peer: PeerId) -> float:
    """Let a manager with a store in memory do the same; return the CPU seconds of all."""
    manager = TaskManager(MemoryStore(), SystemClock(), Feed(), own_id=peer)
    async with manager.running():
        began = time.process_time()
        for task in tasks:
            manager.submit(task, requester=peer, target=peer)
            manager.apply(Claimed(task.id, 2, 1, peer, 3), Started(task.id, 2, 1))
            manager.apply(Completed(task.id, 3, 1, TaskResult(task.id, task.prompt, 1)))
        return time.process_time() - began


async def _do(tasks: Sequence[Task]) -> float:
    """Let a node do them all; return the CPU seconds from the first submit to the last result."""
    async with open_node(NodeConfig(listen=())) as node:
        began = time.process_time()
        for task in tasks:
            node.manager.submit(task, requester=PeerId(task.sender), target=node.peer_id)
        for task in tasks:
            await node.manager.wait(task.id)
        return time.process_time() - began
