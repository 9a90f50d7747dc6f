"""Who asks whom in a demo."""

from __future__ import annotations

from collections import Counter

import pytest

from node.cli.demo.tally import Census, Rate, Recorded, percentile, summarise
from node.cli.demo.workload import Job, JobState, Workload
from protocol import new_task_id


def ask_next(workload: Workload, node: int, now: float = 0.0) -> Job:
    """Let a node ask for its next task."""
    job = workload.take(node)
    assert job is not None
    workload.asked(job, new_task_id(), now)
    return job


def test_tasks_go_round_all_pairs_of_nodes() -> None:
    """Every node asks every other for equally many tasks, and nobody asks itself."""
    pairs = Counter((job.requester, job.worker) for job in Workload(4, 24).jobs)
    assert pairs == {(one, other): 2 for one in range(4) for other in range(4) if one != other}


def test_a_single_node_asks_itself() -> None:
    """A demo of one node is dull, but not wrong."""
    assert {(job.requester, job.worker) for job in Workload(1, 3).jobs} == {(0, 0)}


def test_a_node_takes_its_own_tasks_in_their_order_until_there_are_none() -> None:
    """Nothing is taken twice."""
    workload = Workload(2, 4)
    taken = [workload.take(0), workload.take(0), workload.take(0)]
    assert [job and job.number for job in taken] == [1, 3, None]


def test_what_a_killed_node_had_asked_for_is_asked_for_again_by_others() -> None:
    """Its open tasks and those that it had not asked for yet go to the others, and nobody asks it for anything."""
    workload = Workload(3, 12)
    ended, orphan = ask_next(workload, 2), ask_next(workload, 2)
    workload.end(ended, complete=True)
    assert workload.remove_node(2) == [orphan]
    assert workload.alive == [0, 1]
    waiting = [job for job in workload.jobs if job.state is JobState.WAITING]
    assert len(waiting) == 11
    assert all(job.requester in {0, 1} and job.worker == 1 - job.requester for job in waiting)
    taken = [job for node in (0, 1) for job in iter(lambda node=node: workload.take(node), None)]  # type: ignore[misc]
    assert sorted(job.number for job in taken) == sorted(job.number for job in waiting)


def test_a_task_that_ended_after_all_is_not_asked_for_again() -> None:
    """The answer of a dying node may still come."""
    workload = Workload(2, 2)
    orphan = ask_next(workload, 1)
    workload.remove_node(1)
    workload.end(orphan, complete=True)
    workload.end(orphan, complete=False)
    assert (orphan.state, workload.done) == (JobState.COMPLETE, 1)
    assert [workload.take(0), workload.take(0)] == [workload.jobs[0], None]


def test_a_task_keeps_the_time_when_it_was_first_asked_for() -> None:
    """What a user waits for does not begin anew with a new requester, and goes first there: it has waited longest."""
    workload = Workload(2, 4)
    job, later = ask_next(workload, 1, now=1.0), ask_next(workload, 1, now=2.0)
    first_id = job.task_id
    workload.remove_node(1)
    assert ask_next(workload, 0, now=5.0) is job
    assert ask_next(workload, 0) is later
    assert ask_next(workload, 0).number == 1
    assert (job.asked, job.asked_at) == (2, 1.0)
    assert first_id is not None
    assert workload.find(first_id) is job


def test_the_summary_counts_what_has_no_end_as_lost() -> None:
    """Complete, failed, lost; a demo with anything but complete tasks has lost something."""
    workload = Workload(2, 4)
    complete, failed, _ = ask_next(workload, 0), ask_next(workload, 0), ask_next(workload, 1)
    complete.latency_ms = 12
    workload.end(complete, complete=True)
    workload.end(failed, complete=False)
    summary = summarise(workload.jobs, nodes=2, duplicates=0, wall_s=2.0)
    assert (summary.complete, summary.failed, summary.lost) == (1, 1, 2)
    assert (summary.tasks_per_s, summary.p50_ms, summary.nothing_lost) == (0.5, 12.0, False)


def test_a_demo_in_which_nothing_ended_has_no_latency() -> None:
    """Null, rather than a figure that nobody measured."""
    summary = summarise(Workload(2, 1).jobs, nodes=2, duplicates=0, wall_s=0.0)
    assert (summary.tasks_per_s, summary.p50_ms, summary.p99_ms) == (0.0, None, None)


@pytest.mark.parametrize("duplicates", [0, 1])
def test_a_result_that_was_recorded_twice_spoils_a_demo(duplicates: int) -> None:
    """Exactly once recorded is part of the promise."""
    workload = Workload(1, 1)
    workload.end(ask_next(workload, 0), complete=True)
    summary = summarise(workload.jobs, nodes=1, duplicates=duplicates, wall_s=1.0)
    assert summary.nothing_lost is not bool(duplicates)


def test_both_halves_of_a_task_are_no_duplicate() -> None:
    """The requester and the worker each record the result; one of them twice would be wrong."""
    recorded, task_id = Recorded(), new_task_id()
    recorded.add(0, task_id)
    recorded.add(1, task_id)
    assert recorded.duplicates == 0
    recorded.add(1, task_id)
    assert recorded.duplicates == 1


def test_the_rate_is_that_of_the_last_second() -> None:
    """What was long ago is forgotten."""
    rate = Rate()
    for now in (0.0, 0.5, 1.2):
        rate.add(now)
    assert rate.per_second(1.3) == 2
    assert rate.per_second(9.0) == 0


def test_a_census_counts_by_node_and_by_holder() -> None:
    """What a row of the picture needs."""
    workload = Workload(2, 4)
    one, other = ask_next(workload, 0), ask_next(workload, 1)
    one.holder, one.state = "b", JobState.EXECUTING
    other.holder = "a"
    workload.end(other, complete=True)
    census = Census(workload.jobs)
    assert (census.asked, census.ended.total()) == ({0: 2, 1: 2}, 1)
    assert (census.held_by("b", JobState.EXECUTING), census.held_by("a", JobState.COMPLETE)) == (1, 1)
    assert census.states[JobState.WAITING] == 2


def test_a_percentile_is_one_of_the_values() -> None:
    """Of a hundred values the 99th percentile is the last but none."""
    values = [float(value) for value in range(100)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([], 0.5)) == (50.0, 99.0, None)
