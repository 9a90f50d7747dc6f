"""Programs that have a task done again."""

# covers COORD-29

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.app import Node, open_node
from protocol import ErrorCode, PeertaskError, RetryPolicy, TaskFailed, TaskNotFound, TaskStatus, new_task_id

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


async def test_a_policy_that_names_codes_tries_what_would_have_failed() -> None:
    """An exception of a function says of itself that it is not worth another attempt; the requester may know better."""
    policy = RetryPolicy(backoff_ms=0, retry_on=(ErrorCode.EXECUTION_FAILED,))
    async with flaky_node() as node:
        result = await node.submit("a prompt", kind="flaky", retry=policy)
        assert (result.result, node.get_task(result.task_id).failures) == ("done", 1)
