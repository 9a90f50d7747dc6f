"""A simulation while it runs: its nodes, and what can be done to them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import combinations

import trio

from node.testing.memory_channel import MemoryChannel
from node.testing.simulation.judge import Judge
from node.testing.simulation.links import Links
from node.testing.simulation.node import Make, SimulatedNode, Surroundings
from node.testing.simulation.process import Processes
from node.testing.simulation.scenario import Scenario
from node.testing.simulation.verdict import check_bounds, check_rest
from node.testing.simulation.virtual_time import NodeClock, Timeline
from protocol import Frame, PeerId

# Retries wait up to half a minute each, and dials too: what has not ended by then never will.
REST_LIMIT_S = 600.0
# A script that takes longer waits for something that never comes; heartbeats would let time go on without end.
SCRIPT_LIMIT_S = 86_400.0
LOOK_EVERY_S = 1.0
CHECK_EVERY_S = 3.0


class Simulation:
    """Nodes, and what lies between them; for scripts of a scenario.

    Attributes:
        scenario: what is simulated.
        nodes: all of them, up or down.
        rng: for whatever a script leaves to chance.
        trace: what happened so far.
        timeline: what is going to happen.
        judge: knows what is wrong.
        visitors: how many tasks are still to be asked for; the simulation does not end before.
        nursery: for tasks of the script.
        watching: how many watchers there are.
        agents_at: where those outside workers are whom tasks may be meant for; None for nowhere.
    """

    def __init__(
        self,
        scenario: Scenario,
        rng: random.Random,
        nursery: trio.Nursery,
        processes: Processes,
        timeline: Timeline,
        judge: Judge,
    ) -> None:
        self.scenario = scenario
        self.rng = rng
        self.nursery = nursery
        self.trace = judge.trace
        self.timeline = timeline
        self.judge = judge
        self.visitors = 0
        self.watching = 0
        self.agents_at: SimulatedNode | None = None
        self.links = Links(nursery, self.timeline, self._draws(), self.trace, scenario.latency)
        self.peer_ids = tuple(PeerId(f"n{number}") for number in range(1, scenario.nodes + 1))
        self._surroundings = Surroundings(
            make=Make(
                parts=scenario.parts,
                executors=scenario.executors,
                limits=scenario.limits,
                capacity=scenario.capacity,
                lease_ms=scenario.lease_ms,
            ),
            links=self.links,
            judge=judge,
            trace=judge.trace,
            processes=processes,
            nursery=nursery,
            peer_ids=self.peer_ids,
            sends=self.sends,
        )
        self.nodes = [self._node(peer_id) for peer_id in self.peer_ids]
        self._by_name = {node.name: node for node in self.nodes}
        self._at_frames: list[Callable[[SimulatedNode, SimulatedNode], None]] = []
        self._connect_all()

    def _draws(self) -> random.Random:
        return random.Random(self.rng.getrandbits(64))

    def _node(self, name: PeerId) -> SimulatedNode:
        scenario, rng = self.scenario, self._draws()
        faults, disk = scenario.faults, scenario.disk if rng.random() >= scenario.disk.instant_share else None

        def when_awake(action: Callable[[], None]) -> None:
            node.when_awake(action)

        store = scenario.parts.store(self.timeline, self._draws(), disk, when_awake, partial(self.judge.saves, name))
        skew = rng.randint(-faults.skew_ms, faults.skew_ms)
        clock = NodeClock(skew, 1 + rng.uniform(-faults.drift, faults.drift))
        node = SimulatedNode(self._surroundings, name, clock, store, rng)
        return node

    def _connect_all(self) -> None:
        """Let one of each pair dial the other, or both."""
        for one, other in combinations(self.nodes, 2):
            dials = self.rng.choice((((one, other),), ((other, one),), ((one, other), (other, one))))
            for caller, called in dials:
                caller.keeps.append(called.peer_id)

    async def run(self, script: Callable[[Simulation], Awaitable[None]]) -> None:
        """Start the nodes, let the script happen, mend everything, and check what has come of it."""
        self.nursery.start_soon(self.timeline.run)
        for node in self.nodes:
            node.start()
        self.nursery.start_soon(self._look_now_and_then)
        with trio.fail_after(SCRIPT_LIMIT_S):
            await script(self)
        check_rest(self.nodes, self.judge, await self.settle())
        if self.watching:
            self.judge.find(
                "watchers miss nothing", f"{self.watching} of them have not heard of the end of their tasks"
            )

    async def settle(self) -> float:
        """End every fault, and return when every task has ended; how long that took, in seconds.

        Gives up after `REST_LIMIT_S`: what has not ended by then never will. A script may call it, to look at what has
        come of its tasks; the simulation does when the script is over.
        """
        began = trio.current_time()
        await self.mend()
        while not self._is_at_rest() and trio.current_time() < began + REST_LIMIT_S:
            await trio.sleep(LOOK_EVERY_S)
            await self.mend()
        return trio.current_time() - began

    def _is_at_rest(self) -> bool:
        if self.visitors or self.watching or self.judge.open_records or self.judge.under_way:
            return False
        return all(node.is_up and not node.store.held for node in self.nodes)

    async def _look_now_and_then(self) -> None:
        while True:
            await trio.sleep(CHECK_EVERY_S)
            for node in self.nodes:
                if node.answers:
                    check_bounds(node, self.judge)

    # --- what is on its way ------------------------------------------------------------------------------------------

    def at_next_frame(self, action: Callable[[SimulatedNode, SimulatedNode], None]) -> None:
        """Call `action` with its sender and its receiver when the next frame about a task is sent."""
        self._at_frames.append(action)

    def sends(self, channel: MemoryChannel, frame: Frame) -> None:
        """See a frame before it leaves."""
        self.judge.sends(channel, frame, self.node(channel.own_id).store.held)
        if self._at_frames and hasattr(frame, "task_id"):
            actions, self._at_frames = self._at_frames, []
            for action in actions:
                action(self.node(channel.own_id), self.node(channel.peer_id))

    def node(self, name: str) -> SimulatedNode:
        """Return the node with a name."""
        return self._by_name[name]

    # --- faults ------------------------------------------------------------------------------------------------------

    def partition(self, some: Sequence[SimulatedNode], others: Sequence[SimulatedNode]) -> None:
        """Let nothing through between some nodes and others, until `heal`."""
        self.trace.note("links", "are cut", None, f"between {_names(some)} and {_names(others)}")
        for one in some:
            for other in others:
                self.links.block(one.peer_id, other.peer_id)

    def heal(self, some: Sequence[SimulatedNode] | None = None, others: Sequence[SimulatedNode] | None = None) -> None:
        """Let everything through again between some nodes and others; between all, when none are named."""
        some, others = some or self.nodes, others or self.nodes
        self.trace.note("links", "are whole", None, f"between {_names(some)} and {_names(others)}")
        for one in some:
            for other in others:
                self.links.unblock(one.peer_id, other.peer_id)

    def break_link(self, one: SimulatedNode, other: SimulatedNode) -> None:
        """Break the connections between two nodes; who is to keep them up dials again at once."""
        self.trace.note("links", "break", None, f"between {one.name} and {other.name}")
        self.links.break_between(one.peer_id, other.peer_id)

    async def mend(self) -> None:
        """End every fault: all links are whole, and all nodes are up, go on, and can save."""
        if self.links.any_blocked:
            self.heal()
        for node in self.nodes:
            node.resume()
            node.free_disk()
            if not node.is_up:
                await node.restart()


def _names(nodes: Sequence[SimulatedNode]) -> str:
    return ", ".join(node.name for node in nodes)
