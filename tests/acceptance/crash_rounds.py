"""Rounds of a crash test: two nodes have work, one or both are killed at some moment, and are started again.

`plan_rounds` draws what happens in each round, so a seed tells all but the timing of the machine. `Pair` does it, and
`node_stores` looks at what is left in the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import trio

from node.gateways.http.client import ControlClient
from node.gateways.http.response_models import EventView, TaskSummary
from node.net.identity import load_or_create_identity, peer_id_of
from protocol import ErrorCode, PeertaskError, TaskId, new_task_id
from tests.acceptance.ports import port_of_its_own
from tests.acceptance.processes import NodeProcess, Stage

Name = Literal["requester", "worker"]
Victim = Literal["requester", "worker", "store"]

# Each round has some tasks that are done before the kill, some that it interrupts, and some that it finds waiting.
TASKS_A_ROUND: Final = 10
# A mock task takes half a second at most, so a kill within this time can hit every part of its life.
LATEST_KILL_S: Final = 0.5
# A prompt that goes in several chunks, so that a kill can come between two of them.
IN_CHUNKS: Final = 600_000
LARGE: Final = 0.05
CANCELLED: Final = 0.1
# A node is ready within a quarter of a second here: a kill within this time hits every step of its start.
LATEST_KILL_OF_A_START_S: Final = 0.25
STARTS_KILLED: Final = 0.25
ROUNDS_WITHOUT_A_REST: Final = 3
# A task that was interrupted is done a second later; other tests may make that thirty times as slow.
REST_S: Final = 60.0
# Every open status; with none of these a task has ended.
ASK_AGAIN_S: Final = 0.1
# What a client is told when the node, or the server where it keeps its tasks, was killed.
AWAY: Final = frozenset({ErrorCode.NODE_UNAVAILABLE, ErrorCode.STORE_FAILED})
OPEN: Final = ("pending", "claimed", "executing", "cancelling")
FACTS: Final = ("Submitted", "Claimed", "Started", "Completed", "Released")
MAX_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: after a time, or as soon as something was told, by which time it must not be lost any more.

    Attributes:
        after_s: seconds after the first task was sent; also how long to wait for a fact.
        accepted: so many tasks were accepted.
        at: the node that tells a fact.
        fact: the name of the fact.
        count: which of them, from 1.
    """

    after_s: float
    accepted: int = 0
    at: Name | None = None
    fact: str = ""
    count: int = 0

    def __str__(self) -> str:
        if self.accepted:
            return f"when {self.accepted} tasks were accepted"
        return f"at {self.fact} {self.count} of the {self.at}" if self.at else f"after {self.after_s:.3f} s"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task of a round.

    Attributes:
        id: its id, under which it is asked for again when no answer came.
        kind: mock or echo.
        to: who shall do it; None when the requester may choose.
        padding: so many characters are added to the prompt.
        cancelled: whether it is cancelled as soon as it is accepted.
    """

    id: TaskId
    kind: Literal["mock", "echo"]
    to: Name | None
    padding: int = 0
    cancelled: bool = False

    @property
    def prompt(self) -> str:
        """What is asked."""
        return self.id + "." * self.padding

    @property
    def result(self) -> str:
        """What must come of it, unless it is cancelled in time."""
        return self.prompt if self.kind == "echo" else f"Mock result for: {self.prompt}"


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in a round.

    Attributes:
        victims: who is killed, one right after the other; the store is a server that both nodes use.
        moment: when.
        killed_starts: after how many seconds of its start each node among the victims is killed again.
        tasks: what is asked for meanwhile.
        rests: whether all tasks are waited for at the end.
    """

    victims: tuple[Victim, ...]
    moment: Moment
    killed_starts: tuple[float, ...]
    tasks: tuple[Wanted, ...]
    rests: bool

    @property
    def killed_nodes(self) -> tuple[Name, ...]:
        """The nodes among the victims."""
        return tuple(name for name in self.victims if name != "store")

    def __str__(self) -> str:
        starts = "".join(f", and {after_s:.3f} s after its start" for after_s in self.killed_starts)
        return f"{' and '.join(self.victims)} killed {self.moment}{starts}"


VICTIMS: Final[tuple[tuple[Victim, ...], ...]] = (
    ("worker",),
    ("requester",),
    ("worker", "requester"),
    ("requester", "worker"),
)
VICTIMS_WITH_A_SERVER: Final[tuple[tuple[Victim, ...], ...]] = (
    *VICTIMS,
    ("store",),
    ("store", "worker"),
    ("requester", "store"),
)


