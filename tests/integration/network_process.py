"""A network in a process of its own: `python -m tests.integration.network_process ADDRESS`.

It keeps a session with the peer at the address until it is killed.
"""

import sys

import structlog
import trio

from node.testing.network_sides import Side
from tests.integration.networks import SHORT_PULSE, make_network


async def keep_session(address: str) -> None:
    """Run until killed."""
    network = make_network(pulse=SHORT_PULSE)
    network.keep(address)
    async with Side(network).running():
        await trio.sleep_forever()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(keep_session, sys.argv[1])
