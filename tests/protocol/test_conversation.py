"""Which frame may follow which: every cell of both tables, judged at the sending and at the receiving end."""

import itertools

import pytest

from protocol import (
    FRAME_TYPES,
    SESSION_TABLE,
    SPOKEN_BY,
    TASK_TABLE,
    Accept,
    Attach,
    Bye,
    Cancel,
    Conversation,
    ErrorCode,
    Fault,
    Frame,
    Heartbeat,
    LocalProtocolError,
    PeertaskError,
    Progress,
    RemoteProtocolError,
    Result,
    Role,
    SessionState,
    Submit,
    TaskState,
)
from tests.protocol.samples import OTHER_ID, PLAIN_FRAMES, PLAIN_TASK, RESULT, TASK_ID

# The law of a task in words, written down a second time on purpose; it is the same for both ends.
LAW = """
            | Submit  | Attach  | Cancel     | Accept     | Reject | Progress   | Result
idle        | waiting | waiting | idle       |            |        |            |
waiting     |         |         | cancelling | running    | idle   |            | idle
running     |         |         | cancelling |            |        | running    | idle
cancelling  |         |         |            | cancelling | idle   | cancelling | idle
"""

# What an end in the role says or hears to get from idle to each state.
PATHS: dict[TaskState, tuple[str, ...]] = {
    TaskState.IDLE: (),
    TaskState.WAITING: ("submit",),
    TaskState.RUNNING: ("submit", "accept"),
    TaskState.CANCELLING: ("submit", "cancel"),
}

SESSION_PATHS: dict[SessionState, tuple[str, ...]] = {
    SessionState.FRESH: (),
    SessionState.OPEN: ("heartbeat",),
    SessionState.ENDED: ("bye",),
}

TASK_FRAMES = [name for name, cls in FRAME_TYPES.items() if cls in SPOKEN_BY]
TASK_CELLS = list(itertools.product(Role, TaskState, TASK_FRAMES))
SESSION_CELLS = list(itertools.product(SessionState, FRAME_TYPES))


def law() -> dict[tuple[str, str], str]:
    """Return the cells of the law that are not empty."""
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in LAW.strip("\n").splitlines()]
    return {(row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True) if cell}


def pass_on(end: Conversation, role: Role, frame: Frame) -> None:
    """Let an end say the frame when it speaks for the role, and hear it otherwise."""
    if SPOKEN_BY[type(frame)] is role:
        end.send(frame)
    else:
        end.receive(frame)


def end_in(role: Role, state: TaskState) -> Conversation:
    """Return an end whose task is in the given state."""
    end = Conversation()
    for name in PATHS[state]:
        pass_on(end, role, PLAIN_FRAMES[name])
    assert end.state(role, TASK_ID) is state
    return end


def test_the_tables_are_total() -> None:
    """Every role, every state and every type of frame is in the tables, and every frame about a task has a speaker."""
    assert set(TASK_TABLE) == set(Role)
    assert all(set(table) == set(TaskState) for table in TASK_TABLE.values())
    assert set(SESSION_TABLE) == set(SessionState)
    assert {cls for cls in FRAME_TYPES.values() if hasattr(cls, "task_id")} == set(SPOKEN_BY)


@pytest.mark.parametrize("role", Role)
def test_the_table_of_a_role_is_the_law(role: Role) -> None:
    """No cell of the code's table differs from the law."""
    assert law() == {
        (state.value, frame.__name__): after.value
        for state, row in TASK_TABLE[role].items()
        for frame, after in row.items()
    }


@pytest.mark.parametrize(("role", "state", "name"), TASK_CELLS)
def test_an_end_follows_the_law_in_every_cell(role: Role, state: TaskState, name: str) -> None:
    """What the law allows changes the state; what it does not is an error of whoever said it, and changes nothing."""
    end = end_in(role, state)
    frame = PLAIN_FRAMES[name]
    says_it = SPOKEN_BY[type(frame)] is role
    expected = law().get((state.value, type(frame).__name__))
    if expected is not None:
        pass_on(end, role, frame)
        assert end.state(role, TASK_ID) == expected
        return
    with pytest.raises(LocalProtocolError if says_it else RemoteProtocolError) as caught:
        pass_on(end, role, frame)
    assert f"{type(frame).__name__} for task {TASK_ID}, whose {role} is {state}" in str(caught.value)
    assert end.state(role, TASK_ID) is state


