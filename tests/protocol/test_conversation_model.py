"""A model check of the conversation: two ends, two queues, and every order in which things can happen.

Each end says whatever it may, as long as the queue has room, and hears what the other said in order. The search is
exhaustive over the worlds that can be reached: a receipt that is refused, or a world from which the conversation can
never come to rest, fails.
"""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from protocol import (
    SPOKEN_BY,
    Accept,
    Attach,
    Cancel,
    Conversation,
    ErrorCode,
    Failure,
    Frame,
    LocalProtocolError,
    PeerId,
    Progress,
    Reject,
    RemoteProtocolError,
    Result,
    Role,
    Submit,
    Task,
    TaskId,
    TaskState,
)
from tests.protocol.samples import OTHER_ID, TASK_ID

FAILURE = Failure.of(ErrorCode.EXECUTION_FAILED, "no")

Key = tuple[object, ...]


def frames_about(task_id: TaskId) -> tuple[Frame, ...]:
    """Return one frame of each type that belongs to a task."""
    return (
        Submit(Task(id=task_id, prompt="", sender=PeerId("alice"), timestamp=0)),
        Attach(task_id),
        Cancel(task_id),
        Accept(task_id),
        Reject(task_id=task_id, code=ErrorCode.BUSY),
        Progress(task_id=task_id, seq=2),
        Result(task_id=task_id, seq=3, failure=FAILURE),
    )


@dataclass(frozen=True)
class World:
    """Everything that matters at one moment: both ends, and what is on its way to each."""

    requester: Conversation
    worker: Conversation
    to_requester: tuple[Frame, ...] = ()
    to_worker: tuple[Frame, ...] = ()

    def key(self, tasks: tuple[TaskId, ...]) -> Key:
        """Return what tells this world from others."""
        return (
            *(self.requester.state(Role.REQUESTER, task) for task in tasks),
            *(self.worker.state(Role.WORKER, task) for task in tasks),
            *((type(frame), frame.task_id) for frame in self.to_requester),  # type: ignore[union-attr]
            "|",
            *((type(frame), frame.task_id) for frame in self.to_worker),  # type: ignore[union-attr]
        )


def said(end: Conversation, role: Role, frames: tuple[Frame, ...]) -> Iterator[tuple[Conversation, Frame]]:
    """Yield every frame of its role that an end may send now, and the end after that."""
    for frame in frames:
        if SPOKEN_BY[type(frame)] is not role:
            continue
        after = copy.deepcopy(end)
        try:
            after.send(frame)
        except LocalProtocolError:
            continue
        yield after, frame


def heard(end: Conversation, frame: Frame) -> Conversation:
    """Return the end after it received a frame."""
    after = copy.deepcopy(end)
    after.receive(frame)
    return after


def next_worlds(world: World, frames: tuple[Frame, ...], room: int) -> Iterator[World]:
    """Yield every world that one step leads to: an end says something, or hears what comes next."""
    to_requester, to_worker = world.to_requester, world.to_worker
    if len(to_worker) < room:
        for end, frame in said(world.requester, Role.REQUESTER, frames):
            yield World(end, world.worker, to_requester, (*to_worker, frame))
    if len(to_requester) < room:
        for end, frame in said(world.worker, Role.WORKER, frames):
            yield World(world.requester, end, (*to_requester, frame), to_worker)
    if to_worker:
        yield World(world.requester, heard(world.worker, to_worker[0]), to_requester, to_worker[1:])
    if to_requester:
        yield World(heard(world.requester, to_requester[0]), world.worker, to_requester[1:], to_worker)


class Search:
    """Every world that can be reached from rest, and the ways between them.

    Args:
        tasks: what the two ends talk about.
        room: how many frames each queue holds.
        worker: what the worker's end begins as.
    """

    def __init__(self, tasks: tuple[TaskId, ...], room: int, worker: Conversation | None = None) -> None:
        self.tasks = tasks
        self.frames = tuple(frame for task in tasks for frame in frames_about(task))
        begin = World(Conversation(), worker or Conversation())
        self.rest = begin.key(tasks)
        self.worlds = {self.rest: begin}
        self.came_from: dict[Key, set[Key]] = {self.rest: set()}
        self._explore(begin, room)

    def _explore(self, begin: World, room: int) -> None:
        pending = deque([begin])
        while pending:
            world = pending.popleft()
            for after in next_worlds(world, self.frames, room):
                key = after.key(self.tasks)
                if key not in self.worlds:
                    self.worlds[key] = after
                    self.came_from[key] = set()
                    pending.append(after)
                self.came_from[key].add(world.key(self.tasks))

    def can_come_to_rest(self) -> set[Key]:
        """Return the worlds from which the one with both ends idle and nothing on its way can be reached."""
        found, pending = {self.rest}, [self.rest]
        while pending:
            new = self.came_from[pending.pop()] - found
            found |= new
            pending.extend(new)
        return found


ONE, TWO = (TASK_ID,), (TASK_ID, OTHER_ID)


@pytest.mark.parametrize(("tasks", "room"), [(ONE, 6), (TWO, 3)])
def test_no_order_of_events_leads_to_an_illegal_receipt_or_to_a_deadlock(tasks: tuple[TaskId, ...], room: int) -> None:
    """Whatever crosses on the wire, both ends agree on what may come next, and can always come to rest."""
    search = Search(tasks, room)
    assert search.can_come_to_rest() == set(search.worlds)


@pytest.mark.parametrize("answer", [Accept, Reject, Progress, Result])
def test_the_search_meets_a_cancel_that_crosses_each_answer(answer: type[Frame]) -> None:
    """The interesting meetings are among the worlds that are searched."""
    assert any(
        world.requester.state(Role.REQUESTER, TASK_ID) is TaskState.CANCELLING
        and any(type(frame) is Cancel for frame in world.to_worker)
        and any(type(frame) is answer for frame in world.to_requester)
        for world in Search(ONE, 3).worlds.values()
    )


def test_the_search_meets_a_result_that_answers_a_submit() -> None:
    """No Accept came before it, and none is on its way."""
    assert any(
        world.requester.state(Role.REQUESTER, TASK_ID) is TaskState.WAITING
        and [type(frame) for frame in world.to_requester] == [Result]
        for world in Search(ONE, 3).worlds.values()
    )


class WorkerWithoutPatience(Conversation):
    """A worker with a defect: it does not expect a Cancel for what it has finished."""

    def receive(self, frame: Frame) -> None:
        """Judge a received frame, wrongly."""
        if isinstance(frame, Cancel) and self.state(Role.WORKER, frame.task_id) is TaskState.IDLE:
            raise RemoteProtocolError("a Cancel came too late")
        super().receive(frame)


def test_the_search_finds_an_illegal_receipt() -> None:
    """A defect that only shows when two frames cross is found, so a search without findings means something."""
    with pytest.raises(RemoteProtocolError, match="too late"):
        Search(ONE, 3, WorkerWithoutPatience())


class WorkerWithoutAnswers(Conversation):
    """A worker with another defect: once a task is being cancelled, it may not say anything about it any more."""

    def send(self, frame: Frame) -> None:
        """Judge a frame to be sent, wrongly."""
        if self.state(Role.WORKER, frame.task_id) is TaskState.CANCELLING:  # type: ignore[union-attr]
            raise LocalProtocolError("it is being cancelled")
        super().send(frame)


def test_the_search_finds_a_deadlock() -> None:
    """A world from which there is no way back to rest is told from the others."""
    search = Search(ONE, 3, WorkerWithoutAnswers())
    assert search.can_come_to_rest() < set(search.worlds)
