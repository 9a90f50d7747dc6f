"""The pages of the reference that are written from the code say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.mark.parametrize("script", ["generate_configuration_reference.py", "generate_http_reference.py"])
def test_the_generated_part_of_a_page_is_up_to_date(script: str) -> None:
    """A change of the settings or of the API cannot forget its documentation."""
    done = subprocess.run(
        [sys.executable, _SCRIPTS / script, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
