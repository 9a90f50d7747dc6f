"""An executor that tells what it is made to do."""

from __future__ import annotations

from node.interfaces import Execution, Executor, Output
from node.testing.simulation.judge import Judge
from protocol import PeerId


class WatchedExecutor(Executor):
    """Carries out what another executor does, and tells a judge.

    Args:
        executor: does the work.
        peer_id: at which node.
        judge: who is told.
    """

    def __init__(self, executor: Executor, peer_id: PeerId, judge: Judge) -> None:
        self.kind = executor.kind
        self.slots = executor.slots
        self.safe = executor.safe
        self._executor = executor
        self._peer_id = peer_id
        self._judge = judge

    async def execute(self, execution: Execution) -> Output:
        """Carry a task out; see `Executor.execute`."""
        number = self._judge.begins(self._peer_id, execution, self.slots)
        output: Output | None = None
        try:
            output = await self._executor.execute(execution)
            return output
        finally:
            self._judge.ends(self._peer_id, execution, number, output)
