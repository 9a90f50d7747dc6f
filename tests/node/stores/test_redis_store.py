"""The store in a Redis server: the contract, the keys, and several nodes on one server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from node.interfaces import Change, Store
from node.stores.redis import RedisStore, context_of, open_sessions
from node.stores.redis.store import MAX_FACTS_PER_TASK, FencedError
from node.testing import TEST_PEER, check_store, make_task
from protocol import ErrorCode, PeerId, PeertaskError, TaskId
from tests.node.stores.histories import Commits, continued, facts_of, life, loaded, submitted
from tests.node.stores.redis_server import RedisServer, every_test_needs_redis, open_server

pytestmark = every_test_needs_redis

OTHER_PEER = PeerId("12D3KooWOther")
DAY_S = 86_400
WRITER = f"peertask:node:{TEST_PEER}:writer"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own."""
    async with open_server(tmp_path) as running:
        yield running


def store_of(server: RedisServer, owner: PeerId = TEST_PEER, **settings: object) -> RedisStore:
    """Return a store of a node in a server."""
    return RedisStore(server.settings(**settings), owner=owner)


async def save(store: Store, *changes: Change) -> None:
    """Open a store, let it save changes one by one, and close it."""
    async with store.running(Commits()):
        for change in changes:
            store.append((change,))


async def value_of(server: RedisServer, key: str) -> bytes | None:
    """Return what stands under a key."""
    async with server.client() as client:
        value: bytes | None = await client.command("get", key)
        return value


async def keys_of(server: RedisServer) -> set[str]:
    """Return all keys."""
    async with server.client() as client:
        return {key.decode() for key in await client.command("keys", "*")}


async def test_it_keeps_the_contract_of_stores(server: RedisServer) -> None:
    """The Redis store passes the checker, and another one in its place finds what it has kept."""
    # covers REDIS-1, REDIS-28
    number = 0

    def fresh() -> Store:
        nonlocal number
        number += 1
        return store_of(server, instance_name=f"test{number}:")

    await check_store(fresh, lambda _store: store_of(server, instance_name=f"test{number}:"))


async def test_the_key_of_a_task_is_the_instance_and_its_id(server: RedisServer) -> None:
    """Whoever knows the id finds the task, as the codec makes it; the name of the instance is the operator's."""
    # covers REDIS-2, REDIS-4, REDIS-5
    history = life()
    await save(store_of(server, instance_name="lucia:"), *history)
    record = history[-1].record
    assert await value_of(server, f"lucia:task:{record.id}") == context_of(record, TEST_PEER).to_json()
    await save(store_of(server), *life(task := make_task()))
    assert await value_of(server, f"peertask:task:{task.id}") is not None


async def test_every_key_has_a_time_to_live_from_each_save_on(server: RedisServer) -> None:
    """Nothing that a node writes stays for ever, and a day begins anew with each change."""
    # covers REDIS-3
    first, *others = life(make_task(session_id="talk"))
    store = store_of(server)
    async with server.client() as client, store.running(commits := Commits()):
        store.append((first,))
        await commits.reach(1)
        key = f"peertask:task:{first.record.id}"
        for name in await keys_of(server):
            assert DAY_S - 60 <= await client.command("ttl", name) <= DAY_S, name
        await client.command("expire", key, 100)
        store.append((others[0],))
        await commits.reach(2)
        assert await client.command("ttl", key) >= DAY_S - 60


async def test_the_value_and_its_time_to_live_come_in_one_command(server: RedisServer) -> None:
    """A crash between two commands would leave a value that stays for ever."""
    # covers REDIS-3, REDIS-5
    async with server.client() as client:
        await client.command("config_resetstat")
        await save(store_of(server), submitted())
        stats = await client.command("info", "commandstats")
    calls = {name.removeprefix("cmdstat_") for name in stats}
    assert "set" in calls
    assert "setex" not in calls
    aof = b"".join(path.read_bytes() for path in server.folder.rglob("*.aof"))
    value = aof.index(b'"sessionId"')
    assert b"PXAT" in aof[value : aof.index(b"*", aof.index(b"\r\n", value))]


