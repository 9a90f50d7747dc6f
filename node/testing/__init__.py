"""Test doubles and contract checkers: for the tests of a node's parts, and of programs that bring parts of their own.

The doubles are real implementations of the seams in `node.interfaces`, scriptable, and each passes the checker of its
seam:

- `FakeClock`, `TrioClock`: time that stands still, or goes with trio's (virtual) clock;
- `make_task`, `FakeExecution`: what an executor is given, without a dispatcher;
- `ScriptedExecutor`: returns, raises, hangs, waits and reports as told, and remembers what it saw;
- `open_memory_hub`, `MemoryNetwork`: several nodes in one process, with links that can be cut and nodes that can
  freeze;
- `simulate`: many real nodes on a virtual clock, and all that goes wrong, from one seed (`node.testing.simulation`);
- `RecordingHandler`: remembers what channels bring;
- `HeldStore`: says that a change is saved only when the test lets it;
- `FakeAgentSession`: an outside worker that does at the work door what it is told to;
- `TestMcpServer`: a real server of the Model Context Protocol in memory, over the services of a node; it remembers its
  calls, and fails, delays or answers garbage as told (its `connect` needs the extra `mcp`); `McpWork` is the work door
  over it;
- `FakeSqliteDatabase`: the SQLite store in memory, with a connection to look into it.

The checkers raise `ContractViolation`, which names the promise that is broken: `check_store`, `check_executor`,
`check_network`, `check_channels`, `check_work_service`.
"""

from node.testing.agent_session import FakeAgentSession
from node.testing.channel_contract import check_channels
from node.testing.clocks import START_MS, FakeClock, TrioClock
from node.testing.contract import ContractViolation
from node.testing.executions import TEST_PEER, FakeExecution, make_task
from node.testing.executor_contract import check_executor
from node.testing.handlers import RecordingHandler
from node.testing.held_store import HeldStore
from node.testing.mcp_server import AnswerWith, McpStep, SeenCall, TestMcpServer
from node.testing.mcp_work import McpWork
from node.testing.memory_channel import MAX_QUEUED_FRAMES, MemoryChannel
from node.testing.memory_hub import MemoryHub, open_memory_hub
from node.testing.memory_network import MemoryNetwork
from node.testing.network_contract import check_network
from node.testing.scripted_executor import (
    Delay,
    Hang,
    Raise,
    Report,
    Return,
    ScriptedExecutor,
    SeenExecution,
    Step,
    Until,
)
from node.testing.simulation import (
    NO_FAULTS,
    Disk,
    Faults,
    Latency,
    NodeIsDown,
    Parts,
    Scenario,
    SimulatedNode,
    SimulatedStore,
    Simulation,
    SimulationFailed,
    SimulationReport,
    Violation,
    Worker,
    simulate,
    storm,
)
from node.testing.sqlite import FakeSqliteDatabase
from node.testing.store_contract import check_store
from node.testing.work_contract import WorkSetting, check_work_service

__all__ = [
    "MAX_QUEUED_FRAMES",
    "NO_FAULTS",
    "START_MS",
    "TEST_PEER",
    "AnswerWith",
    "ContractViolation",
    "Delay",
    "Disk",
    "FakeAgentSession",
    "FakeClock",
    "FakeExecution",
    "FakeSqliteDatabase",
    "Faults",
    "Hang",
    "HeldStore",
    "Latency",
    "McpStep",
    "McpWork",
    "MemoryChannel",
    "MemoryHub",
    "MemoryNetwork",
    "NodeIsDown",
    "Parts",
    "Raise",
    "RecordingHandler",
    "Report",
    "Return",
    "Scenario",
    "ScriptedExecutor",
    "SeenCall",
    "SeenExecution",
    "SimulatedNode",
    "SimulatedStore",
    "Simulation",
    "SimulationFailed",
    "SimulationReport",
    "Step",
    "TestMcpServer",
    "TrioClock",
    "Until",
    "Violation",
    "WorkSetting",
    "Worker",
    "check_channels",
    "check_executor",
    "check_network",
    "check_store",
    "check_work_service",
    "make_task",
    "open_memory_hub",
    "simulate",
    "storm",
]
