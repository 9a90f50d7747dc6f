"""Real processes of ``peertask``: started, waited for, and ended by their id; what they say is kept in files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from node.gateways.http.client import ControlClient
from node.gateways.http.response_models import TaskSummary

PEERTASK = Path(sys.executable).with_name("peertask")
# A Python with libp2p starts within two seconds; other tests, coverage and a machine that is shared may make it thirty
# times as slow. It only bounds how long a failure takes.
START_S = 120.0
CALL_S = 60.0
STOP_S = 15.0
POLL_S = 0.02
# Three processes must not hear of a lost peer in longer than a test may take.
QUICK_PULSE = {"PEERTASK_HEARTBEAT_MS": "200", "PEERTASK_SILENCE_MS": "800", "PEERTASK_LEASE_MS": "2000"}

NO_SETTINGS: Mapping[str, str] = {}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()

    def json(self) -> list[Any]:
        """The lines of standard output, each an object."""
        return [json.loads(line) for line in self.lines]

    def error(self) -> dict[str, Any]:
        """The error object on standard error."""
        (line,) = [line for line in self.err.splitlines() if line.startswith('{"error"')]
        error: dict[str, Any] = json.loads(line)["error"]
        return error


class Child(Protocol):
    """What of `subprocess.Popen` is used here; there are cheaper ways to start a process."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """How it ended, as far as that was asked for."""
        ...

    def poll(self) -> int | None:
        """Return how it ended, None when it has not."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return how it ended."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        ...


