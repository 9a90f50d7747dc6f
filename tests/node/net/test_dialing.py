"""What a failed attempt means, in words."""

from errno import ECONNREFUSED, EHOSTUNREACH

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.exceptions import SwarmException
from libp2p.transport.exceptions import SecurityUpgradeFailure

from node.net.dialing import explain


def caused_by(error: Exception, cause: BaseException) -> Exception:
    """An error with a cause, as `raise … from` makes it."""
    error.__cause__ = cause
    return error


SEVERAL = OSError("all attempts to connect failed")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (caused_by(SEVERAL, OSError(ECONNREFUSED, "Connection refused")), "nothing listens there (connection refused)"),
        (ExceptionGroup("", [OSError(ECONNREFUSED, "refused")]), "nothing listens there (connection refused)"),
        (OSError(EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError("getaddrinfo failed"), "getaddrinfo failed"),
        (trio.TooSlowError(), "no answer in time"),
        (caused_by(SecurityUpgradeFailure("negotiation"), ConnectionClosedError("")), "it closed the connection"),
        (SwarmException("already 3 connections"), "already 3 connections"),
        (SecurityUpgradeFailure("negotiation"), "does not speak libp2p with Noise and Yamux"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "does not speak libp2p with Noise and Yamux"),
    ],
)
def test_a_failed_attempt_is_explained_to_the_person_who_asked(error: Exception, words: str) -> None:
    """The cause that matters, whatever libp2p wrapped it in."""
    assert words in explain(error)
