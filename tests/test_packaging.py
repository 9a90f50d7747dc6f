"""What is shipped: the wheel, and the versions that constraints.txt installs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
PACKAGES = ("node", "protocol")

# The part of the suite that runs against the wheel, each an argument list of pytest.
PARTS_FOR_THE_WHEEL = (
    [f"tests/protocol/test_{name}.py" for name in ("vectors", "lifecycle", "conversation", "task", "result")],
    ["tests/acceptance", "-m", "wheel"],
)

# A build takes about 3 s and the tests about 30 s; several times that on two cores that others use too.
BUILD_LIMIT_S = 120
TESTS_LIMIT_S = 240


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, freshly built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    run(command, cwd=PROJECT, limit_s=BUILD_LIMIT_S)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python_with_the_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment: the wheel is installed, the source tree is out of reach.

    The dependencies are those of the environment that runs the suite. A folder named in a .pth file is searched for
    modules, but its own .pth files, one of which leads to the source tree, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--no-index", "--no-deps", str(wheel)], cwd=folder, limit_s=BUILD_LIMIT_S)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def tests_without_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without what the wheel holds, so that only the wheel can provide it."""
    copy = tmp_path_factory.mktemp("project") / "copy"
    shutil.copytree(PROJECT, copy, ignore=lambda folder, _: left_out(Path(folder)))
    return copy


def left_out(folder: Path) -> set[str]:
    """The names in a folder that the copy does without."""
    hidden = {path.name for path in folder.iterdir() if path.name.startswith(".")}
    unneeded = {"__pycache__", "node_modules"}
    return hidden | unneeded | (set(PACKAGES) if folder == PROJECT else set())


def run(command: list[str], *, cwd: Path, limit_s: float, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end and return its output; fail with the output when the program fails."""
    done = subprocess.run(
        command, cwd=cwd, timeout=limit_s, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clean_environment(python: Path) -> dict[str, str]:
    """The environment variables without what belongs to this run of pytest and coverage, and with python's programs."""
    ours = ("COVERAGE", "PYTEST", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": f"{python.parent}{os.pathsep}{kept['PATH']}"}


def source_files() -> Iterator[str]:
    """Every file of the two packages, as the wheel should name it."""
    for package in PACKAGES:
        for path in (PROJECT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(PROJECT).as_posix()


def pinned_versions() -> dict[str, str]:
    """Name → version, as constraints.txt says."""
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def declared_requirements() -> list[Requirement]:
    """The dependencies and the extras of pyproject.toml."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = (line for extra in project["optional-dependencies"].values() for line in extra)
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


def test_the_wheel_holds_exactly_the_two_packages(wheel: Path) -> None:
    """Every file of node and protocol is in it, the type marker included, and nothing else but its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert shipped == set(source_files())
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


@pytest.mark.slow
def test_the_tests_pass_against_the_wheel(python_with_the_wheel: Path, tests_without_sources: Path) -> None:
    """What a user installs behaves as the source tree does: the tests import node and protocol from the wheel only."""
    python, environment = str(python_with_the_wheel), clean_environment(python_with_the_wheel)
    show = "import node, protocol; print(node.__file__, protocol.__file__)"
    imported = run([python, "-c", show], cwd=tests_without_sources, limit_s=BUILD_LIMIT_S, environment=environment)
    assert all(Path(path).is_relative_to(python_with_the_wheel.parents[1]) for path in imported.split())
    for part in PARTS_FOR_THE_WHEEL:
        command = [python, "-m", "pytest", *part]
        run(command, cwd=tests_without_sources, limit_s=TESTS_LIMIT_S, environment=environment)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    """A version in constraints.txt that pyproject.toml does not allow, or a missing one, is found before an install."""
    pins = pinned_versions()
    outside = [
        str(requirement)
        for requirement in declared_requirements()
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert outside == [], "run scripts/update-constraints"


def test_every_dependency_has_an_upper_bound() -> None:
    """The next major version of a dependency must not reach a user before it reached this suite."""
    unbounded = [
        str(requirement)
        for requirement in declared_requirements()
        if not any(bound.operator in {"<", "=="} for bound in requirement.specifier)
    ]
    assert unbounded == []


def test_constraints_name_no_place_to_download_from() -> None:
    """Names and versions only, so that everybody installs from the package index of their choice."""
    text = (PROJECT / "constraints.txt").read_text()
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
