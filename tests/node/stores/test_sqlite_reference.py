"""The page of the SQLite store says what the schema is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def test_the_page_of_the_schema_is_up_to_date() -> None:
    """A new table or column cannot forget its documentation."""
    # covers COORD-14
    script = PROJECT / "scripts" / "generate_sqlite_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
