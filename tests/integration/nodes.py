"""Nodes under test: whole ones, on loopback, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from libp2p.peer.id import ID

from node import Node, NodeConfig, open_node
from node.interfaces import Executor
from node.net.host import abort_connection
from protocol import PeerId, TaskRecord


@asynccontextmanager
async def two_nodes(
    worker_executors: Iterable[Executor] = (), worker: NodeConfig | None = None, requester: NodeConfig | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    """A requester and a worker with a session between them."""
    async with open_node(worker, worker_executors) as works, open_node(requester) as asks:
        await asks.connect(works.addresses[0])
        yield asks, works


async def has_ended(node: Node, task_id: str) -> TaskRecord:
    """The record of a task at a node, once it has ended there."""
    while not (record := node.get_task(task_id)).terminal:
        async with node.watch(task_id) as changes:
            async for _ in changes:
                pass
    return record


async def cut(node: Node, peer_id: PeerId) -> None:
    """Break the connection with a peer without a word."""
    host = node._network._running_host()  # noqa: SLF001 - nothing public cuts a wire
    await abort_connection(host, ID.from_string(peer_id))
