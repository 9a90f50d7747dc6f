"""Ports for nodes that come back to where they were."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

# Below what systems give to whoever asks for any port, and to connections that go out: while a node is down, nobody
# else gets its port by chance. (A dial on loopback can even get the port that it dials, and connects to itself.)
FIRST_PORT: Final = 12_000
LAST_PORT: Final = 32_000


def port_of_its_own() -> int:
    """Return a port of loopback that is free, and will not be given to anybody else but by this function."""
    while True:
        port = random.SystemRandom().randrange(FIRST_PORT, LAST_PORT)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
