"""A crowd of peers that connect and vanish: `python -m tests.integration.burst_process ADDRESS NUMBER`."""

import sys

import trio

from tests.integration.foreign_peers import connect_and_vanish

WIDTH = 32
"""Peers of the crowd at the same time."""


async def burst(address: str, number: int) -> None:
    """Let them all come and go."""
    limiter = trio.CapacityLimiter(WIDTH)

    async def one() -> None:
        async with limiter:
            await connect_and_vanish(address)

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(one)


if __name__ == "__main__":
    trio.run(burst, sys.argv[1], int(sys.argv[2]))