@pytest.mark.parametrize(("state", "name"), SESSION_CELLS)
@pytest.mark.parametrize("direction", ["send", "receive"])
def test_a_session_is_greeted_first_and_ended_once_in_either_direction(
    state: SessionState, name: str, direction: str
) -> None:
    """Hello is the first frame or none, nothing follows Bye, and all else may come in between."""
    end = Conversation()
    judge = getattr(end, direction)
    for step in SESSION_PATHS[state]:
        judge(PLAIN_FRAMES[step])
    if name in {"accept", "reject", "progress", "result"} and state is not SessionState.ENDED:
        prepare_answer(end, name, direction)
    allowed = state is SessionState.FRESH or (state is SessionState.OPEN and name != "hello")
    if allowed:
        judge(PLAIN_FRAMES[name])
    else:
        with pytest.raises(LocalProtocolError if direction == "send" else RemoteProtocolError, match=state.value):
            judge(PLAIN_FRAMES[name])


def prepare_answer(end: Conversation, name: str, direction: str) -> None:
    """Bring the other direction to where the answer may come."""
    (end.receive if direction == "send" else end.send)(PLAIN_FRAMES["submit"])
    if name == "progress":
        getattr(end, direction)(PLAIN_FRAMES["accept"])


@pytest.mark.parametrize("ask", ["submit", "attach"])
def test_a_result_answers_alone(ask: str) -> None:
    """It says Accept too: both ends are idle after it, and an Accept behind it is refused."""
    requester, worker = Conversation(), Conversation()
    for end, role in ((requester, Role.REQUESTER), (worker, Role.WORKER)):
        for name in (ask, "result"):
            pass_on(end, role, PLAIN_FRAMES[name])
        assert not end.busy
    with pytest.raises(LocalProtocolError, match="idle"):
        worker.send(Accept(TASK_ID))


@pytest.mark.parametrize("name", FRAME_TYPES)
def test_the_session_table_says_what_the_ends_do(name: str) -> None:
    """The generated reference shows this table, so it must be the one in force."""
    cls = FRAME_TYPES[name]
    assert SESSION_TABLE[SessionState.FRESH][cls] is (SessionState.ENDED if cls is Bye else SessionState.OPEN)
    assert (cls in SESSION_TABLE[SessionState.OPEN]) == (name != "hello")
    assert cls not in SESSION_TABLE[SessionState.ENDED]


def test_a_refused_frame_leaves_the_session_as_it_was() -> None:
    """A frame that this node may not send has not been sent: the session is still fresh, and can be greeted."""
    end = Conversation()
    with pytest.raises(LocalProtocolError):
        end.send(Accept(TASK_ID))
    end.send(PLAIN_FRAMES["hello"])


def test_blame_goes_to_whoever_spoke() -> None:
    """The same illegal frame is a defect here when sent, and the peer's when received."""
    with pytest.raises(PeertaskError) as sent:
        Conversation().send(Accept(TASK_ID))
    with pytest.raises(PeertaskError) as received:
        Conversation().receive(Accept(TASK_ID))
    assert (sent.value.code, received.value.code) == (ErrorCode.INTERNAL, ErrorCode.PROTOCOL)
    assert (sent.value.traits.fault, received.value.traits.fault) == (Fault.WORKER, Fault.NETWORK)


def test_both_ends_may_ask_each_other_for_the_same_task() -> None:
    """A node can be requester and worker of one id on one session; the two conversations do not mix."""
    end = Conversation()
    end.send(Submit(PLAIN_TASK))
    end.receive(Submit(PLAIN_TASK))
    end.receive(Accept(TASK_ID))
    assert (end.state(Role.REQUESTER, TASK_ID), end.state(Role.WORKER, TASK_ID)) == ("running", "waiting")


def test_tasks_do_not_mix() -> None:
    """An answer about one task says nothing about another."""
    end = Conversation()
    end.send(Submit(PLAIN_TASK))
    end.send(Attach(OTHER_ID))
    end.receive(Accept(OTHER_ID))
    assert (end.state(Role.REQUESTER, TASK_ID), end.state(Role.REQUESTER, OTHER_ID)) == ("waiting", "running")


def test_what_is_under_way_is_known_and_what_is_over_is_forgotten() -> None:
    """A session holds no more than the tasks that are not idle, however many went over it."""
    requester, worker = Conversation(), Conversation()
    for frame in (Submit(PLAIN_TASK), Accept(TASK_ID), Progress(task_id=TASK_ID, seq=2)):
        pass_on(requester, Role.REQUESTER, frame)
        pass_on(worker, Role.WORKER, frame)
        assert (requester.under_way(Role.REQUESTER), worker.under_way(Role.WORKER)) == ([TASK_ID], [TASK_ID])
    for end, role in ((requester, Role.REQUESTER), (worker, Role.WORKER)):
        pass_on(end, role, Result(task_id=TASK_ID, seq=3, result=RESULT))
        assert end.under_way(role) == []
        pass_on(end, role, Cancel(TASK_ID))
        assert end.under_way(role) == []


def test_the_heartbeat_of_an_idle_session_is_always_allowed() -> None:
    """A long silence between tasks needs no state."""
    end = Conversation()
    for _ in range(3):
        end.send(Heartbeat())
        end.receive(Heartbeat())
