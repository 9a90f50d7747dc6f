"""The seams of a node: what each part may expect of the others, as abstract classes whose docstrings are the contracts.

A contract here has a checker in `node.testing`, and every implementation runs through it, the doubles included.
"""

from __future__ import annotations

from node.interfaces.clock import Clock
from node.interfaces.execution import Delegate, Delegation, Execution, Executor, Outcome, Output, Receipted
from node.interfaces.network import Channel, ChannelHandler, Discovery, Network, PeerInfo, PeerSource, RelayInfo
from node.interfaces.planning import (
    AGENT_KIND,
    AgentInfo,
    AgentSessionService,
    AvailableTask,
    EnqueueRequest,
    TaskCoordinationService,
)
from node.interfaces.storage import Change, Committed, Refused, Store
from node.interfaces.tasks import GraphTask, Lagged, TaskFilter, TaskService

__all__ = [
    "AGENT_KIND",
    "AgentInfo",
    "AgentSessionService",
    "AvailableTask",
    "Change",
    "Channel",
    "ChannelHandler",
    "Clock",
    "Committed",
    "Delegate",
    "Delegation",
    "Discovery",
    "EnqueueRequest",
    "Execution",
    "Executor",
    "GraphTask",
    "Lagged",
    "Network",
    "Outcome",
    "Output",
    "PeerInfo",
    "PeerSource",
    "Receipted",
    "Refused",
    "RelayInfo",
    "Store",
    "TaskCoordinationService",
    "TaskFilter",
    "TaskService",
]
