"""The simulator is known to bite: nodes with a planted defect break a promise within a few seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from node.dispatcher import Attempt, Dispatcher
from node.executors.remote import RemoteDelegate
from node.gateways.p2p import PeerGateway
from node.interfaces import Change, Channel, Delegation, Lagged, Outcome
from node.manager import TaskManager
from node.testing import Parts, Scenario, SimulatedStore, simulate
from node.work import WorkDoor
from protocol import (
    ErrorCode,
    Failure,
    PeerId,
    PeertaskError,
    Submit,
    Task,
    TaskFailed,
    TaskId,
    TaskRecord,
    new_task_id,
)

Append = Callable[[Sequence[Change]], None]

# A defect that takes more seeds than this would still be found by the thousand of every run.
MAX_SEEDS = 30


class _TellsBeforeItIsSaved(TaskManager):
    def _append(self, changes: Sequence[Change], append: Append) -> None:
        super()._append(changes, append)
        self._committed(changes)

    def _committed(self, changes: Sequence[Change]) -> None:
        super()._committed([change for change in changes if change.record.seq > self._known_seq(change)])

    def _known_seq(self, change: Change) -> int:
        known = self._records.get(change.record.id)
        return 0 if known is None else known.seq


class _ForgetsWithTheSession(RemoteDelegate):
    def closed(self, channel: Channel, reason: str) -> None:  # noqa: ARG002 - as the contract has it
        self._open.pop(channel, None)


class _TakesALossForAFailure(RemoteDelegate):
    def closed(self, channel: Channel, reason: str) -> None:
        for delegation in self._open.pop(channel, {}).values():
            delegation.finish(TaskFailed(Failure.of(ErrorCode.EXECUTION_FAILED, reason)))


class _AsksForAnotherTask(RemoteDelegate):
    """Retries without attaching: the worker cannot know that it has the task already."""

    def closed(self, channel: Channel, reason: str) -> None:  # noqa: ARG002 - as the contract has it
        lost = self._open.pop(channel, {})
        for delegation in lost.values():
            shape = {**delegation.task.to_dict(), "id": new_task_id()}
            for other in self._network.channels():
                other.send(Submit(Task.from_dict(shape)))
                self._open.setdefault(other, {})[delegation.task.id] = delegation


class _DoesNotAttach(PeerGateway):
    def _deliver_again(self, record: object, delivery: object) -> None:
        """Say nothing to who asks again."""


class _HasNoQuota(PeerGateway):
    def _admit(self, channel: Channel, task: Task) -> None:
        """Let everybody have as much as they like."""


class _LeaksSlots(Dispatcher):
    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        super().ended(attempt, outcome)
        if isinstance(outcome, PeertaskError) and outcome.code is ErrorCode.BUSY:
            attempt.worker.busy += 1


class _AsksForMore(Dispatcher):
    def _peers_changed(self) -> None:
        super()._peers_changed()
        for worker in self._roll.call().workers:
            if worker.peer_id != self._own_id:
                worker.slots = 100


class _StartsWithNothing(Dispatcher):
    def _restore(self) -> None:
        """Leave what the store held."""


class _LooksAtNoDependency(Dispatcher):
    def _holds_back(self, record: TaskRecord) -> bool:  # noqa: ARG002 - as the dispatcher has it
        return False


class _StopsTheParentOnly(TaskManager):
    def cancel_task(self, task_id: TaskId, *, requester: PeerId | None = None) -> TaskRecord:  # noqa: ARG002 - as above
        return self._cancel(self.latest(task_id))


class _TakesWhatAnybodyDelivers(WorkDoor):
    async def _held(self, agent_id: str, task_id: TaskId, attempt: int) -> Delegation:
        return self._offers.held.get(task_id) or await super()._held(agent_id, task_id, attempt)


class _AnswersBeforeItIsSaved(WorkDoor):
    async def _saved(self, record: TaskRecord) -> TaskRecord:
        return record


class _TellsWatchersNothingOld(TaskManager):
    async def _replay(self, record: TaskRecord, after_seq: int) -> list[Change | Lagged]:  # noqa: ARG002 - as above
        return []


class _LosesWrites(SimulatedStore):
    def append(self, changes: Sequence[Change]) -> None:
        if self._rng.random() < 0.01 and self._committed is not None:
            self._committed(changes)
        else:
            super().append(changes)


DEFECTS = {
    "tells before it is saved": (Parts(manager=_TellsBeforeItIsSaved), "saved before told"),
    "forgets tasks with the session": (Parts(delegate=_ForgetsWithTheSession), "every task ends"),
    "takes a lost peer for a failure": (Parts(delegate=_TakesALossForAFailure), "both sides remember"),
    "retries without attaching": (Parts(delegate=_AsksForAnotherTask), "nothing invented"),
    "does not answer who asks again": (Parts(gateway=_DoesNotAttach), "every task ends"),
    "heeds no quota at either side": (Parts(gateway=_HasNoQuota, dispatcher=_AsksForMore), "bounded queues"),
    "leaks the slots of busy peers": (Parts(dispatcher=_LeaksSlots), "bounded queues"),
    "begins with nothing after a crash": (Parts(dispatcher=_StartsWithNothing), "every task ends"),
    "begins what waits for others": (Parts(dispatcher=_LooksAtNoDependency), "dependencies first"),
    "stops a parent without its children": (Parts(manager=_StopsTheParentOnly), "cancel means stopped"),
    "takes the result of a former attempt": (Parts(work=_TakesWhatAnybodyDelivers), "stale results are refused"),
    "gives agents what is not saved": (Parts(work=_AnswersBeforeItIsSaved), "saved before told"),
    "tells watchers nothing that was before": (Parts(manager=_TellsWatchersNothingOld), "watchers miss nothing"),
    "says that it has saved what it has not": (Parts(store=_LosesWrites), ""),
}


@pytest.mark.parametrize(("parts", "promise"), DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_found(parts: Parts, promise: str) -> None:
    """Within a few seeds, and by the promise that it breaks."""
    scenario = Scenario(parts=parts)
    for seed in range(MAX_SEEDS):
        broken = {violation.promise for violation in simulate(scenario, seed).violations}
        if broken and promise in {"", *broken}:
            return
    pytest.fail(f"{MAX_SEEDS} seeds did not find it")
