"""The other process of a benchmark: a node that works, and the floor; it lives until its standard input ends."""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from node.app import open_node
from node.bench.floor import serve_floor
from node.bench.records import stored_records
from node.collector import tune_collector
from node.config import NodeConfig
from node.interfaces import Execution, Executor, Output
from node.telemetry import configure_logging


class SleepExecutor(Executor):
    """Sleeps as many milliseconds as the prompt says."""

    kind = "sleep"
    slots = 256
    safe = True

    async def execute(self, execution: Execution) -> Output:
        """Sleep, and return nothing."""
        await trio.sleep(int(execution.task.prompt) / 1000)
        return Output("")


async def _main(records: int, settings: dict[str, Any]) -> None:
    config = NodeConfig(**settings)
    store = await stored_records(records) if config.store == "memory" else None
    async with serve_floor() as floor, open_node(config, [SleepExecutor()], store, control=False) as node:
        tune_collector()
        sys.stdout.write(json.dumps({"node": node.addresses[0], "floor": floor}) + "\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    configure_logging("warning")
    arguments = json.loads(sys.argv[1])
    trio.run(_main, arguments.pop("records"), arguments)
