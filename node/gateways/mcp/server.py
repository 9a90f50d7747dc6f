"""The server: offers the tools over the Model Context Protocol. It needs the extra `mcp`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext

from node.gateways.mcp.tools import TOOLS, Tool, ToolAnswer
from protocol import abbreviate

Answer = Callable[[Tool, Mapping[str, Any]], Awaitable[ToolAnswer]]

INSTRUCTIONS: Final = (
    "Planners put tasks with enqueue_task or submit_graph, and ask for them with task_status. Workers call "
    "register_agent once, then claim_task, start_task and complete_task (or fail_task, release_task) for each task, "
    "and heartbeat while they work. What is refused says in `error` why, and what to do next."
)


def make_server(answer: Answer) -> Server[Any]:
    """Return a server that offers every tool.

    Args:
        answer: does what is asked of a tool; `call_tool` for a desk.
    """

    async def list_tools(
        _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS.values()])

    async def call(_context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {abbreviate(params.name)}")
        return _result(await answer(tool, params.arguments or {}))

    return Server(
        "peertask",
        version=version("peertask"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call,
    )


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        meta={"peertask/role": tool.role},
    )


def _result(answer: ToolAnswer) -> types.CallToolResult:
    # Clients that do not know structured content read the text.
    text = json.dumps(answer.content, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=answer.content, is_error=answer.is_error
    )
