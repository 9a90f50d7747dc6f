"""A peer of another make: a small client on js-libp2p, written from the protocol's page alone, and a real node."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.interop.js_programs import NEEDS_NPM, START_S, ask

END_S = 15

pytestmark = NEEDS_NPM


class RunningNode(NamedTuple):
    """Where a node can be dialled."""

    tcp: str
    websocket: str


@pytest.fixture
async def running_node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    """Start a node as a process that listens on TCP and on WebSocket, and end it with the test."""
    listen = [f"--listen=/ip4/127.0.0.1/tcp/0{transport}" for transport in ("", "/ws")]
    command = [sys.executable, "-m", "node.cli", "node", "--data", str(tmp_path / "data"), *listen, "--json"]
    with (tmp_path / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=log)
    try:
        ready = await first_line(process)
        tcp, websocket = sorted(ready["addresses"], key=lambda address: "/ws/" in address)
        yield RunningNode(tcp, websocket)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(END_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def first_line(process: trio.Process) -> dict[str, Any]:
    """Return the first object that a node prints, which says where it is."""
    text = b""
    assert process.stdout is not None
    with trio.fail_after(START_S):
        while b"\n" not in text:
            data = await process.stdout.receive_some()
            assert data, "the node ended before it was ready"
            text += data
    event: dict[str, Any] = json.loads(text.splitlines()[0])
    assert event["event"] == "ready"
    return event


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_js_client_gets_the_result_of_its_task(
    client_folder: Path, running_node: RunningNode, transport: str
) -> None:
    """What the page promises to a simple client is enough to write one."""  # covers CORE-31
    *accepts, result = await ask(client_folder, getattr(running_node, transport), "echo", "Grüße an 世界 🌍")
    assert (result["type"], result["result"]["result"]) == ("result", "Grüße an 世界 🌍")
    # The task has ended when it is saved, or has not: then it is accepted first.
    assert [frame["type"] for frame in accepts] in ([], ["accept"])


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_js_client_sends_and_gets_large_frames_in_chunks(
    client_folder: Path, running_node: RunningNode, transport: str
) -> None:
    """A prompt of a megabyte goes there and back."""
    prompt = "0123456789abcdef" * 65_536
    *_, result = await ask(client_folder, getattr(running_node, transport), "echo", prompt)
    assert result["result"]["result"] == prompt


async def test_a_js_client_is_told_why_its_task_is_refused(client_folder: Path, running_node: RunningNode) -> None:
    """A Reject has a code for programs and a message that says what would work."""
    [reject] = await ask(client_folder, running_node.tcp, "summarise", "Hello")
    assert (reject["type"], reject["code"]) == ("reject", "NO_EXECUTOR")
    assert "echo" in reject["message"]
