"""Programs in JavaScript that tests run, on js-libp2p."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

# A start of Python or Node.js on a machine that is busy with other tests.
START_S = 60

NEEDS_NPM = [
    pytest.mark.npm,
    pytest.mark.slow,
    pytest.mark.xdist_group("npm"),
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not on the PATH"),
]


async def ask(folder: Path, address: str, kind: str, prompt: str) -> list[dict[str, Any]]:
    """Let the client send a task, and return the frames that it got."""
    with trio.fail_after(START_S):
        done = await trio.run_process(
            ["node", "client.js", address, kind], stdin=prompt.encode(), capture_stdout=True, cwd=folder
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


@asynccontextmanager
async def js_relay(folder: Path) -> AsyncIterator[str]:
    """A relay of js-libp2p, by its address."""
    process = await trio.lowlevel.open_process(["node", "relay.js"], cwd=folder, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        with trio.fail_after(START_S):
            text = b""
            while b"\n" not in text:
                text += await process.stdout.receive_some()
        yield str(json.loads(text)[0])
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
