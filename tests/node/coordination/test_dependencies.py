"""Which graphs are taken in, who waits for whom, and what a task gets of those that it depends on."""

# covers COORD-3, COORD-18, COORD-19, COORD-20

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.coordination.dependencies import (
    INPUTS,
    MAX_GRAPH_DEPENDENCIES,
    MAX_GRAPH_TASKS,
    Dependencies,
    are_dependencies_satisfied,
    check_graph,
    dependents_first,
    failure_of_dependency,
    for_worker,
    with_inputs,
)
from node.testing import TEST_PEER, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    InvalidTask,
    PeertaskError,
    Started,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskRejected,
    TaskResult,
    TooLarge,
    Transition,
    advance,
    begin,
    new_task_id,
)

# The same in each process of a run, because some stand in the names of tests.
A, B, C, D = (TaskId(f"3f1c9d2e-5b7a-4e60-8c1d-2a9b0f4e6d7{digit}") for digit in "abcd")


def task(task_id: TaskId, *depends_on: TaskId, title: str = "", **fields: Any) -> Task:
    """Return a task that depends on others."""
    metadata = {"title": title} if title else {}
    return make_task(id=task_id, depends_on=depends_on, metadata=metadata, **fields)


def record_of(one: Task, *facts: Transition) -> TaskRecord:
    """Return the record of a task after some facts."""
    record = begin(Submitted(one, 0, TEST_PEER))
    for fact in facts:
        record = advance(record, fact)
    return record


def complete(one: Task, text: str = "done") -> TaskRecord:
    """Return the record of a task that is complete."""
    started = (Claimed(one.id, 1, 1, TEST_PEER, 9), Started(one.id, 1, 1))
    return record_of(one, *started, Completed(one.id, 2, 1, TaskResult(one.id, text, 1)))


def failed(one: Task, code: ErrorCode = ErrorCode.EXECUTION_FAILED, message: str = "it broke") -> TaskRecord:
    """Return the record of a task that failed."""
    return record_of(one, Failed(one.id, 1, 0, Failure.of(code, message)))


def among(*records: TaskRecord) -> Callable[[TaskId], TaskRecord | None]:
    """Return what finds these records."""
    return {record.id: record for record in records}.get


NOTHING = among()


@pytest.mark.parametrize(
    "tasks",
    [
        [],
        [task(A)],
        [task(A), task(B, A), task(C, A), task(D, B, C)],
        [task(D, B, C), task(C, A), task(B, A), task(A)],
        [task(A, parent_id=D), task(B, A, parent_id=D), task(D, A, B)],
        [task(A), task(B, A, parent_id=A)],
    ],
)
def test_a_graph_without_a_fault_is_taken_in_whatever_its_order(tasks: Sequence[Task]) -> None:
    """A parent may depend on its children, and children on their parent."""
    check_graph(tasks, NOTHING)


def test_a_task_may_depend_on_what_came_before() -> None:
    """Whether that has ended or not, and how, plays no part."""
    earlier = [complete(task(A)), failed(task(B)), record_of(task(C))]
    check_graph([task(D, A, B, C, parent_id=A)], among(*earlier))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task(A, B)], rf"^field depends_on: task {A} names {B}, which is no task of yours .*forgotten"),
        ([task(A, parent_id=B)], rf"^field parent_id: task {A} names {B}"),
        ([task(A, A)], rf"^field depends_on: task {A} depends on itself"),
        ([task(A, parent_id=A)], rf"^field parent_id: task {A} is its own parent"),
        ([task(A), task(B, A, A)], rf"^field depends_on: task {B} names {A} twice"),
        ([task(A), task(A)], rf"^the graph has the task {A} twice"),
        ([task(A), task(B, A, params={INPUTS: 1})], rf"^field params of task {B}: 'inputs' is where the results"),
        ([task(A, B), task(B, A)], rf"cycle: ({A} → {B} → {A}|{B} → {A} → {B})\."),
        (
            [task(A, B, title="plan"), task(B, C, title="build"), task(C, A, title="test"), task(D, A)],
            (
                r"^field depends_on: the graph has a cycle: (plan → build → test → plan|build → test → plan → build"
                r"|test → plan → build → test)\. Take one"
            ),
        ),
        ([task(A, parent_id=B), task(B, parent_id=A)], r"^field parent_id: the graph has a cycle"),
    ],
)
def test_a_faulty_graph_is_refused_in_words(tasks: Sequence[Task], message: str) -> None:
    """The message names the field, the task by its title when it has one, and the way out; a cycle is a path."""
    with pytest.raises(InvalidTask, match=message):
        check_graph(tasks, NOTHING)


@pytest.mark.parametrize(
    "facts",
    [
        [Cancelled(A, 1)],
        [Claimed(A, 1, 1, TEST_PEER, 9), Started(A, 1, 1), CancelRequested(A, 2)],
    ],
)
def test_a_cancelled_parent_gets_no_more_children(facts: list[Transition]) -> None:
    """A planner that goes on for a moment after it was cancelled must not leave tasks behind."""
    with pytest.raises(TaskRejected, match="is cancelled") as refused:
        check_graph([task(B, parent_id=A)], among(record_of(task(A), *facts)))
    assert refused.value.code is ErrorCode.CANCELLED


