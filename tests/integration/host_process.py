"""A host in a process of its own, for tests that freeze it or weigh it: `python -m tests.integration.host_process`.

It prints its address, and then, for every line that it reads, what it weighs, as JSON.
"""

import gc
import json
import os
import sys
from pathlib import Path

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.stream.exceptions import StreamError

from node.net.host import HostConfig, open_host
from tests.integration.foreign_peers import ECHO
from tests.integration.held_resources import open_files, running_tasks

READ_BYTES = 65_536


async def echo(stream: INetStream) -> None:
    """Send everything back until the other side ends."""
    try:
        while True:
            await stream.write(await stream.read(READ_BYTES))
    except StreamError:
        await stream.close()


def resident_bytes() -> int:
    """Memory of this process, without what only waits for the garbage collector."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def say(**fields: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def serve() -> None:
    """Echo, and answer questions, until standard input ends."""
    config = HostConfig(key_pair=create_new_key_pair(), listen=("/ip4/127.0.0.1/tcp/0",))
    async with open_host(config) as host:
        host.set_stream_handler(ECHO, echo)
        say(address=str(host.get_addrs()[0]))
        async for _ in trio.wrap_file(sys.stdin):
            connections = len(host.get_network().get_connections())
            say(rss=resident_bytes(), files=open_files(), tasks=running_tasks(), connections=connections)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(serve)
