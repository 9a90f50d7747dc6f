"""The part of a page that a script writes: everything between two marks; the text around it is for people to edit."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
_BEGIN = "<!-- From here on written by scripts/{}; edit the code and run it again. -->"
_END = "<!-- End of the generated part. -->"


def write_generated_part(page: str, script: str, text: str) -> int:
    """Put a text into a page, or with ``--check`` on the command line only tell whether it is there.

    Args:
        page: the path within the project.
        script: the name of the script, for readers of the page.
        text: what stands between the marks.

    Returns:
        The exit code: 1 when ``--check`` found another text.
    """
    path = PROJECT / page
    begin = _BEGIN.format(script)
    old = path.read_text(encoding="utf-8")
    before, found, rest = old.partition(begin)
    _, ended, after = rest.partition(_END)
    if not (found and ended):
        sys.exit(f"{page} has no line {begin!r} followed by {_END!r}")
    new = f"{before}{begin}\n\n{text.strip()}\n\n{_END}{after}"
    if new == old:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{page} is not what the code says: run python scripts/{script}", file=sys.stderr)
        return 1
    path.write_text(new, encoding="utf-8")
    return 0
