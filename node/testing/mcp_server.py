"""A server of the Model Context Protocol that does what a test tells it to; it needs the extra `mcp`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from node.gateways.mcp.tools import TOOLS, Desk, Tool, ToolAnswer, call_tool, refusal
from node.testing.mcp_work import McpWork
from node.testing.scripted_executor import Delay, Hang, Raise, Until
from protocol import JsonObject, PeertaskError

if TYPE_CHECKING:
    from mcp import Client

Wire = Literal["direct", "streams"]

_MODE_OF: Final = {"direct": "auto", "streams": "legacy"}


@dataclass(frozen=True, slots=True)
class AnswerWith:
    """Ends the call with this content, whatever the schema of the tool says."""

    content: Any
    is_error: bool = False


McpStep = Delay | Until | Hang | Raise | AnswerWith


@dataclass(slots=True)
class SeenCall:
    """What the server saw of one call.

    Attributes:
        tool: what was asked.
        arguments: as they came, before anything checked them.
        answer: what it was answered with; None while it is not, and for good when the client gave up.
    """

    tool: str
    arguments: JsonObject
    answer: ToolAnswer | None = None


class TestMcpServer:
    """A real MCP server in memory, over the services of a node: its tools do what they say, or what a test says.

    ::

        server = TestMcpServer(Desk(tasks=node.manager, work=node.work, own_id=node.peer_id))
        server.then("claim_task", Delay(500), Raise(PeertaskError("try later", code=ErrorCode.BUSY)))
        async with server.connect() as client:
            answer = await client.call_tool("claim_task", {"agent_id": "agent-1"})
        assert answer.is_error and server.calls[0].tool == "claim_task"

    Args:
        desk: the services.

    Attributes:
        calls: every call so far, in the order in which they came.
    """

    __test__ = False  # the name is that of a test, for pytest

    def __init__(self, desk: Desk) -> None:
        self.calls: list[SeenCall] = []
        self._desk = desk
        self._scripts: dict[str, list[tuple[McpStep, ...]]] = {}

    def then(self, tool: str, *script: McpStep) -> TestMcpServer:
        """Play steps at the next call of a tool that has none yet, once; a script without an end goes on to the tool.

        Raises:
            ValueError: there is no such tool.
        """
        if tool not in TOOLS:
            raise ValueError(f"there is no tool {tool}; the tools are {', '.join(TOOLS)}")
        self._scripts.setdefault(tool, []).append(script)
        return self

    @asynccontextmanager
    async def connect(self, wire: Wire = "streams") -> AsyncIterator[Client]:
        """Serve a client of its own for the length of a context; there may be several at once.

        Args:
            wire: ``streams`` speaks JSON-RPC over streams in memory, with the handshake of the protocol up to
                2025-11-25; ``direct`` calls the server without them, as of 2026-07-28.

        Raises:
            ModuleNotFoundError: the extra `mcp` is not installed.
        """
        from mcp import Client  # noqa: PLC0415 - only who uses the server needs the extra

        from node.gateways.mcp.server import make_server  # noqa: PLC0415 - as above

        async with Client(make_server(self._answer), mode=_MODE_OF[wire]) as client:
            yield client

    @asynccontextmanager
    async def connect_worker(self, wire: Wire = "streams") -> AsyncIterator[McpWork]:
        """Serve a client as `connect` does, which asks for what workers ask as `WorkService` has it."""
        async with self.connect(wire) as client:
            yield McpWork(client, self._desk.work)

    async def _answer(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolAnswer:
        seen = SeenCall(tool.name, dict(arguments))
        self.calls.append(seen)
        scripts = self._scripts.get(tool.name)
        answer = await _play(scripts.pop(0)) if scripts else None
        seen.answer = await call_tool(self._desk, tool, arguments) if answer is None else answer
        return seen.answer


async def _play(script: tuple[McpStep, ...]) -> ToolAnswer | None:
    """Return what a script ends with; None when the tool is to answer."""
    for step in script:
        match step:
            case AnswerWith(content, is_error):
                return ToolAnswer(content, is_error)
            case Raise(PeertaskError() as error):
                return refusal(error)
            case Raise(error):
                raise error
            case Delay(ms):
                await trio.sleep(ms / 1000)
            case Until(event):
                await event.wait()
            case Hang():
                await trio.sleep_forever()
    return None
