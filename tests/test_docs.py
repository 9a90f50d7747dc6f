"""The documentation keeps its word: its examples run and print what they say, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_examples import (
    ROOT,
    Block,
    Terminals,
    blocks,
    matches,
    pages,
    promised_output,
    run_program,
    steps,
)

_PROGRAMS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in pages()
    for number, block in enumerate(blocks(page, "python"), start=1)
]
_SESSIONS = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages() if blocks(page, "console")]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    """Terminals in a fresh folder; what still runs at the end is stopped."""
    playing = Terminals(tmp_path)
    yield playing
    playing.close()


@pytest.mark.parametrize("block", _PROGRAMS)
def test_a_python_example_prints_what_it_says(block: Block, tmp_path: Path) -> None:
    """Every Python block of the documentation runs as it stands, and its arrows are its output."""
    promised = promised_output(block.text)
    assert promised, "an example that shows no output teaches nothing"
    assert run_program(block.text, tmp_path) == promised


@pytest.mark.parametrize("page", _SESSIONS)
def test_a_console_session_goes_as_the_page_says(page: Path, terminals: Terminals) -> None:
    """Every console block, typed at a terminal, prints what the page shows."""
    for block in blocks(page, "console"):
        for step in steps(block):
            printed = terminals.play(step)
            assert matches(step.promised, printed), f"$ {step.command}\n" + "\n".join(printed)


def test_an_ellipsis_stands_for_anything_but_the_rest_must_be_there() -> None:
    """The comparison of sessions fails when a promised word is missing."""
    assert matches(["a … c"], ["a b c", "more"])
    assert matches(["one", "…", "three"], ["one", "two", "2", "three"])
    assert not matches(["a … d"], ["a b c"])
    assert not matches(["b"], ["a", "b"])


def test_every_link_between_pages_leads_to_a_file() -> None:
    """A reader never follows a link of the documentation into nothing."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages()
        for target in _LINK.findall(page.read_text("utf-8"))
        if "://" not in target
        and not target.startswith("#")
        and not (page.parent / target.split("#", maxsplit=1)[0]).exists()
    ]
    assert broken == []


def test_the_first_example_of_the_readme_has_at_most_ten_lines() -> None:
    """The smallest useful program is as small as the README says."""
    first = blocks(ROOT / "README.md", "python")[0]
    code = [line for line in first.text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 10
