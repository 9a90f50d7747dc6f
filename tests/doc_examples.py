"""Runs the examples of the documentation: Python blocks as programs, console blocks as a person at terminals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_OUTPUT_MARK = "# → "
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: of the block.
        label: what follows the language; names the terminal of a console block.
        text: what is in it.
    """

    language: str
    label: str
    text: str


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page in one language, in their order."""
    found = (Block(match[1], match[2].strip(), match[3]) for match in _FENCE.finditer(page.read_text("utf-8")))
    return [block for block in found if block.language == language]


def promised_output(program: str) -> list[str]:
    """Return the lines that a Python example says it prints."""
    return [line.removeprefix(_OUTPUT_MARK) for line in program.splitlines() if line.startswith(_OUTPUT_MARK)]


def run_program(program: str, folder: Path) -> list[str]:
    """Run a Python example in a process of its own, and return the lines that it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )
    if ran.returncode:
        raise AssertionError(f"the example exited with {ran.returncode}:\n{ran.stderr}")
    return ran.stdout.splitlines()


def matches(promised: list[str], printed: list[str]) -> bool:
    """Whether what was printed begins with what was promised; an ellipsis stands for anything, also for lines."""
    pattern = re.escape("\n".join(promised)).replace("…", ".*?")
    return re.match(pattern + r"(\n|$)", "\n".join(printed) + "\n", re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Step:
    """A command at a terminal, and what the page says that it prints."""

    command: str
    promised: list[str]


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a console block."""
    command, promised = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(command, promised)
            command, promised = line[2:], []
        else:
            promised.append(line)
    yield Step(command, promised)


class Terminals:
    """Plays the console blocks of a page: commands that go on stay in the background until the end of the page.

    Args:
        folder: where the commands run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        self._running: list[subprocess.Popen[str]] = []

    def play(self, step: Step) -> list[str]:
        """Run one command, and return the lines that it prints."""
        name, equals, value = step.command.partition("=")
        if equals and "…" in value:
            return [self._copy(name)]
        if step.command.startswith("peertask node"):
            return self._start(step)
        return self._run(step.command)

    def _copy(self, name: str) -> str:
        """Put the address that the first node has printed into a variable, as the page tells its reader to."""
        self._environment[name] = self._environment["PRINTED_ADDRESS"]
        return ""

    def _run(self, command: str) -> list[str]:
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        return ran.stdout.splitlines()

    def _start(self, step: Step) -> list[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {step.command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._running.append(process)
        if process.stdout is None:
            raise AssertionError("the process has no standard output")
        alarm = threading.Timer(_PATIENCE_S, process.kill)
        alarm.start()
        printed = [process.stdout.readline().rstrip("\n") for _ in step.promised]
        alarm.cancel()
        for line in printed:
            if line.startswith("address"):
                self._environment.setdefault("PRINTED_ADDRESS", line.split()[1])
        return printed

    def close(self) -> None:
        """Stop what goes on, as Ctrl-C does."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(timeout=_PATIENCE_S)
            if process.stdout is not None:
                process.stdout.close()
