"""Conversations in a Redis server that nodes and programs share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from node.stores.redis import Message, RedisSessions, RedisStore, State, TaskContext, completed, open_sessions
from node.testing import TEST_PEER, make_task
from protocol import ErrorCode, PeertaskError, new_task_id
from tests.doc_examples import ROOT
from tests.node.stores.histories import Commits, life, loaded
from tests.node.stores.redis_server import RedisServer, every_test_needs_redis, open_server

pytestmark = every_test_needs_redis

NOW_MS = 1_767_225_600_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own."""
    async with open_server(tmp_path) as running:
        yield running


@pytest.fixture
async def sessions(server: RedisServer) -> AsyncIterator[RedisSessions]:
    """The conversations in it."""
    async with open_sessions(server.settings(instance_name="lucia:")) as opened:
        yield opened


async def test_an_unknown_task_is_none(sessions: RedisSessions) -> None:
    """No exception: whoever asks decides what to do."""
    # covers REDIS-6, REDIS-8
    assert await sessions.get_task(new_task_id()) is None


async def test_a_context_is_made_once_and_found_again(server: RedisServer, sessions: RedisSessions) -> None:
    """A new one is in progress, with its history and metadata; the next call gets the same."""
    # covers REDIS-2, REDIS-9, REDIS-10
    task_id = new_task_id()
    history = (Message.of("user", "turn the light on", "m-1"),)
    made = await sessions.get_or_create_task(
        "talk", task_id, workflow_id="w-1", user_id="u-1", history=history, metadata={"room": "hall"}
    )
    assert made == await sessions.get_or_create_task("talk", task_id, workflow_id="w-2", user_id="u-2")
    assert made == await sessions.get_task(task_id)
    assert (made.id, made.session_id, made.status.state) == (task_id, "talk", State.IN_PROGRESS)
    assert (made.history, made.artifacts) == (history, ())
    assert made.metadata == {"room": "hall", "workflowId": "w-1", "userId": "u-1"}
    async with server.client() as client:
        value = await client.command("get", f"lucia:task:{task_id}")
        assert 86_340 <= await client.command("ttl", f"lucia:task:{task_id}") <= 86_400
    schema = json.loads((ROOT / "docs" / "reference" / "task-context.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(json.loads(value))


async def test_two_nodes_that_create_at_once_get_the_same_context(server: RedisServer) -> None:
    """A conversation that moves between nodes has one context, whoever comes first."""
    # covers REDIS-9
    task_id, seen = new_task_id(), list[TaskContext]()

    async def create(workflow_id: str) -> None:
        async with open_sessions(server.settings()) as sessions:
            seen.append(await sessions.get_or_create_task("talk", task_id, workflow_id=workflow_id, user_id="u"))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(create, f"w-{number}")
    assert len(seen) == 8
    assert all(context == seen[0] for context in seen)


async def test_a_workflow_ends_with_an_update(server: RedisServer, sessions: RedisSessions) -> None:
    """Completed with its time; the time to live begins anew, and others see it."""
    # covers REDIS-11
    made = await sessions.get_or_create_task("talk", workflow_id="w", user_id="u")
    async with server.client() as client:
        await client.command("expire", f"lucia:task:{made.id}", 100)
        await sessions.update_task(completed(made, NOW_MS))
        assert await client.command("ttl", f"lucia:task:{made.id}") > 86_000
    found = await sessions.get_task(made.id)
    assert found is not None
    assert found.status.state is State.COMPLETED
    assert found.status.completed_at == "2026-01-01T00:00:00.000Z"
    assert found.metadata == made.metadata


async def test_the_newest_context_of_a_conversation_is_gone_on_with(sessions: RedisSessions) -> None:
    """Without an id the conversation decides; those whose time is over are left out."""
    # covers REDIS-1, REDIS-7
    first = await sessions.get_or_create_task("talk", workflow_id="w-1", user_id="u")
    assert await sessions.get_or_create_task("talk", workflow_id="w-2", user_id="u") == first
    await trio.sleep(0.002)  # the server orders them by its milliseconds
    second = await sessions.get_or_create_task("talk", new_task_id(), workflow_id="w-3", user_id="u")
    assert await sessions.tasks_of_session("talk") == [first, second]
    assert await sessions.get_or_create_task("talk", workflow_id="w-4", user_id="u") == second
    assert await sessions.tasks_of_session("another") == []
    assert await sessions.delete_task(second.id)
    assert not await sessions.delete_task(second.id)
    assert await sessions.tasks_of_session("talk") == [first]


async def test_the_tasks_of_all_nodes_are_in_their_conversation(server: RedisServer) -> None:
    """Context across sessions and nodes: what a node does for a conversation is found by it."""
    # covers REDIS-1, REDIS-19
    history = life(make_task("what is two and two?", session_id="talk"))
    store = RedisStore(server.settings(), owner=TEST_PEER)
    async with store.running(Commits()):
        store.append(history)
    async with open_sessions(server.settings()) as sessions:
        (context,) = await sessions.tasks_of_session("talk")
    assert context.kept_by == TEST_PEER
    assert context.status.state is State.COMPLETED
    assert [message.parts[0].text for message in context.history] == ["what is two and two?", "done"]


async def test_a_task_that_a_node_keeps_is_the_nodes(server: RedisServer) -> None:
    """A program that writes it would undo what the node knows; it is told whose the task is."""
    history = life()
    store = RedisStore(server.settings(), owner=TEST_PEER)
    async with store.running(Commits()):
        store.append(history)
    task_id = history[0].record.id
    async with open_sessions(server.settings()) as sessions:
        context = await sessions.get_task(task_id)
        assert context is not None
        forged = context.model_copy(update={"metadata": {}})
        for operation in (sessions.update_task, sessions.update_task, sessions.delete_task):
            given = task_id if operation == sessions.delete_task else forged
            with pytest.raises(PeertaskError, match=f"the node {TEST_PEER} keeps task {task_id}") as refused:
                await operation(given)  # type: ignore[arg-type]
            assert refused.value.code is ErrorCode.CONFLICT
    assert await loaded(RedisStore(server.settings(), owner=TEST_PEER)) == [history[-1].record]


async def test_a_key_of_another_program_is_an_error_that_names_it(server: RedisServer) -> None:
    """It is not overwritten by reading, and the message says which key."""
    async with server.client() as client:
        await client.command("set", "lucia:task:x", b"hello")
    async with open_sessions(server.settings(instance_name="lucia:")) as sessions:
        with pytest.raises(PeertaskError, match="the key lucia:task:x holds no task context") as refused:
            await sessions.get_task("x")
    assert refused.value.code is ErrorCode.STORE_FAILED


async def test_every_operation_can_be_cancelled(server: RedisServer, sessions: RedisSessions) -> None:
    """Each is a checkpoint, so that a deadline of the caller holds."""
    # covers REDIS-12
    made = await sessions.get_or_create_task("talk", workflow_id="w", user_id="u")
    for operation in (
        lambda: sessions.get_task(made.id),
        lambda: sessions.get_or_create_task("talk", workflow_id="w", user_id="u"),
        lambda: sessions.update_task(made),
        lambda: sessions.delete_task(made.id),
        lambda: sessions.tasks_of_session("talk"),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await operation()
            pytest.fail("it was not cancelled")
        assert scope.cancelled_caught
    assert await sessions.get_task(made.id) == made
