"""Real processes of ``peertask`` at the price of a fork: a node that starts costs a tenth of a second, not two.

A process of its own imports all that `peertask node` needs, once. For each request it forks a child, which runs the
command line with the arguments that were asked for, as the program `peertask` does. So a node under test is a process
with its own sockets, files, locks and threads, which can be ended with SIGKILL like any other; only the import, which
has no state that a crash could harm, is shared. What differs from a fresh process is checked where it could matter:
nothing but modules is loaded before the fork, no thread runs, no event loop is open.

The children end when the fork server does; however that ends, if they watch their standard input as `peertask node
--until-eof` does, because it is a pipe that the server alone can write to.

Usage: python -m tests.acceptance.fork_server

A request is a line of JSON: ``{"arguments", "in", "out", "err", "folder", "environment"}`` to start a child, answered
with its process id, and ``{"pid", "block"}`` to ask for its end, answered with its exit code, or null while it runs.
The three streams are files; for "in" null is the pipe.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.acceptance.processes import CALL_S, NO_SETTINGS, POLL_S, Child, Done, Stage

# What `peertask node` and its parts import when they are first used.
LOADED = (
    "node.app",
    "node.cli.commands.node",
    "node.cli.entry",
    "node.cli.serving",
    "node.gateways.http.server",
    "node.stores.files",
    "node.stores.redis",
    "node.stores.sqlite",
    "platformdirs",
)
PROJECT = Path(__file__).parents[2]


class Forked:
    """A child of a fork server."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code when it has ended, as `subprocess.Popen.poll` does."""
        return self._look(block=False)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (code := self._look(block=timeout is None)) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["peertask"], timeout or 0)
            time.sleep(POLL_S)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended: until that was asked for, its process id is nobody else's."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _look(self, *, block: bool) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"pid": self.pid, "block": block})
        return self.returncode


class ForkServer:
    """The side of the test; for one thread at a time.

    Args:
        measured: whether the children count their coverage; in vain when they are killed.
    """

    def __init__(self, *, measured: bool = False) -> None:
        ignored = ("PEERTASK_",) if measured else ("PEERTASK_", "COVERAGE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ignored)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=PROJECT,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start(
        self,
        arguments: Sequence[str],
        out: Path,
        err: Path,
        folder: Path,
        environment: Mapping[str, str],
        stdin: Path | None = None,
    ) -> Forked:
        """Run ``peertask`` with these arguments beside the test, in a folder, with its output in files."""
        for path in (out, err):
            path.touch()
        request = {
            "arguments": list(arguments),
            "in": None if stdin is None else str(stdin),
            "out": str(out),
            "err": str(err),
            "folder": str(folder),
            "environment": dict(environment),
        }
        return Forked(self, self.ask(request))

    def ask(self, request: Mapping[str, object]) -> Any:
        """Return the answer to a request."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        answer = stdout.readline()
        assert answer, f"the fork server ended with {self._process.wait()}"
        return json.loads(answer)

    def close(self) -> None:
        """End it, and with it what still runs of its children."""
        self._process.communicate()


class ForkStage(Stage):
    """A stage whose processes are children of a fork server, and end when it does."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        super().__init__(folder)
        self._server = server
        self._runs = itertools.count(1)

    def run(
        self,
        *arguments: str,
        stdin: str | bytes = b"",
        limit_s: float = CALL_S,
        settings: Mapping[str, str] = NO_SETTINGS,
    ) -> Done:
        """Run a command to its end in a child."""
        number = next(self._runs)
        given, out, err = (self.folder / f"run-{number}.{stream}" for stream in ("in", "out", "err"))
        given.write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        child = self._server.start(arguments, out, err, self.folder, self.environment | dict(settings), given)
        try:
            code = child.wait(limit_s)
        finally:
            child.send_signal(signal.SIGKILL)
        return Done(code, out.read_text(), err.read_text())

    def launch(self, arguments: Sequence[str], stdin: int, out: Path, err: Path, settings: Mapping[str, str]) -> Child:
        """Fork a child; one whose standard input is the test's own is a process like any other."""
        if stdin != subprocess.DEVNULL:
            return super().launch(arguments, stdin, out, err, settings)
        return self._server.start(arguments, out, err, self.folder, self.environment | dict(settings))


# --- the process of its own -------------------------------------------------------------------------------------------


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more; then end the children that still run."""
    leash, held = os.pipe()
    running: set[int] = set()
    try:
        for line in requests:
            request = json.loads(line)
            if "pid" in request:
                answer = _exit_code(request["pid"], block=request["block"])
                if answer is not None:
                    running.discard(request["pid"])
            else:
                answer = _fork(request, leash, held)
                running.add(answer)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _exit_code(pid: int, *, block: bool) -> int | None:
    ended, status = os.waitpid(pid, 0 if block else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(request: Mapping[str, Any], leash: int, held: int) -> int:
    pid = os.fork()
    if not pid:
        _become_child(request, leash, held)
    return pid


def _become_child(request: Mapping[str, Any], leash: int, held: int) -> NoReturn:
    """Never comes back, whatever happens: there is one fork server."""
    code: object = 1
    try:
        os.close(held)
        _read_from(leash if request["in"] is None else os.open(request["in"], os.O_RDONLY))
        os.close(leash)
        _write_to(request["out"], 1)
        _write_to(request["err"], 2)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _run(request["arguments"])
    except SystemExit as ending:
        code = ending.code
    except BaseException:  # noqa: BLE001 - there is nobody else to tell it to
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def _read_from(descriptor: int) -> None:
    os.dup2(descriptor, 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the old one may hold requests to the server


def _write_to(path: str, descriptor: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(file, descriptor)
    os.close(file)


def _run(arguments: Sequence[str]) -> NoReturn:
    from node.cli.entry import main  # noqa: PLC0415 - loaded in `main` already; the side of the test has no use for it

    sys.argv[:] = ["peertask", *arguments]
    main()


def main() -> None:
    """Load everything, then serve."""
    for name in LOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would leave the other threads behind"
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that they share
    serve(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