@dataclass(slots=True)
class Process:
    """A command that runs beside the test."""

    name: str
    popen: Child
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def lines(self) -> list[str]:
        """The whole lines that it has printed so far."""
        text = self.out.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def wait(self, limit_s: float = CALL_S) -> Done:
        """Wait for its end."""
        code = self.popen.wait(limit_s)
        return Done(code, self.out.read_text(), self.err.read_text())

    def wait_for_lines(self, count: int, limit_s: float = CALL_S) -> list[str]:
        """Wait until it has printed so many lines, and return all of them."""
        wait_until(lambda: len(self.lines()) >= count or self.popen.poll() is not None, f"{count} lines", limit_s)
        return self.lines()

    def end(self) -> None:
        """End it, by force when it does not end by itself."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_S)
            self.kill()


@dataclass(slots=True)
class NodeProcess:
    """A node that is ready."""

    process: Process
    folder: Path
    ready: dict[str, Any]
    settings: Mapping[str, str]

    @property
    def peer_id(self) -> str:
        """Who it is."""
        return str(self.ready["peer_id"])

    @property
    def address(self) -> str:
        """Where it is reached."""
        return str(self.ready["addresses"][0])

    @property
    def listen(self) -> str:
        """Where it listens, for one that is to take its place."""
        return self.address.partition("/p2p/")[0]

    def ask(self, question: Callable[[ControlClient], Awaitable[_Answer]]) -> _Answer:
        """Ask it over its control socket, without the second that a command takes."""

        async def answer() -> _Answer:
            return await question(ControlClient(self.folder))

        return trio.run(answer)

    def connect(self, other: NodeProcess) -> None:
        """Connect it to another node."""
        self.ask(lambda client: client.connect(other.address))

    def tasks(self, status: str | None = None) -> tuple[TaskSummary, ...]:
        """The tasks that it knows, or those that stand somewhere."""
        query: dict[str, str | int] = {"limit": 1000} | ({"status": status} if status else {})
        return self.ask(lambda client: client.list_tasks(**query))

    def wait_for_peer(self, other: NodeProcess, *, connected: bool = True, limit_s: float = CALL_S) -> None:
        """Wait until it is connected to another node, or is not any more."""

        def stands() -> bool:
            return connected == any(
                peer.connected for peer in self.ask(ControlClient.peers) if peer.peer_id == other.peer_id
            )

        wait_until(stands, f"{'session' if connected else 'end of the session'} with {other.folder.name}", limit_s)


class Stage:
    """The processes of a test, or of a module of tests; ends them all in `close`."""

    def __init__(self, folder: Path, program: Sequence[str] = (str(PEERTASK),)) -> None:
        self.folder = folder
        self._program = program
        self._processes: list[Process] = []
        self.environment = clean_environment(folder)

    def run(
        self,
        *arguments: str,
        stdin: str | bytes = b"",
        limit_s: float = CALL_S,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [*self._program, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=limit_s,
            env=self.environment | dict(settings),
            cwd=self.folder,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, settings: Mapping[str, str] = NO_SETTINGS
    ) -> Process:
        """Start a command that runs beside the test."""
        name = f"{len(self._processes)}-{arguments[0]}"
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        process = Process(name, self.launch(arguments, stdin, out, err, settings), out, err)
        self._processes.append(process)
        return process

    def launch(self, arguments: Sequence[str], stdin: int, out: Path, err: Path, settings: Mapping[str, str]) -> Child:
        """Start a process of its own, with its output in files; other stages know other ways."""
        with out.open("wb") as stdout, err.open("wb") as stderr:
            return subprocess.Popen(
                [*self._program, *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=self.environment | dict(settings),
                cwd=self.folder,
            )

    def start_node(self, name: str, *options: str, settings: Mapping[str, str] = NO_SETTINGS) -> NodeProcess:
        """Start a node with a data folder of that name, and wait until it is ready."""
        return self.ready(self.launch_node(name, *options, settings=settings))

    def start_nodes(self, *names: str, settings: Mapping[str, str] = NO_SETTINGS) -> list[NodeProcess]:
        """Start nodes side by side, and wait until they are ready."""
        return [self.ready(node) for node in [self.launch_node(name, settings=settings) for name in names]]

    def launch_node(self, name: str, *options: str, settings: Mapping[str, str] = NO_SETTINGS) -> NodeProcess:
        """Start a node with a data folder of that name; `ready` waits for it."""
        folder = self.folder / name
        process = self.start("node", "--json", "--data", str(folder), *options, settings=settings)
        return NodeProcess(process, folder, {}, settings)

    def ready(self, node: NodeProcess) -> NodeProcess:
        """Wait until a node is ready."""
        lines = node.process.wait_for_lines(1, START_S)
        assert lines, f"{node.process.name} ended: {node.process.err.read_text()}"
        node.ready = json.loads(lines[0])
        assert node.ready["event"] == "ready"
        return node

    def start_again(self, node: NodeProcess) -> NodeProcess:
        """Start a node that has ended once more: the same folder, port and settings."""
        return self.start_node(node.folder.name, "--listen", node.listen, settings=node.settings)

    def write_lines(self, name: str, count: int) -> str:
        """Write a file of so many different lines, and return its name."""
        (self.folder / name).write_text("".join(f"{name} {number}\n" for number in range(1, count + 1)))
        return name

    def close(self) -> None:
        """End what still runs, and print what all have said on standard error, which pytest shows when a test fails."""
        for process in reversed(self._processes):
            process.end()
        for process in self._processes:
            sys.stdout.write(f"--- {process.name} ended with {process.popen.returncode}\n{process.err.read_text()}")


def wait_until(condition: Callable[[], object], what: str, limit_s: float = CALL_S) -> None:
    """Look again and again until a condition holds; for what other processes do."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {limit_s} s"
        time.sleep(POLL_S)


def closing_stage(stage: Stage) -> Iterator[Stage]:
    """The body of a fixture: a stage that is closed after the last test that uses it."""
    yield stage
    stage.close()


def clean_environment(folder: Path) -> dict[str, str]:
    """The environment without the settings and folders of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERTASK_")}
    homes = {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_DATA_HOME": str(folder / "share"), "NO_COLOR": "1"}
    return kept | homes
