"""Who is there to do tasks: the executors of this node, the agents that ask for work, and the connected peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from node.coordination.roster import Roster, Worker
from node.dispatcher.peers import worker_at
from node.interfaces import Executor, Network
from node.persona_library import PersonaLibrary
from node.work.offers import Offers
from protocol import PeerId


class Roll:
    """Keeps a worker for each of them, with what it has to do, and calls them together for the plan.

    Args:
        network: whose open channels are peers that can take tasks.
        executors: those of this node, by kind; may grow.
        offers: the agents that ask for tasks.
        trusts: tells whether a peer may be given tasks that did not name it.

    Attributes:
        personas: whom this node acts as; None when it does not look at personas.
    """

    def __init__(
        self,
        network: Network,
        executors: Mapping[str, Executor],
        offers: Offers,
        trusts: Callable[[PeerId], bool],
    ) -> None:
        self.personas: PersonaLibrary | None = None
        self._network = network
        self._executors = executors
        self._offers = offers
        self._trusts = trusts
        self._own_id = network.peer_id
        self._local: dict[str, Worker] = {}
        self._peers: dict[PeerId, Worker] = {}
        self._peers_stale = True
        self._roster: Roster | None = None

    @property
    def busy_here(self) -> int:
        """How many tasks the executors of this node carry out."""
        return sum(worker.busy for worker in self._local.values())

    @property
    def busy_elsewhere(self) -> int:
        """How many tasks of this node the connected peers have."""
        return sum(worker.busy for worker in self._peers.values())

    def forget(self) -> None:
        """Look at everybody anew when the roll is called next."""
        self._roster = None

    def peers_changed(self) -> None:
        """Look at the peers anew when the roll is called next."""
        self._peers_stale = True
        self._roster = None

    def last(self) -> Roster:
        """Return the roster as it was called last, unless somebody has come or gone since."""
        return self._roster or self.call()

    def whole(self) -> Roster:
        """Return who is there, agents that do not ask for work now included."""
        idle = list(self._offers.idle())
        roster = self.last()
        return Roster([*roster.workers, *idle], self._own_id) if idle else roster

    def call(self) -> Roster:
        """Return who is there now."""
        self._call_executors()
        if self._peers_stale:
            self._call_peers()
        agents = list(self._offers.workers())
        if self._roster is None or agents:  # they come and go as they ask
            self._roster = Roster([*self._local.values(), *agents, *self._peers.values()], self._own_id)
        return self._roster

    def _call_executors(self) -> None:
        for kind, executor in self._executors.items():
            worker = self._local.get(kind)
            if worker is None:
                acts_as = None if self.personas is None else self.personas.declared
                self._local[kind] = Worker(self._own_id, frozenset({kind}), executor.slots, personas=acts_as)
                self._roster = None
            elif worker.slots != executor.slots:
                worker.slots = executor.slots
                self._roster = None

    def _call_peers(self) -> None:
        self._peers_stale = False
        before, self._peers = self._peers, {}
        for channel in self._network.channels():
            worker = worker_at(channel, before.get(channel.peer_id))
            worker.trusted = self._trusts(channel.peer_id)
            self._peers[channel.peer_id] = worker

    def successor(self, worker: Worker) -> Worker:
        """Return the worker that counts for another now: a peer that has been away has a new one, which took over."""
        return worker if worker.peer_id == self._own_id else self._peers.get(worker.peer_id, worker)
