"""Packages that run when they are asked for something."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.net.libp2p_packages import let_packages_wait

ROOT = "package_that_waits"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package with a module and a package in it, none of which is imported yet."""
    folder = tmp_path / ROOT
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .module import NAME\nfrom .inner import DEEP\nRAN = True\n")
    (folder / "module.py").write_text("NAME = 'a name'\n")
    (folder / "inner" / "__init__.py").write_text("from ..module import NAME as DEEP\n")
    (folder / "inner" / "leaf.py").write_text("LEAF = 'a leaf'\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    let_packages_wait(ROOT)
    yield folder
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == ROOT]:
        del sys.modules[name]


def test_a_module_is_imported_without_the_packages_around_it(package: Path) -> None:
    """Neither of them has run; that is what it is for."""
    leaf = importlib.import_module(f"{ROOT}.inner.leaf")
    assert leaf.LEAF == "a leaf"
    assert f"{ROOT}.module" not in sys.modules
    assert "RAN" not in vars(sys.modules[ROOT])


def test_a_package_that_is_asked_for_a_name_runs(package: Path) -> None:
    """And what it imports of its own packages while it runs runs too."""
    waiting = importlib.import_module(ROOT)
    assert waiting.NAME == waiting.DEEP == "a name"
    assert waiting.RAN
    assert waiting.__file__ == str(package / "__init__.py")


def test_a_name_that_is_not_there_is_an_attribute_error(package: Path) -> None:
    """As with any module."""
    waiting = importlib.import_module(ROOT)
    with pytest.raises(AttributeError, match=f"module '{ROOT}' has no attribute 'nothing'"):
        assert waiting.nothing
    with pytest.raises(AttributeError, match="__wrapped__"):
        assert waiting.__wrapped__


def test_a_package_that_cannot_run_says_why_each_time(package: Path) -> None:
    """A failed import is not mistaken for a missing name, and may go well the next time."""
    working = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text("import a_module_that_nobody_has\n")
    waiting = importlib.import_module(ROOT)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
            assert waiting.NAME
    (package / "__init__.py").write_text(working)
    importlib.invalidate_caches()
    assert waiting.NAME == "a name"


def test_waiting_twice_is_waiting_once(package: Path) -> None:
    """However often a program says so."""
    before = len(sys.meta_path)
    let_packages_wait(ROOT)
    assert len(sys.meta_path) == before


def test_a_node_loads_half_of_libp2p_and_a_program_gets_all_of_it() -> None:
    """What a node has no use for is not in its memory; whoever asks libp2p itself finds it complete."""
    code = (
        "import sys, node.app\n"
        "print([name for name in ('requests', 'zeroconf', 'miniupnpc', 'libp2p.kad_dht') if name in sys.modules])\n"
        "import libp2p\n"
        "from libp2p.kad_dht import KadDHT\n"
        "print(libp2p.new_host.__module__, KadDHT.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["[]", "libp2p KadDHT"]
