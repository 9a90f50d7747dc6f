"""Outside workers of a simulation: they claim tasks at a node, and do them well, badly, late, twice or not at all."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from node.testing.agent_session import FakeAgentSession
from node.testing.simulation.door import DistantDoor
from node.testing.simulation.node import NodeIsDown, SimulatedNode
from node.testing.simulation.workload import AGENT_KIND, KIND
from node.testing.simulation.world import Simulation
from node.work_service import Claim
from protocol import ErrorCode, PeertaskError

# How many agents there are in a run, of those that the scenario allows.
SHARES = (0.0, 0.5, 1.0)
# How many of them work at another node than the rest.
ELSEWHERE = 0.25
# An agent waits so long for a task, and asks again then.
PATIENCE_S = 3.0
# Whoever finds the node down, or is refused, comes again after this, at the most.
COME_AGAIN_S = 1.0
# An honest agent gives a sign of life so many times a lease.
BEATS_A_LEASE = 3
# What a task takes at the most, in leases; most take much less.
LONGEST_LEASES = 1.5
# How long a frozen agent stands still, in leases: shorter ones wake up in time.
SHORTEST_FREEZE, LONGEST_FREEZE = 0.5, 2.5

_Habit = Callable[[Claim], Awaitable[None]]


class SimulatedAgent:
    """One agent; when the time in which things go wrong is over, it does what is left, and does it well.

    Args:
        sim: where.
        node: at whose door.
        rng: draws how it works.
        number: which agent it is.
    """

    def __init__(self, sim: Simulation, node: SimulatedNode, rng: random.Random, number: int) -> None:
        self._sim = sim
        self._rng = rng
        self._lease_s = sim.scenario.lease_ms / 1000
        self._door = DistantDoor(node)
        self._session = FakeAgentSession(self._door, (KIND, AGENT_KIND), agent_id=f"agent-{number}")
        self._deliveries = 0
        self._is_known = False
        self._missed_an_answer = False
        habits: tuple[tuple[_Habit, float], ...] = (
            (self._do, 8),
            (self._do_twice, 2),
            (self._freeze, 3),
            (self._die, 1),
            (self._leave, 1),
            (self._fail, 1),
            (self._give_back, 1),
        )
        self._habits = [habit for habit, _ in habits]
        self._weights = [weight for _, weight in habits]

    async def live(self) -> None:
        """Take part, and begin anew whatever happens."""
        while True:
            try:
                await self._turn()
            except NodeIsDown as error:
                self._note(str(error))
                self._missed_an_answer = True
            except PeertaskError as error:
                self._note(f"is refused: {error.code}")
                self._is_known = self._is_known and error.code is not ErrorCode.NOT_FOUND
            else:
                continue
            await trio.sleep(self._rng.uniform(0, COME_AGAIN_S))

    async def _turn(self) -> None:
        if not self._is_known:
            await self._session.register()
            self._is_known = True
        if self._missed_an_answer:
            await self._give_up_former()
        claim = await self._session.claim(PATIENCE_S)
        if claim is not None:
            self._sim.judge.counts["claims of agents"] += 1
            habit = self._draw_habit()
            self._note(f"has attempt {claim.attempt}, and is to {habit.__name__.strip('_')}", claim)
            await habit(claim)

    async def _give_up_former(self) -> None:
        """Give back what came with an answer that was lost: else its signs of life would keep that for ever."""
        self._session.claims.clear()
        for held in (await self._session.beat()).tasks:
            await self._door.release(self._session.agent_id, held.task_id, held.attempt)
        self._missed_an_answer = False

    def _draw_habit(self) -> _Habit:
        if trio.current_time() > self._sim.scenario.seconds:
            return self._do
        return self._rng.choices(self._habits, self._weights)[0]

    def _note(self, what: str, claim: Claim | None = None) -> None:
        self._sim.trace.note(self._session.agent_id, what, None if claim is None else claim.record.id)

    async def _work(self, claim: Claim) -> None:
        """Begin, and give signs of life for as long as it takes."""
        await self._session.start(claim)
        left = self._lease_s * LONGEST_LEASES * self._rng.random() ** 2
        while left > 0:
            step = min(left, self._lease_s / BEATS_A_LEASE)
            await trio.sleep(step)
            left -= step
            if self._rng.random() < 0.5:  # noqa: PLR2004 - either of two
                await self._session.beat()
            else:
                await self._session.report(self._rng.random(), claim=claim)

    async def _deliver(self, claim: Claim) -> str:
        self._deliveries += 1
        number = f"{self._deliveries}, {self._rng.getrandbits(32):08x}"
        text = f"{claim.record.task.prompt}: {self._session.agent_id}, {number}"
        await self._session.complete(text, claim)
        return text

    # --- what it may do with a task ----------------------------------------------------------------------------------

    async def _do(self, claim: Claim) -> None:
        await self._work(claim)
        await self._deliver(claim)

    async def _do_twice(self, claim: Claim) -> None:
        """As one that did not hear the answer; and then with another result, which must be refused."""
        await self._work(claim)
        text = await self._deliver(claim)
        await self._session.complete(text, claim)
        await self._deliver(claim)

    async def _freeze(self, claim: Claim) -> None:
        """Stand still, often for longer than the lease, and deliver as if nothing had happened."""
        await self._work(claim)
        await trio.sleep(self._lease_s * self._rng.uniform(SHORTEST_FREEZE, LONGEST_FREEZE))
        await self._deliver(claim)

    async def _die(self, _claim: Claim) -> None:
        """Be gone without a word; another process begins under the same id, some time later."""
        self._session.crash()
        await trio.sleep(self._lease_s * self._rng.uniform(0, LONGEST_FREEZE))
        self._is_known = False

    async def _leave(self, claim: Claim) -> None:
        """Deregister with a task; and deliver it all the same."""
        self._is_known = False
        await self._session.leave()
        await self._deliver(claim)

    async def _fail(self, claim: Claim) -> None:
        await self._work(claim)
        await self._session.fail(claim=claim, retryable=self._rng.random() < 0.5)  # noqa: PLR2004 - either of two

    async def _give_back(self, claim: Claim) -> None:
        """Give a task back; and deliver it all the same."""
        await self._session.give_back(claim=claim)
        await self._deliver(claim)


def send_agents(sim: Simulation) -> None:
    """Let agents take part in a run, as many as its seed says."""
    count = round(sim.scenario.agents * sim.rng.choice(SHARES))
    # Those of one node get the tasks that others of them have lost.
    nodes = sim.rng.sample(sim.nodes, 2)
    sim.agents_at = nodes[0] if count else None
    for number in range(1, count + 1):
        sim.judge.counts["agents"] += 1
        elsewhere = number > 1 and sim.rng.random() < ELSEWHERE
        node, rng = nodes[elsewhere], random.Random(sim.rng.getrandbits(64))
        sim.nursery.start_soon(SimulatedAgent(sim, node, rng, number).live)
