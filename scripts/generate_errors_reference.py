"""Writes the table of codes in docs/reference/errors.md from protocol/errors.py; --check only compares."""

from __future__ import annotations

import sys

from generated_part import write_generated_part

from protocol import TRAITS


def describe_codes() -> str:
    """Return a table of every code with its traits, in the order in which they came to be."""
    rows = [
        f"| `{code}` | {traits.meaning} | {traits.fault} | {_yes(traits.retryable)} | {_yes(traits.maybe_ran)} |"
        for code, traits in TRAITS.items()
    ]
    return "\n".join(["| code | meaning | whose fault | try again | may have run |", "|---|---|---|---|---|", *rows])


def _yes(value: object) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    sys.exit(write_generated_part("docs/reference/errors.md", "generate_errors_reference.py", describe_codes()))
