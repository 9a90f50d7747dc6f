"""The processes of a demo: each is ``peertask node`` with a data folder of its own, and none outlives the demo.

A node ends by itself when its standard input does, so it also ends when this process is killed; and it removes its data
folder. What a node cannot do, because it was killed, is done here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from subprocess import PIPE
from typing import Final

import trio

from node.background import open_background
from node.config import ENVIRONMENT_PREFIX, variable_of
from node.gateways.http.client import ControlClient
from node.gateways.http.folder import occupied
from protocol import ErrorCode, PeertaskError

# Five Pythons that start at once on two cores take some five seconds; ten times that is a machine in trouble.
START_S: Final = 60.0
# A node without tasks ends in less than a tenth of this.
STOP_S: Final = 3.0
# Between the loss of a connection to a node and the end of its process.
LAST_BREATH_S: Final = 1.0
# A peer that does not answer, because it is frozen or was killed, may be there again after it.
_RECONNECT_S: Final = 0.5
# What a node has to say when it fails fits on a screen.
KEPT_LOG_LINES: Final = 20
_READ_BYTES = 65_536


class MemberState(StrEnum):
    """How a node of the fleet is."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    CUT_OFF = "cut off"
    KILLED = "killed"
    ENDED = "ended"


_ALIVE: Final = frozenset({MemberState.RUNNING, MemberState.PAUSED, MemberState.CUT_OFF})


class Member:
    """One node of the fleet, in a process of its own.

    Attributes:
        index: from 0.
        folder: its data folder.
        settings: those that are not the defaults.
        state: how it is.
        peer_id: who it is; empty until it is ready.
        address: where others reach it; empty until it is ready.
        client: asks it.
        log: its last words on standard error.
    """

    def __init__(self, index: int, folder: Path, settings: Mapping[str, str]) -> None:
        self.index = index
        self.folder = folder
        self.settings = settings
        self.state = MemberState.STARTING
        self.peer_id = ""
        self.address = ""
        self.client = ControlClient(folder)
        self.log: deque[str] = deque(maxlen=KEPT_LOG_LINES)
        self._process: trio.Process | None = None
        self._ready = trio.Event()

    @property
    def name(self) -> str:
        """What people call it."""
        return f"node {self.index + 1}"

    @property
    def is_alive(self) -> bool:
        """Whether it answers, now or when it goes on."""
        return self.state in _ALIVE

    async def run(self) -> None:
        """Run the process until it ends; when cancelled, end it and remove what is left of it."""
        self._process = process = await trio.lowlevel.open_process(
            _command(self.folder),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            process_group=0,
            env=_environment(self.settings),
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_events, process)
                nursery.start_soon(self._read_log, process)
                await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self._end(process)
        self._ready.set()

    async def ready(self) -> None:
        """Return when it answers.

        Raises:
            PeertaskError: it ended before.
        """
        await self._ready.wait()
        if self.state is not MemberState.RUNNING:
            raise PeertaskError(f"{self.name} ended while it was starting: {' / '.join(self.log) or 'without a word'}")

    async def is_gone(self) -> bool:
        """Return whether it has ended, or is just about to."""
        if self._process is not None:
            with trio.move_on_after(LAST_BREATH_S):
                await self._process.wait()
        return self._process is None or self._process.returncode is not None

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        self.state = MemberState.KILLED
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it with SIGSTOP, as a laptop whose lid is closed."""
        self.state = MemberState.PAUSED
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)
        if self.state is MemberState.PAUSED:
            self.state = MemberState.RUNNING

    async def _end(self, process: trio.Process) -> None:
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with trio.move_on_after(STOP_S):
            await process.wait()
        self._signal(signal.SIGKILL)
        await process.wait()
        if self.state is not MemberState.KILLED:
            self.state = MemberState.ENDED
        _remove(self.folder)

    def _signal(self, number: int) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    async def _read_events(self, process: trio.Process) -> None:
        async for line in _lines(process.stdout):
            event = json.loads(line)
            if event["event"] == "ready":
                self.peer_id, self.address = event["peer_id"], event["addresses"][0]
                self.state = MemberState.RUNNING
                self._ready.set()

    async def _read_log(self, process: trio.Process) -> None:
        async for line in _lines(process.stderr):
            self.log.append(line)


class Fleet:
    """The nodes of a demo; made by `open_fleet`."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    @property
    def running(self) -> list[Member]:
        """The nodes that answer."""
        return [member for member in self.members if member.state is MemberState.RUNNING]

    async def ready(self) -> None:
        """Return when all nodes answer.

        Raises:
            PeertaskError: one of them ended, or they took too long.
        """
        with trio.move_on_after(START_S) as limit:
            for member in self.members:
                await member.ready()
        if limit.cancelled_caught:
            raise PeertaskError(
                f"the nodes were not ready within {START_S:g} s",
                code=ErrorCode.NODE_UNAVAILABLE,
                remedy="Try fewer nodes with --nodes, or when the machine has less to do",
            )

    async def connect_all(self) -> None:
        """Connect every node to every other."""
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(_connect, member, self.members[: member.index])

    async def cut_off(self, member: Member) -> None:
        """End the sessions of a node with all others, on both sides."""
        async with trio.open_nursery() as nursery:
            for other in self._others(member):
                nursery.start_soon(_disconnect, member, other)
                nursery.start_soon(_disconnect, other, member)

    async def reconnect(self, member: Member) -> None:
        """Connect a node to all others again, as they were connected at first."""
        async with trio.open_nursery() as nursery:
            for other in self._others(member):
                first, second = sorted((member, other), key=lambda one: one.index)
                nursery.start_soon(_connect_in_time, second, first)

    def _others(self, member: Member) -> list[Member]:
        return [other for other in self.members if other is not member and other.is_alive]