async def test_a_task_is_gone_when_its_time_is_over(server: RedisServer) -> None:
    """The server drops it by itself; the node does not load it, and everything of it is gone."""
    # covers REDIS-30
    store = store_of(server, task_ttl_hours=1 / 3600)
    history = life()
    await save(store, *history)
    with trio.fail_after(30):
        while await value_of(server, f"peertask:task:{history[0].record.id}") is not None:
            await trio.sleep(0.02)
    assert await loaded(store) == []
    assert await facts_of(store, history[0].record.id) == []
    async with store.running(Commits()):
        assert await loaded(store) == []
        assert await keys_of(server) == {WRITER}


async def test_an_open_task_lives_for_as_long_as_its_node_runs(server: RedisServer) -> None:
    """A task that waits for longer than the time to live is not lost: the node renews it."""
    # covers REDIS-3
    store, change = store_of(server, task_ttl_hours=2 / 3600), submitted()
    key = f"peertask:task:{change.record.id}"
    async with server.client() as client, store.running(Commits()):
        store.append((change,))
        await loaded(store)
        left = await client.command("pttl", key)
        with trio.fail_after(30):
            while (now := await client.command("pttl", key)) <= left:
                assert now > 0
                left = now
                await trio.sleep(0.02)
        assert await loaded(store) == [change.record]


async def test_loading_what_is_not_there_gives_nothing(server: RedisServer) -> None:
    """An absent key is no error."""
    # covers REDIS-6
    store = store_of(server)
    assert await loaded(store) == []
    assert await facts_of(store, make_task().id) == []


async def test_a_forgotten_task_leaves_no_key(server: RedisServer) -> None:
    """What is dropped is dropped in the server."""
    # covers REDIS-7
    store, history = store_of(server), life()
    async with store.running(Commits()):
        for change in history:
            store.append((change,))
        store.forget([history[0].record.id])
        assert await loaded(store) == []
        assert await keys_of(server) == {WRITER}


async def test_facts_outlive_their_task_and_are_bounded(server: RedisServer) -> None:
    """A watcher of a finished task gets its facts; a task that reports without end keeps the newest."""
    store, short, long = store_of(server), life(), life(reports=2 * MAX_FACTS_PER_TASK)
    async with store.running(Commits()):
        for change in short:
            store.append((change,))
        store.append(long[:3])
        store.append(long[3:])
        assert await facts_of(store, short[0].record.id) == [change.fact for change in short]
        assert await facts_of(store, short[0].record.id, after_seq=2) == [change.fact for change in short[2:]]
        assert await facts_of(store, long[0].record.id) == [change.fact for change in long[-MAX_FACTS_PER_TASK:]]


async def test_a_task_and_its_result_stand_once_in_the_server(server: RedisServer) -> None:
    """The facts do not repeat what is large."""
    history = life(make_task("PROMPT " * 1_000))
    await save(store_of(server), *history)
    async with server.client() as client:
        facts = await client.command("lrange", f"peertask:node:{TEST_PEER}:facts:{history[0].record.id}", 0, -1)
    assert sum(map(len, facts)) < 1_000


# --- several nodes ----------------------------------------------------------------------------------------------------


async def test_two_nodes_keep_their_halves_of_one_task(server: RedisServer) -> None:
    """Requester and worker may share a server: each loads its own half, and the shared key stays the first one's."""
    # covers REDIS-2
    task = make_task()
    first, second = life(task), life(task)[:3]
    await save(store_of(server), *first)
    await save(store_of(server, OTHER_PEER), *second)
    assert await loaded(store_of(server)) == [first[-1].record]
    assert await loaded(store_of(server, OTHER_PEER)) == [second[-1].record]
    shared = await value_of(server, f"peertask:task:{task.id}")
    assert shared == context_of(first[-1].record, TEST_PEER).to_json()
    other = store_of(server, OTHER_PEER)
    async with other.running(Commits()):
        other.forget([task.id])
        assert await loaded(other) == []
    assert await loaded(store_of(server)) == [first[-1].record]
    assert await facts_of(store_of(server), task.id) == [change.fact for change in first]


