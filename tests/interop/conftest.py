"""What the tests with programs in JavaScript share."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "js"
# Downloads of some 50 MB, on a slow line.
INSTALL_S = 300


@pytest.fixture(scope="session")
def client_folder(pytestconfig: pytest.Config) -> Path:
    """Return a folder with the client and the packages that it needs; they are installed once and kept."""
    folder: Path = pytestconfig.cache.mkdir("js-client")
    with (folder / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the same run may be installing
        _install(folder)
    return folder


def _install(folder: Path) -> None:
    wanted = (SOURCES / "package.json").read_text("utf-8")
    installed = folder / "installed.json"
    for source in SOURCES.iterdir():
        shutil.copy(source, folder)
    if not installed.exists() or installed.read_text("utf-8") != wanted:
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        assert done.returncode == 0, done.stderr
        installed.write_text(wanted, "utf-8")