@asynccontextmanager
async def open_fleet(size: int, settings: Mapping[str, str]) -> AsyncIterator[Fleet]:
    """Start nodes, and end them with the context, whatever ends it; they answer when `Fleet.ready` returns.

    Args:
        size: how many.
        settings: those of the nodes that are not the defaults, as in the environment, without the prefix.
    """
    base = Path(tempfile.gettempdir()) / f"peertask-demo-{secrets.token_hex(4)}"
    fleet = Fleet([Member(index, base.with_name(f"{base.name}-{index + 1}"), settings) for index in range(size)])
    async with open_background() as nursery:
        for member in fleet.members:
            nursery.start_soon(member.run)
        yield fleet


async def _connect(member: Member, others: Sequence[Member]) -> None:
    for other in others:
        await member.client.connect(other.address)


async def _disconnect(member: Member, other: Member) -> None:
    with suppress(PeertaskError):  # one of them was killed just now
        await member.client.disconnect(other.peer_id)


async def _connect_in_time(member: Member, other: Member) -> None:
    """Connect two nodes as soon as both can be, unless one is killed before."""
    while member.is_alive and other.is_alive:
        try:
            await member.client.connect(other.address)
        except PeertaskError:
            await trio.sleep(_RECONNECT_S)
        else:
            return


def _command(folder: Path) -> list[str]:
    # -P: the folder that the user is in may hold a package called node.
    program = [sys.executable, "-P", "-m", "node.cli", "node"]
    place = ["--data", str(folder), "--temporary", "--config", os.devnull]
    return [*program, *place, "--json", "--until-eof", "--log-level", "warning"]


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with these settings, and without those of the user's own node."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    return others | {variable_of(name): value for name, value in settings.items()}


def _remove(folder: Path) -> None:
    """Remove what a node has left that could not remove it itself."""
    if folder.exists():
        with suppress(PeertaskError), occupied(folder):  # removes its socket, which may lie elsewhere
            pass
        shutil.rmtree(folder, ignore_errors=True)


async def _lines(stream: trio.abc.ReceiveStream | None) -> AsyncIterator[str]:
    rest = b""
    while stream is not None and (data := await stream.receive_some(_READ_BYTES)):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