def plan_rounds(seed: str, count: int, victims: Sequence[tuple[Victim, ...]] = VICTIMS) -> Iterator[Round]:
    """Draw the rounds of a test; every kind of victim has its turn."""
    rng = random.Random(seed)
    for number in range(count):
        yield Round(
            victims=victims[number % len(victims)],
            moment=_draw_moment(rng),
            killed_starts=_draw_killed_starts(rng),
            tasks=tuple(_draw_task(rng) for _ in range(TASKS_A_ROUND)),
            rests=number % ROUNDS_WITHOUT_A_REST == ROUNDS_WITHOUT_A_REST - 1 or number == count - 1,
        )


def _draw_moment(rng: random.Random) -> Moment:
    after_s = rng.uniform(0, LATEST_KILL_S)
    kind = rng.choice(("time", "time", "accept", "fact"))
    if kind == "accept":
        return Moment(LATEST_KILL_S, accepted=rng.randint(1, TASKS_A_ROUND))
    if kind == "fact":
        at: Name = rng.choice(("requester", "worker"))
        return Moment(LATEST_KILL_S, at=at, fact=rng.choice(FACTS), count=rng.randint(1, TASKS_A_ROUND // 2))
    return Moment(after_s)


def _draw_killed_starts(rng: random.Random) -> tuple[float, ...]:
    return (rng.uniform(0, LATEST_KILL_OF_A_START_S),) if rng.random() < STARTS_KILLED else ()


def _draw_task(rng: random.Random) -> Wanted:
    # Most go to the worker; the requester does some itself, or chooses.
    to: Name | None = rng.choice(("worker", "worker", "worker", "worker", "requester", None))
    return Wanted(
        new_task_id(),
        rng.choice(("mock", "echo")),
        to,
        padding=IN_CHUNKS if rng.random() < LARGE else 0,
        cancelled=rng.random() < CANCELLED,
    )


@dataclass(slots=True)
class Tally:
    """What has happened, for whoever wants to know that the rounds were worth it."""

    killed: Counter[str] = field(default_factory=Counter)
    killed_starts: int = 0
    repeated: int = 0
    seconds: float = 0.0


class StoreServer(Protocol):
    """A server in which nodes keep their tasks."""

    def kill(self) -> None:
        """End it as a crash does."""
        ...

    async def start(self) -> None:
        """Start it, once more perhaps, and return when it answers."""
        ...


class Pair:
    """A requester and a worker that know each other's address, and are started as often as they are killed.

    Args:
        stage: where they run.
        options: of `peertask node`, for both.
        settings: their environment.
        server: where they keep their tasks, if that is a process.
    """

    def __init__(
        self, stage: Stage, *options: str, settings: Mapping[str, str], server: StoreServer | None = None
    ) -> None:
        self._stage = stage
        self._options = options
        self._settings = settings
        self._server = server
        self._ports = {name: port_of_its_own() for name in ("requester", "worker")}
        self.peer_ids = {name: peer_id_of(load_or_create_identity(self.folder(name))) for name in self._ports}
        self.tally = Tally()
        self.wanted: dict[TaskId, Wanted] = {}
        self._answered: set[TaskId] = set()
        self._nodes = self._start(("requester", "worker"))

    def folder(self, name: str) -> Path:
        """The data folder of a node."""
        return self._stage.folder / name

    def node(self, name: str) -> NodeProcess:
        """The process that a node is at the moment."""
        return self._nodes[name]

    def run(self, rounds: Iterator[Round]) -> None:
        """Play rounds, up to where all tasks have ended."""
        begun = time.monotonic()
        for number, this in enumerate(rounds, 1):
            print(f"{time.monotonic() - begun:6.1f} s  round {number}: {this}")  # noqa: T201 - shown when a test fails
            self._play(this)
        self.tally.seconds = time.monotonic() - begun

    def stop(self) -> None:
        """Kill both: what was told is saved, and needs no farewell."""
        for node in self._nodes.values():
            node.process.kill()

    def _play(self, this: Round) -> None:
        self.wanted |= {task.id: task for task in this.tasks}
        trio.run(self._strike, this)
        if self._server is not None and "store" in this.victims:
            trio.run(self._server.start)
        for after_s in this.killed_starts:
            self._kill_while_starting(this.killed_nodes, after_s)
        self._nodes |= self._start(this.killed_nodes)
        trio.run(self._ask_again, this)
        if this.rests:
            trio.run(self._rest)

    # --- work and kill -----------------------------------------------------------------------------------------------

    async def _strike(self, this: Round) -> None:
        """Ask for the tasks of a round, one after the other, and kill meanwhile."""
        answers = _Count(this.moment.accepted)
        async with trio.open_nursery() as nursery:
            facts = _Count(this.moment.count)
            if this.moment.at is not None:
                await nursery.start(self._watch, this.moment, facts)
            nursery.start_soon(self._ask, this.tasks, answers)
            with trio.move_on_after(this.moment.after_s):
                await (answers if this.moment.accepted else facts).reached.wait()
            for name in this.victims:
                self._kill(name)
            facts.over.cancel()
            if "store" in this.victims:  # nobody is answered before it is back
                nursery.cancel_scope.cancel()

    def _kill(self, name: Victim) -> None:
        self.tally.killed[name] += 1
        if name != "store":
            self.node(name).process.kill()
        elif self._server is not None:
            self._server.kill()

    async def _watch(self, moment: Moment, facts: _Count, task_status: trio.TaskStatus[None]) -> None:
        """Count facts of a kind that a node tells, until the node is gone."""
        client = ControlClient(self.folder(str(moment.at)))
        with facts.over:
            async with client.watch_all() as items:
                task_status.started()
                async for item in items:
                    if isinstance(item, EventView) and item.fact == moment.fact:
                        facts.one_more()

    async def _ask(self, tasks: Sequence[Wanted], answers: _Count) -> None:
        """Ask the requester for tasks, as far as it answers."""
        client = ControlClient(self.folder("requester"))
        for task in tasks:
            to = None if task.to is None else self.peer_ids[task.to]
            try:
                view = await client.submit(task.prompt, id=task.id, kind=task.kind, to=to)
                if task.cancelled:
                    await client.cancel(task.id)
            except PeertaskError as error:
                if error.code not in AWAY:
                    raise
                continue
            self._answered.add(view.id)
            answers.one_more()

    async def _ask_again(self, this: Round) -> None:
        """Ask for the tasks that were not answered once more, under their ids: they may be known or not."""
        missing = [task for task in this.tasks if task.id not in self._answered]
        self.tally.repeated += len(missing)
        with trio.fail_after(REST_S):
            while missing:
                await self._ask(missing, _Count(0))
                missing = [task for task in missing if task.id not in self._answered]
                if missing:  # the node has not found its store again; nobody is told when it does
                    await trio.sleep(ASK_AGAIN_S)
        assert self._answered == self.wanted.keys()

    # --- starts ------------------------------------------------------------------------------------------------------

    def _start(self, names: Sequence[Name]) -> dict[str, NodeProcess]:
        launched = {name: self._launch(name) for name in names}
        return {name: self._stage.ready(node) for name, node in launched.items()}

    def _launch(self, name: Name) -> NodeProcess:
        (other,) = self._ports.keys() - {name}
        peer = f"/ip4/127.0.0.1/tcp/{self._ports[other]}/p2p/{self.peer_ids[other]}"
        listen = f"/ip4/127.0.0.1/tcp/{self._ports[name]}"
        return self._stage.launch_node(
            name, "--listen", listen, "--peer", peer, *self._options, settings=self._settings
        )

    def _kill_while_starting(self, names: Sequence[Name], after_s: float) -> None:
        launched = [self._launch(name) for name in names]
        time.sleep(after_s)  # the moment is any one, not that of an event
        for node in launched:
            assert node.process.popen.poll() is None, node.process.err.read_text()
            node.process.kill()
        self.tally.killed_starts += bool(launched)

    # --- rest --------------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Wait until every task has ended, at the requester and then at the worker."""
        with trio.move_on_after(REST_S) as scope:
            for name in ("requester", "worker"):
                await self._finish_all(ControlClient(self.folder(name)))
        assert not scope.cancelled_caught, f"tasks that do not end: {await self._open_tasks()}"

    async def _finish_all(self, client: ControlClient) -> None:
        while still_open := await _list_open(client):
            for task in still_open:
                await client.finish(task.id)

    async def _open_tasks(self) -> dict[str, list[TaskSummary]]:
        return {name: await _list_open(ControlClient(self.folder(name))) for name in ("requester", "worker")}


class _Count:
    """Counts up to where somebody waits."""

    def __init__(self, wanted: int) -> None:
        self._missing = wanted
        self.reached = trio.Event()
        self.over = trio.CancelScope()

    def one_more(self) -> None:
        """Count one."""
        self._missing -= 1
        if self._missing == 0:
            self.reached.set()


async def _list_open(client: ControlClient) -> list[TaskSummary]:
    return [task for status in OPEN for task in await client.list_tasks(status=status, limit=MAX_LISTED)]
