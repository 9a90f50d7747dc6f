"""The pages about Redis keep their word on a real server."""

from __future__ import annotations

import re
from pathlib import Path

import trio

from node.stores.redis import RedisSettings
from tests.doc_examples import ROOT, blocks, matches, promised_output, run_program
from tests.node.stores.redis_server import needs_redis, open_server

HOW_TO = ROOT / "docs" / "how-to" / "store-in-redis.md"


@needs_redis
async def test_the_example_runs(tmp_path: Path) -> None:
    """It stands apart from the others, because it needs a server."""
    (block,) = blocks(HOW_TO, "py")
    async with open_server(tmp_path) as server:
        program = block.text.replace("localhost:6379", f"127.0.0.1:{server.port}")
        printed = await trio.to_thread.run_sync(run_program, program, tmp_path)
    assert matches(promised_output(block.text), printed)


def test_the_table_of_settings_has_their_defaults() -> None:
    """Whoever changes a default changes the page."""
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", HOW_TO.read_text("utf-8"), re.MULTILINE))
    settings = RedisSettings()
    assert rows == {
        "connection_string": settings.connection_string,
        "instance_name": settings.instance_name,
        "task_ttl_hours": f"{settings.task_ttl_hours:g}",
        "connect_retry_count": str(settings.connect_retry_count),
        "connect_timeout_ms": str(settings.connect_timeout_ms),
    }
