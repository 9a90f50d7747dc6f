"""peertask: run tasks on the machines of peers that you trust.

`open_node` runs a node in a program; `NodeConfig` has its settings. What two nodes say to each other, and the data that
they say it in, is in the package `protocol`; the names that most programs need are here too. They are loaded on first
use, because libp2p takes a second to import and `peertask --help` does not need it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.app import Node
    from node.config import NodeConfig
    from node.interfaces import Execution, Executor, Output, Store
    from protocol import PeertaskError, RetryPolicy, Task, TaskFailed, TaskResult, TaskStatus

_HOMES = {
    "Node": "node.app",
    "NodeConfig": "node.config",
    "Execution": "node.interfaces",
    "Executor": "node.interfaces",
    "Output": "node.interfaces",
    "PeertaskError": "protocol",
    "Persona": "node.personas",
    "RetryPolicy": "protocol",
    "Task": "protocol",
    "TaskFailed": "protocol",
    "TaskResult": "protocol",
    "TaskStatus": "protocol",
}

__all__ = [
    "Execution",
    "Executor",
    "Node",
    "NodeConfig",
    "Output",
    "PeertaskError",
    "Persona",
    "RetryPolicy",
    "Task",
    "TaskFailed",
    "TaskResult",
    "TaskStatus",
    "open_node",
]


@asynccontextmanager
async def open_node(
    config: NodeConfig | None = None,
    executors: Iterable[Executor] = (),
    store: Store | None = None,
    *,
    control: bool = True,
) -> AsyncIterator[Node]:
    """Run a node for the length of the context; see `node.app.open_node`, which takes the same arguments."""
    # Not at the top: a worker process imports the program's main module, and must not load libp2p for the name alone.
    from node.app import open_node as run  # noqa: PLC0415

    async with run(config, executors, store, control=control) as node:
        yield node


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
