"""How values look to people."""

from __future__ import annotations

import pytest

from node.cli.terminal import short_peer, short_text, short_time


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0 ms"),
        (999.4, "999 ms"),
        (1500, "1.5 s"),
        (61_000, "1 min 01 s"),
        (3_600_000, "1 h 00 min"),
        (90_061_000, "25 h 01 min"),
    ],
)
def test_a_duration_has_the_unit_that_suits_it(milliseconds: float, shown: str) -> None:
    """From milliseconds to hours."""
    assert short_time(milliseconds) == shown


def test_a_peer_is_known_by_the_end_of_its_id() -> None:
    """All ids of the usual kind begin alike; nobody is a dash."""
    assert short_peer("12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA") == "…Ku1BcvMA"
    assert (short_peer("short"), short_peer(None)) == ("short", "–")


def test_a_prompt_is_shown_on_one_line_that_ends_in_time() -> None:
    """Line breaks become spaces, and a long text ends with an ellipsis."""
    assert short_text("two\n  lines") == "two lines"
    assert short_text("x" * 100) == "x" * 59 + "…"
