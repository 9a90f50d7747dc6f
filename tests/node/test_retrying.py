"""Programs that have a task done again."""

# covers COORD-29

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.app import Node, open_node
from node.retrying import submit_again
from node.testing import HeldStore, Raise, ScriptedExecutor
from protocol import (
    ErrorCode,
    PeertaskError,
    RetryPolicy,
    TaskFailed,
    TaskNotFound,
    TaskRecord,
    TaskStatus,
    new_task_id,
)

# Bounds every test; nothing here waits.
TEST_S = 60.0


@asynccontextmanager
async def flaky_node() -> AsyncIterator[Node]:
    """A node whose function ``flaky`` fails the first time."""
    calls: list[str] = []
    with trio.fail_after(TEST_S):
        async with open_node() as node:

            @node.task("flaky")
            async def flaky(prompt: str) -> str:
                calls.append(prompt)
                if len(calls) == 1:
                    raise ValueError("not today")
                return "done"

            yield node


async def test_a_program_retries_what_failed() -> None:
    """The new task has its own id and outcome; the old one stays failed, and is retried once."""
    async with flaky_node() as node:
        with pytest.raises(TaskFailed, match="not today"):
            await node.submit("a prompt", kind="flaky")
        (first,) = node.list_tasks()
        again = await node.retry(first.id)
        assert (await node.result(again)).result == "done"
        assert node.get_task(again).task.metadata == {"retry_of": first.id}
        assert node.get_task(first.id).status is TaskStatus.FAILED
        with pytest.raises(PeertaskError, match=again) as caught:
            await node.retry(first.id)
        assert caught.value.code is ErrorCode.CONFLICT
        with pytest.raises(TaskNotFound):
            await node.retry(new_task_id())


async def test_a_task_is_retried_once_however_soon_it_is_asked_for_again() -> None:
    """Also while the first retry is still being saved."""
    store = HeldStore()
    with trio.fail_after(TEST_S):
        async with open_node(executors=[ScriptedExecutor().on("x", Raise(OSError("no")))], store=store) as node:
            first = await node.enqueue("x", kind="scripted", retry={"attempts": 1})
            await node.manager.wait(first)
            store.hold()
            (again,) = submit_again(node.manager, [first], own_id=node.peer_id, now=1)
            (refused,) = submit_again(node.manager, [first], own_id=node.peer_id, now=1)
            assert isinstance(again, TaskRecord)
            assert isinstance(refused, PeertaskError)
            assert refused.code is ErrorCode.CONFLICT
            assert again.id in str(refused)


async def test_a_policy_that_names_codes_tries_what_would_have_failed() -> None:
    """An exception of a function says of itself that it is not worth another attempt; the requester may know better."""
    policy = RetryPolicy(backoff_ms=0, retry_on=(ErrorCode.EXECUTION_FAILED,))
    async with flaky_node() as node:
        result = await node.submit("a prompt", kind="flaky", retry=policy)
        assert (result.result, node.get_task(result.task_id).failures) == ("done", 1)


async def test_a_graph_that_failed_is_retried_in_the_order_of_its_dependencies() -> None:
    """Whatever the order of asking: each copy depends on the copies of the others, and all complete."""
    async with flaky_node() as node:
        ids = await node.submit_graph(
            {
                "first": {"prompt": "1", "kind": "flaky"},
                "second": {"prompt": "2", "kind": "echo", "depends_on": ["first"]},
                "third": {"prompt": "3", "kind": "echo", "depends_on": ["second", "first"]},
            }
        )
        for task_id in ids.values():
            await node.manager.wait(task_id)
        asked = [ids["third"], ids["second"], ids["first"]]
        copies = list(submit_again(node.manager, asked, own_id=node.peer_id, now=1))
        records = [copy for copy in copies if isinstance(copy, TaskRecord)]
        assert [record.task.prompt for record in records] == ["3", "2", "1"]
        assert records[0].task.depends_on == (records[1].id, records[2].id)
        assert [(await node.result(record.id)).result for record in records] == ["3", "2", "done"]
