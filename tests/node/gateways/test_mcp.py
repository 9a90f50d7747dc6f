"""The tools of MCP, through a real server and client in memory, over a node of real parts."""

# covers COORD-7, COORD-26, COORD-27, COORD-48, COORD-62

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from mcp import Client, MCPError
from trio.testing import MockClock

from node.gateways.mcp.tools import TOOLS, Desk
from node.interfaces import Output, Store
from node.testing import (
    AnswerWith,
    Delay,
    FakeAgentSession,
    FakeClock,
    Hang,
    HeldStore,
    Raise,
    TestMcpServer,
    Until,
    WorkSetting,
    check_work_service,
)
from node.testing.mcp_server import Wire
from protocol import Artifact, ErrorCode, InvalidTask, JsonObject, PeertaskError, TaskStatus
from tests.node.work_settings import work_setting

UNKNOWN = "00000000-0000-4000-8000-000000000000"
WIRES: tuple[Wire, ...] = ("streams", "direct")


async def refuse_painters(wanted: str | None) -> None:
    """Know every persona but one."""
    if wanted == "painter":
        raise InvalidTask("there is no persona painter", remedy="Known are: writer")


@dataclass(frozen=True, slots=True)
class Place:
    """A node, a server over it, and a client of that."""

    setting: WorkSetting
    server: TestMcpServer
    client: Client

    async def ask(self, tool: str, **arguments: Any) -> JsonObject:
        """Return what a tool answers."""
        answer = await self.client.call_tool(tool, arguments)
        assert not answer.is_error, answer
        return answer.structured_content  # type: ignore[no-any-return]

    async def refused(self, tool: str, **arguments: Any) -> JsonObject:
        """Return the error that a tool answers."""
        answer = await self.client.call_tool(tool, arguments)
        assert answer.is_error, answer
        return answer.structured_content["error"]  # type: ignore[no-any-return]


@asynccontextmanager
async def place(store: Store | None = None) -> AsyncIterator[Place]:
    """A node that is asked over MCP."""
    async with work_setting(store) as at:
        desk = Desk(at.tasks, at.work, at.own_id, FakeClock(), refuse_painters)
        server = TestMcpServer(desk)
        async with server.connect() as client:
            yield Place(at, server, client)


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
async def test_who_works_through_mcp_works_at_the_same_door(wire: Wire) -> None:
    """The worker tools keep every promise of the door, over both ways to reach the server."""

    @asynccontextmanager
    async def over_mcp() -> AsyncIterator[WorkSetting]:
        async with work_setting() as at:
            server = TestMcpServer(Desk(at.tasks, at.work, at.own_id, FakeClock()))
            async with server.connect_worker(wire) as work:
                yield replace(at, work=work)

    await check_work_service(over_mcp)


async def test_artifacts_come_along() -> None:
    """Named output beside the text arrives as it was made."""
    drawing = Artifact(name="coast.svg", content="<svg/>", media_type="image/svg+xml")
    async with work_setting() as at:
        server = TestMcpServer(Desk(at.tasks, at.work, at.own_id, FakeClock()))
        async with server.connect_worker() as work, FakeAgentSession(work) as agent:
            await at.submit()
            claim = await agent.claim()
            assert claim is not None
            record = await work.complete(agent.agent_id, claim.record.id, claim.attempt, Output("drawn", (drawing,)))
        assert record.result is not None
        assert record.result.artifacts == (drawing,)
        assert record == at.record(record.id)


# --- planners --------------------------------------------------------------------------------------------------------


async def test_a_planner_and_a_worker_bring_a_task_to_its_end() -> None:
    """Enqueue, see it wait, claim, start, report, complete, and read the result."""
    async with place() as at:
        asked = {"title": "Test Task", "description": "Test Description", "persona": "implementer", "timeout_s": 60}
        task = await at.ask("enqueue_task", **asked)
        assert (task["prompt"], task["metadata"], task["kind"]) == (
            "Test Description",
            {"title": "Test Task"},
            "agent",
        )
        assert task["deadline"] - task["created_at"] == 60_000
        agent = await at.ask("register_agent", kinds=["agent"], persona="implementer")
        assert [one["id"] for one in (await at.ask("list_agents"))["agents"]] == [agent["id"]]
        waiting = await at.ask("available_tasks", agent_id=agent["id"])
        assert [one["id"] for one in waiting["tasks"]] == [task["id"]]
        claim = (await at.ask("claim_task", agent_id=agent["id"]))["claim"]
        held = {"agent_id": agent["id"], "task_id": task["id"], "attempt": claim["attempt"]}
        assert not (await at.ask("start_task", **held))["stop"]
        assert (await at.ask("report_progress", **held, fraction=0.5, message="half"))["progress"] == 0.5
        [listed] = (await at.ask("list_tasks", status=["executing"]))["tasks"]
        assert listed["progress_message"] == "half"
        await at.ask("complete_task", **held, result="done")
        done = await at.ask("task_status", task_id=task["id"], wait_s=1)
        assert (done["status"], done["result"]["result"]) == ("complete", "done")
        assert await at.ask("deregister_agent", agent_id=agent["id"]) == {"agent_id": agent["id"]}


