"""Which signals end a node."""

from __future__ import annotations

import signal

import pytest

from node.cli.running import signals_of_a_node


@pytest.mark.parametrize(("handler", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_the_end_of_its_terminal_ends_a_node_unless_it_is_to_outlive_it(
    handler: signal.Handlers, *, ends: bool
) -> None:
    """`nohup` has SIGHUP ignored, and a node must not listen to it then."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert (signal.SIGHUP in signals_of_a_node()) is ends
    finally:
        signal.signal(signal.SIGHUP, before)