async def test_a_node_sees_only_its_own_tasks(server: RedisServer) -> None:
    """Two nodes on one server do not take over each other's work."""
    ours, theirs = life(), life()
    await save(store_of(server), *ours)
    await save(store_of(server, OTHER_PEER), *theirs)
    assert await loaded(store_of(server)) == [ours[-1].record]
    assert await facts_of(store_of(server), theirs[0].record.id) == []


async def test_a_second_process_of_a_node_takes_over_and_the_first_is_told(server: RedisServer) -> None:
    """A process that was presumed dead cannot overwrite what has happened since, and says what is wrong."""
    old, new = store_of(server), store_of(server)
    history = life()
    async with old.running(commits := Commits()):
        old.append(history[:1])
        await commits.reach(1)
        async with new.running(Commits()):
            assert await loaded(new) == [history[0].record]
            with capture_logs() as logs:
                old.append(history[1:2])
                with pytest.raises(PeertaskError, match="another process writes for the node"):
                    await loaded(old)
            assert isinstance(old.failure, FencedError)
            assert old.failure.code is ErrorCode.STORE_FAILED
            assert [entry["event"] for entry in logs] == ["nothing can be saved"]
            new.append(history[1:3])
            assert await loaded(new) == [history[2].record]
    assert commits.changes == history[:1]
    assert await loaded(store_of(server)) == [history[2].record]


async def test_the_server_refuses_a_fact_that_does_not_follow(server: RedisServer) -> None:
    """Two writers that both believe to be alone cannot overwrite each other's later facts: the first one's stay."""
    history = life()
    first, second = store_of(server), store_of(server)
    facts = f"peertask:node:{TEST_PEER}:facts:{history[0].record.id}"
    async with first.running(commits := Commits()), server.client() as client:
        first.append(history[:1])
        await commits.reach(1)
        async with second.running(Commits()):
            await client.command("delete", [WRITER])  # as if the claim had been lost: both write now
            first.append(history[1:3])
            await commits.reach(3)
            await client.command("delete", [WRITER])
            second.append(history[1:2])
            with pytest.raises(PeertaskError, match="holds fact number 3") as refused:
                await loaded(second)
            assert facts in str(refused.value)
            assert await loaded(store_of(server)) == [history[2].record]
            await client.command("delete", [facts])  # a person decides for the second one, and it goes on by itself
            await recovery_of(second)
    assert await loaded(store_of(server)) == [history[1].record]


async def recovery_of(store: RedisStore) -> None:
    """Wait until a store that could not save has saved what it had in line."""
    with trio.fail_after(30):
        while store.failure is not None:
            await trio.sleep(0.02)


async def test_a_store_is_not_opened_twice_and_not_used_closed(server: RedisServer) -> None:
    """What would be told to nobody is not taken in."""
    store = store_of(server)
    with pytest.raises(PeertaskError, match="not open") as refused:
        store.append((submitted(),))
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert repr(store) == f"<RedisStore redis://127.0.0.1:{server.port}/0 waiting=0>"
    async with store.running(Commits()):
        with pytest.raises(PeertaskError, match="open already"):
            async with store.running(Commits()):
                pytest.fail("a second node runs on the store")


# --- what is not as it should be --------------------------------------------------------------------------------------


async def test_a_value_that_cannot_be_read_is_set_aside_and_the_others_are_loaded(server: RedisServer) -> None:
    """A person finds it under a key that the log names; the task may come again, and nothing else is lost."""
    good, bad = life(), life()
    await save(store_of(server), *good, *bad)
    task_id = bad[0].record.id
    async with server.client() as client:
        await client.command("set", f"peertask:task:{task_id}", b'{"id": "half')
    store, aside = store_of(server), f"peertask:node:{TEST_PEER}:unreadable:{task_id}"
    async with store.running(Commits()):
        with capture_logs() as logs:
            assert await loaded(store) == [good[-1].record]
        assert logs[0]["log_level"] == "error"
        assert logs[0]["key"] == f"peertask:task:{task_id}"
        assert aside in logs[0]["remedy"]
        assert await value_of(server, aside) == b'{"id": "half'
        store.append(bad)
        assert len(await loaded(store)) == 2


