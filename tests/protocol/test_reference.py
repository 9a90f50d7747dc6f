"""The pages about the protocol say what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = PROJECT / "docs" / "reference"


@pytest.mark.parametrize("script", ["generate_protocol_reference.py", "generate_errors_reference.py"])
def test_the_generated_part_of_a_page_is_up_to_date(script: str) -> None:
    """A change of a frame, a table or a code cannot forget its documentation."""
    done = subprocess.run(
        [sys.executable, PROJECT / "scripts" / script, "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def anchors(page: Path) -> list[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("name", ["protocol.md", "errors.md"])
def test_every_link_on_a_page_leads_to_one_heading(name: str) -> None:
    """A reader who follows a link ends where the text says."""
    text = (PAGES / name).read_text(encoding="utf-8")
    for page, anchor in re.findall(r"\]\(([\w.-]*)#([\w-]+)\)", text):
        assert anchors(PAGES / (page or name)).count(anchor) == 1, f"{page}#{anchor}"
