"""How commands explain themselves: a text, its options, and examples that are kept as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class DocumentedCommand(click.Command):
    """A command with examples.

    Args:
        examples: what to type, each with what it does; empty when it says itself.
        json_output: what ``--json`` prints, for the reference; empty for a command that has no such option.

    Attributes:
        examples: the same.
        json_output: the same.
    """

    def __init__(
        self, *arguments: Any, examples: Sequence[tuple[str, str]], json_output: str = "", **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples
        self.json_output = json_output

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the examples below the options."""
        write_examples(self.examples, formatter)


def write_examples(examples: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    """Write examples without breaking their lines, what they do after them."""
    with formatter.section("Examples"):
        for line in example_lines(examples):
            formatter.write(f"  {line}\n")


def example_lines(examples: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each example, with what it does as a comment of the shell; the comments stand in a column."""
    column = max((len(typed) for typed, meaning in examples if meaning), default=0)
    return [f"{typed:<{column}}  # {meaning}" if meaning else typed for typed, meaning in examples]