async def test_facts_that_cannot_be_read_are_an_error_that_names_the_key(server: RedisServer) -> None:
    """The node goes on; whoever asked for them is told."""
    history = life()
    await save(store_of(server), *history)
    key = f"peertask:node:{TEST_PEER}:facts:{history[0].record.id}"
    async with server.client() as client:
        await client.command("rpush", key, [b'{"seq":9,"fact":"Baked"}'])
    with pytest.raises(PeertaskError, match=key) as refused:
        await facts_of(store_of(server), history[0].record.id)
    assert refused.value.code is ErrorCode.STORE_FAILED


async def test_a_value_that_was_deleted_by_hand_is_forgotten(server: RedisServer) -> None:
    """Deleting the key of a task is the way to clean up, and leaves nothing that stands in the way."""
    # covers REDIS-7
    history = life()
    await save(store_of(server), *history)
    async with server.client() as client:
        await client.command("delete", [f"peertask:task:{history[0].record.id}"])
    store = store_of(server)
    async with store.running(Commits()):
        assert await loaded(store) == []
        store.append(history)
        assert await loaded(store) == [history[-1].record]


async def test_a_node_and_a_program_may_use_the_same_id(server: RedisServer) -> None:
    """A context of a program stays where it is; the node keeps its record beside it."""
    task = make_task()
    async with open_sessions(server.settings()) as sessions:
        theirs = await sessions.get_or_create_task("talk", task.id, workflow_id="w", user_id="u")
        await save(store_of(server), *life(task))
        assert await sessions.get_task(task.id) == theirs
    assert [record.id for record in await loaded(store_of(server))] == [TaskId(task.id)]


def test_without_the_extra_the_error_says_what_to_install() -> None:
    """The base of peertask comes without the client; importing the store is fine, opening it tells."""
    program = """
import sys
sys.modules["coredis"] = None
import trio
from node.stores.redis import RedisSettings, RedisStore
from protocol import PeertaskError

async def main():
    try:
        async with RedisStore(RedisSettings(), owner="peer").running(print):
            print("open")
    except PeertaskError as error:
        print(error.code, error)

trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("INVALID_CONFIG the Redis store needs the package coredis")
    assert "pip install 'peertask[redis]'" in done.stdout


async def test_a_large_task_is_saved_and_loaded(server: RedisServer) -> None:
    """The largest prompt that a node takes fits into a value; small ones behind it follow."""
    large, small = life(make_task("x" * 2**24)), life()
    store = store_of(server)
    async with store.running(Commits()):
        store.append(large)
        store.append(small)
        assert {record.id for record in await loaded(store)} == {large[0].record.id, small[0].record.id}
        assert len((await facts_of(store, large[0].record.id))[0].task.prompt) == 2**24  # type: ignore[union-attr]


async def test_the_value_is_json(server: RedisServer) -> None:
    """Any language reads it."""
    # covers REDIS-4
    change = submitted(make_task("“ünïcode” \U0001f9ea"))
    await save(store_of(server), change)
    value = json.loads(await value_of(server, f"peertask:task:{change.record.id}") or b"")
    assert value["history"][0]["parts"][0]["text"] == "“ünïcode” \U0001f9ea"


async def test_continued_lives_are_loaded_by_the_next_process(server: RedisServer) -> None:
    """What a node left half done is there when it starts again, and goes on with the next number."""
    # covers REDIS-1
    history = life()
    await save(store_of(server), *history[:2])
    store = store_of(server)
    async with store.running(commits := Commits()):
        with pytest.raises(PeertaskError) as refused:
            store.append(history[:1])
        assert refused.value.code is ErrorCode.CONFLICT
        assert await loaded(store) == [history[1].record]
        store.append(continued(history[1], history[2].fact))  # type: ignore[arg-type]
        await commits.reach(1)
    assert await loaded(store_of(server)) == [history[2].record]
