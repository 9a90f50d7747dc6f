"""The page of the command line says what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def test_the_page_of_the_commands_is_up_to_date() -> None:
    """A new option or exit code cannot forget its documentation."""
    script = PROJECT / "scripts" / "generate_cli_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