async def test_status_waits_for_the_end_of_a_task() -> None:
    """As long as it is told, and not longer than the task goes on."""
    async with place() as at:
        task_id = await at.setting.submit()
        assert (await at.ask("task_status", task_id=task_id, wait_s=0.001))["status"] == "pending"
        ends: list[str] = []

        async def wait() -> None:
            ends.append((await at.ask("task_status", task_id=task_id, wait_s=60))["status"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert (await at.ask("cancel_task", task_id=task_id))["status"] == "cancelled"
        assert ends == ["cancelled"]


async def test_a_graph_goes_by_names() -> None:
    """The names become titles and ids; what depends on others is blocked."""
    async with place() as at:
        tasks = {
            "first": {"description": "begin", "priority": 9},
            "second": {"description": "go on", "depends_on": ["first"], "title": "The second"},
        }
        ids = (await at.ask("submit_graph", tasks=tasks))["task_ids"]
        second = await at.ask("task_status", task_id=ids["second"])
        assert (second["blocked"], second["depends_on"], second["metadata"]) == (
            True,
            [ids["first"]],
            {"title": "The second"},
        )
        assert [one["title"] for one in second["waits_for"]] == ["first"]


CYCLE = {"a": {"description": "a", "depends_on": ["b"]}, "b": {"description": "b", "depends_on": ["a"]}}
REFUSED = {
    "an unknown task": ("task_status", {"task_id": UNKNOWN}, "NOT_FOUND", UNKNOWN),
    "no id": ("cancel_task", {"task_id": "7"}, "INVALID_TASK", "7"),
    "no description": ("enqueue_task", {}, "INVALID_TASK", "field description of the arguments of enqueue_task"),
    "a priority out of range": ("enqueue_task", {"description": "x", "priority": 999}, "INVALID_TASK", "priority"),
    "a persona that nobody knows": (
        "enqueue_task",
        {"description": "x", "persona": "painter"},
        "INVALID_TASK",
        "painter",
    ),
    "a cycle": ("submit_graph", {"tasks": CYCLE}, "INVALID_TASK", "a"),
    "a name that is not there": (
        "submit_graph",
        {"tasks": {"a": {"description": "a", "depends_on": ["bb"]}}},
        "INVALID_TASK",
        "bb",
    ),
    "an unknown argument": ("list_agents", {"all": True}, "PROTOCOL", "unknown field all"),
    "an unknown status": ("list_tasks", {"status": ["asleep"]}, "PROTOCOL", "status"),
    "an unknown agent": ("heartbeat", {"agent_id": "nobody"}, "NOT_FOUND", "nobody"),
    "no kinds": ("register_agent", {"kinds": []}, "PROTOCOL", "kinds"),
    "an attempt of nothing": ("start_task", {"agent_id": "a", "task_id": UNKNOWN, "attempt": 0}, "PROTOCOL", "attempt"),
}


@pytest.mark.parametrize(("tool", "arguments", "code", "said"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_an_answer_in_words(tool: str, arguments: JsonObject, code: str, said: str) -> None:
    """With a code for programs, and a message that names what is wrong."""
    async with place() as at:
        error = await at.refused(tool, **arguments)
        assert error["code"] == code
        assert said in error["message"]
        assert set(error) == {"code", "message", "remedy", "retry_after_ms"}


async def test_a_claim_that_cannot_be_saved_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was told of it, so nobody works on it."""
    monkeypatch.setattr("node.gateways.mcp.tools.SAVE_PATIENCE_S", 0.05)
    store = HeldStore()
    async with place(store) as at:
        agent = await at.ask("register_agent", kinds=["agent"])
        task_id = await at.setting.submit()
        store.hold()
        error = await at.refused("claim_task", agent_id=agent["id"], task_id=task_id)
        assert error["code"] == "STORE_FAILED"
        store.release()
        assert at.setting.record(task_id).status is TaskStatus.PENDING


async def test_a_task_that_cannot_be_saved_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner is told that it is taken in, and what to do."""
    monkeypatch.setattr("node.gateways.waiting.SAVE_PATIENCE_S", 0.05)
    store = HeldStore()
    async with place(store) as at:
        store.hold()
        error = await at.refused("enqueue_task", description="wait for the disk")
        assert (error["code"], "is taken in, but not saved yet" in error["message"]) == ("STORE_FAILED", True)
        store.release()


# --- the schemas -----------------------------------------------------------------------------------------------------


async def test_every_tool_says_what_it_takes_and_gives() -> None:
    """An agent that reads the list knows how to call each tool, and who each is for."""
    async with place() as at:
        tools = (await at.client.list_tools()).tools
        assert [tool.name for tool in tools] == list(TOOLS)
        for tool in tools:
            assert tool.description
            for schema in (tool.input_schema, tool.output_schema):
                assert schema is not None
                Draft202012Validator.check_schema(schema)
                assert schema["type"] == "object"
            described = tool.input_schema["properties"].items()
            assert [name for name, field in described if "description" not in field] == [], tool.name
            assert tool.meta is not None
            assert tool.meta["peertask/role"] in {"planner", "worker"}


async def test_a_tool_that_is_not_there_is_an_error_of_the_protocol() -> None:
    """As MCP has it: the model cannot put that right."""
    async with place() as at:
        with pytest.raises(MCPError, match="there is no tool 'paint'"):
            await at.client.call_tool("paint", {})


# --- what a test has other plans for ---------------------------------------------------------------------------------


async def test_a_script_fails_the_next_call_and_no_other() -> None:
    """The call is seen, with what was sent and what it was answered with."""
    async with place() as at:
        busy = PeertaskError("too many", code=ErrorCode.BUSY, retry_after_ms=50)
        at.server.then("list_agents", Raise(busy)).then("list_agents")
        assert await at.refused("list_agents") == {
            "code": "BUSY",
            "message": "too many",
            "remedy": "",
            "retry_after_ms": 50,
        }
        assert await at.ask("list_agents") == {"agents": []}
        assert await at.ask("list_agents") == {"agents": []}
        assert [call.tool for call in at.server.calls] == ["list_agents"] * 3
        first = at.server.calls[0].answer
        assert first is not None
        assert first.is_error


async def test_a_server_that_breaks_answers_with_an_error_of_the_protocol() -> None:
    """What is no refusal is not told as one."""
    async with place() as at:
        at.server.then("list_agents", Raise(OSError("no disk")))
        with pytest.raises(MCPError):
            await at.client.call_tool("list_agents", {})
        assert await at.ask("list_agents") == {"agents": []}


async def test_garbage_is_found_by_the_client() -> None:
    """An answer that is not of the schema of the tool goes out as it is."""
    async with place() as at:
        at.server.then("list_agents", AnswerWith({"agents": "seven"}))
        with pytest.raises(RuntimeError, match="list_agents"):
            await at.client.call_tool("list_agents", {})
        at.server.then("list_agents", AnswerWith({"error": "?"}, is_error=True))
        answer = await at.client.call_tool("list_agents", {})
        assert (answer.is_error, answer.structured_content) == (True, {"error": "?"})


async def test_a_call_is_held_as_long_as_the_test_says(autojump_clock: MockClock) -> None:
    """By time, by an event, or until the client gives up."""
    async with work_setting() as setting:
        server = TestMcpServer(Desk(setting.tasks, setting.work, setting.own_id, FakeClock()))
        go = trio.Event()
        server.then("list_agents", Delay(500), Until(go)).then("list_agents", Hang())
        async with server.connect("direct") as client:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call_tool, "list_agents", {})
                await trio.sleep(0.6)
                assert server.calls[0].answer is None
                go.set()
            assert trio.current_time() - began == pytest.approx(0.6)
            with trio.move_on_after(1) as gave_up:
                await client.call_tool("list_agents", {})
            assert gave_up.cancelled_caught
            assert [call.answer is None for call in server.calls] == [False, True]


async def test_a_script_for_a_tool_that_is_not_there_is_a_mistake() -> None:
    """The test hears of it at once."""
    async with place() as at:
        with pytest.raises(ValueError, match="there is no tool paint; the tools are enqueue_task, "):
            at.server.then("paint", Hang())


def test_the_doubles_load_mcp_only_when_it_is_used() -> None:
    """Who has not installed the extra uses all the others."""
    code = "import sys, node.testing, node.gateways.mcp.tools; print('mcp' in sys.modules, 'mcp_types' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