def test_a_graph_has_limits_that_the_error_names() -> None:
    """Whoever sends a hundred thousand dependencies and one more is refused before they are followed."""
    ids = [new_task_id() for _ in range(1_000)]
    wide = [task(one) for one in ids] + [task(new_task_id(), *ids) for _ in range(MAX_GRAPH_DEPENDENCIES // 1_000)]
    check_graph(wide, NOTHING)
    with pytest.raises(TooLarge, match=r"100,001 dependencies, and 100,000 is the limit"):
        check_graph([*wide, task(new_task_id(), ids[0])], NOTHING)
    with pytest.raises(TooLarge, match=r"10,001 tasks, and 10,000 is the limit"):
        check_graph([task(A)] * (MAX_GRAPH_TASKS + 1), NOTHING)


def test_a_long_chain_needs_no_recursion_and_a_long_cycle_is_abridged() -> None:
    """The longest chain that a graph may have is followed; of its cycle the ends are shown."""
    ids = [new_task_id() for _ in range(MAX_GRAPH_TASKS)]
    chain = [task(ids[0]), *(task(one, before) for before, one in itertools.pairwise(ids))]
    check_graph(chain, NOTHING)
    assert dependents_first(chain) == ids[::-1]
    with pytest.raises(InvalidTask, match=r"\(9,989 more\)") as refused:
        check_graph([task(ids[0], ids[-1]), *chain[1:]], NOTHING)
    assert len(str(refused.value)) < 1_000


@st.composite
def graphs(draw: st.DrawFn) -> list[Task]:
    """Draw a graph without a cycle: each task depends on some of those before it."""
    ids = [new_task_id() for _ in range(draw(st.integers(1, 12)))]
    return [
        task(one, *draw(st.lists(st.sampled_from(ids[:place]), unique=True, max_size=4) if place else st.just([])))
        for place, one in enumerate(ids)
    ]


@given(graphs(), st.randoms(use_true_random=False))
def test_the_count_of_what_is_missing_follows_from_the_records(graph: list[Task], rng: Any) -> None:
    """Whatever ends in whatever order, a count says what all dependencies say; in the end nothing is left."""
    dependencies = Dependencies()
    records = {one.id: record_of(one) for one in graph}
    for one in graph:
        dependencies.add(one, records.get)
    waiting = list(graph)
    released: list[TaskId] = []
    while waiting:
        for one in waiting:
            assert (dependencies.missing(one.id) == 0) == are_dependencies_satisfied(one, records.get)
        one = rng.choice([one for one in waiting if not dependencies.missing(one.id)])
        waiting.remove(one)
        records[one.id] = complete(one)
        dependencies.complete(one.id)
        released += dependencies.drop(one)
    assert sorted(released) == sorted({dependency for one in graph for dependency in one.depends_on})
    assert not any(one.id in dependencies.awaited or dependencies.dependents(one.id) for one in graph)


def test_dependents_are_found_in_the_order_of_coming() -> None:
    """They are told in this order when what they wait for has ended."""
    dependencies = Dependencies()
    for one in (task(C, A), task(B, A), task(D, B, A)):
        dependencies.add(one, NOTHING)
    assert dependencies.dependents(A) == [C, B, D]
    assert dependencies.drop(task(B, A)) == []
    assert dependencies.dependents(A) == [C, D]
    assert dependencies.drop(task(D, B, A)) == [B]


def test_a_task_that_repeats_another_stands_for_it() -> None:
    """The last repetition counts; whoever waits for the first waits for that, and all of them go together."""
    dependencies = Dependencies()
    records = {A: failed(task(A)), C: complete(task(C))}
    patient = task(D, A, on_failed_dependency="wait")
    dependencies.add(patient, records.get)
    first, second, later = new_task_id(), new_task_id(), new_task_id()
    dependencies.repeat(first, A)
    dependencies.repeat(second, first)
    dependencies.repeat(later, C)  # nobody waits for that
    assert dependencies.source(A) == second
    assert (dependencies.source(C), later in dependencies.awaited) == (C, False)
    both = task(B, A, second)
    dependencies.add(both, records.get)
    assert dependencies.dependents(second) == [D, B]
    dependencies.complete(second)
    dependencies.complete(first)
    dependencies.repeat(later, A)  # too late
    assert [dependencies.missing(one.id) for one in (patient, both)] == [0, 0]
    assert dependencies.source(A) == second
    assert dependencies.drop(both) == []
    assert dependencies.drop(patient) == [A, first, second]
    assert (dependencies.awaited, dependencies.source(A)) == ({}, A)
    dependencies.add(task(B, A, C), records.get)
    dependencies.repeat(first, A)
    dependencies.add(task(D, A, first), records.get)
    assert dependencies.drop(task(B, A, C)) == [C]
    assert dependencies.drop(task(D, A, first)) == [A, first]


@pytest.mark.parametrize("order", [(B, C, D), (D, C, B)])
def test_a_repetition_that_is_complete_before_it_is_known_as_one_counts_once(order: tuple[TaskId, ...]) -> None:
    """As after a restart, which tells first who waits, and then who repeats whom."""
    dependencies, again = Dependencies(), new_task_id()
    records = {A: failed(task(A)), again: complete(task(again))}
    waiting = {B: task(B, A), C: task(C, again), D: task(D, A, again)}
    for task_id in order:
        dependencies.add(waiting[task_id], records.get)
    assert [dependencies.missing(one) for one in (B, C, D)] == [1, 0, 1]
    dependencies.repeat(again, A)
    dependencies.complete(again)
    assert [dependencies.missing(one) for one in (B, C, D)] == [0, 0, 0]
    assert (dependencies.source(A), dependencies.source(again)) == (again, again)
    released = [task_id for one in order for task_id in dependencies.drop(waiting[one])]
    assert (released, dependencies.awaited) == ([A, again], {})


def test_of_two_repetitions_the_one_that_is_complete_counts() -> None:
    """Also for who comes later, and when the other one is the last."""
    dependencies, quick, slow = Dependencies(), new_task_id(), new_task_id()
    records = {A: failed(task(A)), quick: record_of(task(quick)), slow: record_of(task(slow))}
    dependencies.add(task(B, A), records.get)
    dependencies.repeat(quick, A)
    dependencies.repeat(slow, A)
    records[quick] = complete(task(quick))
    dependencies.complete(quick)
    dependencies.add(task(C, quick), records.get)
    assert [dependencies.missing(one) for one in (B, C)] == [0, 0]
    assert {dependencies.source(one) for one in (A, quick, slow)} == {quick}


def test_a_repetition_of_a_repetition_stands_for_both() -> None:
    """Whoever waits for the one in the middle gets the result of the last."""
    dependencies, middle, last = Dependencies(), new_task_id(), new_task_id()
    records = {A: failed(task(A)), middle: failed(task(middle))}
    dependencies.add(task(B, A), records.get)
    dependencies.add(task(C, middle), records.get)
    dependencies.repeat(middle, A)
    dependencies.repeat(last, middle)
    assert {dependencies.source(one) for one in (A, middle, last)} == {last}


@pytest.mark.parametrize(
    ("dependency", "reason"),
    [
        (record_of(task(A)), None),
        (complete(task(A)), None),
        (failed(task(A)), f"task {A}, on which it depends, failed with EXECUTION_FAILED: it broke"),
        (failed(task(A), message="x" * 900), "x" * 300),
        (failed(task(A), ErrorCode.DEPENDENCY_FAILED, "z"), "failed with one of its own dependencies"),
        (record_of(task(A), Cancelled(A, 1)), "was cancelled"),
        (None, "is not kept here any more"),
    ],
)
def test_a_task_fails_with_its_dependency_unless_it_waits(dependency: TaskRecord | None, reason: str | None) -> None:
    """The failure names the dependency and what became of it; a task that waits goes on waiting whatever happens."""
    failure = failure_of_dependency(task(B, A), A, dependency)
    assert (failure is None) == (reason is None)
    if failure is not None and reason is not None:
        assert failure.code is ErrorCode.DEPENDENCY_FAILED
        assert A in failure.message
        assert failure.message.endswith(reason)
        assert not failure.maybe_ran
    assert failure_of_dependency(task(B, A, on_failed_dependency="wait"), A, dependency) is None


def test_a_task_gets_the_results_of_its_dependencies_in_their_order() -> None:
    """They stand among its params; what was submitted stays as it was, and a repetition is equal."""
    one = task(C, B, A, params={"depth": 2})
    known = among(complete(task(A), "a"), complete(task(B), "b"))
    ready = with_inputs(one, known)
    assert ready.params == {"depth": 2, INPUTS: {B: "b", A: "a"}}
    assert list(ready.params[INPUTS]) == [B, A]
    assert one.params == {"depth": 2}
    assert with_inputs(one, known) == ready
    assert with_inputs(task(A), NOTHING).params == {}


def test_results_that_are_too_large_together_are_refused() -> None:
    """The error says how large they are in bytes, and what to do."""
    known = among(complete(task(A), "ä" * 600), complete(task(B), "b" * 600))
    with pytest.raises(TooLarge, match=r"2 dependencies the task has 1,8\d\d bytes, and 1,000 is the limit"):
        with_inputs(task(C, A, B), known, max_bytes=1_000)


def test_a_result_that_is_gone_is_a_failed_dependency() -> None:
    """A store that has lost it must not make a task run without its inputs."""
    with pytest.raises(PeertaskError) as refused:
        with_inputs(task(C, A), among(record_of(task(A))))
    assert refused.value.code is ErrorCode.DEPENDENCY_FAILED


def test_a_peer_gets_a_task_without_what_it_cannot_know() -> None:
    """The ids of other tasks of this node would only make it wait for ever."""
    sent = for_worker(task(C, A, on_failed_dependency="wait", parent_id=B, params={"x": 1}))
    assert (sent.id, sent.params) == (C, {"x": 1})
    assert (sent.depends_on, sent.parent_id, sent.on_failed_dependency) == ((), None, "fail")
