"""A Redis server that is away, dies, hangs, or is none: nothing is lost, and the error says what is wrong."""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from node.stores.redis import RedisSettings, RedisStore, open_sessions
from node.stores.redis import store as store_module
from node.stores.redis.connection import RedisFailure
from node.stores.redis.outage import LONGEST_PAUSE_S, Outage
from node.testing import TEST_PEER
from protocol import ErrorCode, PeertaskError
from tests.node.stores.histories import Commits, life, loaded, submitted
from tests.node.stores.redis_doubles import (
    Answer,
    answer_drops,
    answer_end,
    answer_html,
    answer_nonsense,
    answer_nothing,
    answer_old,
    fake_server,
    losing_proxy,
)
from tests.node.stores.redis_server import RedisServer, free_port, needs_redis, open_server

# Long for a machine that others use, and short for a test that waits for it to pass.
SHORT_MS = 300


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own."""
    async with open_server(tmp_path) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.01)


async def failure_of(store: RedisStore) -> PeertaskError:
    """Wait until a store says that it cannot save, and return why."""
    await until(lambda: store.failure is not None)
    failure = store.failure
    assert failure is not None
    return failure


# --- servers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answer_html, "not a Redis server"),
        (answer_nonsense, "not a Redis server"),
        (answer_old, "not a Redis server of version 6 or newer"),
        (answer_drops, "not a Redis server|did not answer within 300 ms"),
        (answer_nothing, "did not answer within 300 ms"),
        (answer_end, "no connection"),
    ],
)
async def test_what_is_no_server_is_an_error_in_words(answer: Answer, why: str) -> None:
    """Garbage, slow or never: the error names the address, the reason and the remedy, in bounded time."""
    # covers REDIS-17
    async with fake_server(answer) as port:
        settings = RedisSettings(
            connection_string=f"redis://me:s3cret@127.0.0.1:{port}/0",
            connect_timeout_ms=SHORT_MS,
            connect_retry_count=1,
        )
        with trio.fail_after(20), capture_logs() as logs, pytest.raises(PeertaskError, match=why) as refused:
            async with RedisStore(settings, owner=TEST_PEER).running(Commits()):
                pytest.fail("the store is open")
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert f"redis://127.0.0.1:{port}/0" in refused.value.message
    assert refused.value.remedy
    assert "s3cret" not in f"{refused.value!r} {refused.value} {logs}"
    assert len(logs) == 1


async def test_a_server_that_is_away_is_tried_as_often_as_the_settings_say() -> None:
    """One try and so many more, with growing pauses; then the node does not start, and says why."""
    # covers REDIS-16, REDIS-31
    connections = 0

    async def refuse(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.aclose()

    async with fake_server(refuse) as port:
        settings = RedisSettings(connection_string=f"127.0.0.1:{port}", connect_retry_count=3)
        with pytest.raises(PeertaskError, match="no connection"):
            async with RedisStore(settings, owner=TEST_PEER).running(Commits()):
                pytest.fail("the store is open")
    assert connections == 4


async def test_nobody_listens() -> None:
    """The commonest mistake says what to do."""
    port = free_port()
    settings = RedisSettings(connection_string=f"localhost:{port}", connect_retry_count=0)
    with pytest.raises(PeertaskError, match="no connection") as refused:
        await loaded(RedisStore(settings, owner=TEST_PEER))
    assert f"redis://localhost:{port}/0" in refused.value.message
    assert refused.value.remedy == "Start the server, or check host and port in connection_string"


@needs_redis
async def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path) -> None:
    """The remedy says where it belongs; neither the error nor the log holds it."""
    async with open_server(tmp_path, "--requirepass", "right") as server:
        for text in (f"127.0.0.1:{server.port}", f"redis://:wr0ng@127.0.0.1:{server.port}"):
            settings = server.settings(connection_string=text, connect_retry_count=0)
            with (
                capture_logs() as logs,
                pytest.raises(PeertaskError, match="refuses the user or the password") as refused,
            ):
                async with RedisStore(settings, owner=TEST_PEER).running(Commits()):
                    pytest.fail("the store is open")
            assert "connection_string" in refused.value.remedy
            assert "wr0ng" not in f"{refused.value!r} {refused.value} {logs}"
        settings = server.settings(connection_string=f"redis://:right@127.0.0.1:{server.port}/1")
        async with RedisStore(settings, owner=TEST_PEER).running(Commits()):
            pass


@needs_redis
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on the PATH, to make a certificate")
async def test_an_encrypted_connection_needs_a_certificate_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS the server must be who it should be; the error says where to look."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    await trio.run_process([*make, *files], capture_stderr=True)
    paths = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    async with open_server(tmp_path, "--tls-port", str(port), "--tls-auth-clients", "no", *paths):

        async def look(host: str) -> None:
            async with open_sessions(RedisSettings(connection_string=f"rediss://{host}:{port}")) as sessions:
                assert await sessions.get_task("x") is None

        with pytest.raises(PeertaskError, match=f"rediss://localhost:{port}/0: no encrypted connection") as refused:
            await look("localhost")
        assert "SSL_CERT_FILE" in refused.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        await look("localhost")
        with pytest.raises(PeertaskError, match="no encrypted connection"):
            await look("127.0.0.1")


# --- a server that dies -----------------------------------------------------------------------------------------------


@needs_redis
async def test_what_was_committed_and_what_was_not_survive_the_death_of_the_server(server: RedisServer) -> None:
    """Killed and started again, over and over under load: everything appended is committed once, in order, and kept."""
    # covers REDIS-31
    store = RedisStore(server.settings(connect_timeout_ms=20_000), owner=TEST_PEER)
    histories = [life() for _ in range(400)]
    committed = Commits()
    async with store.running(committed), trio.open_nursery() as nursery:

        async def append_all() -> None:
            for number, history in enumerate(histories):
                store.append(history[:2])
                store.append(history[2:])
                if number % 8 == 0:
                    await trio.sleep(0.002)

        nursery.start_soon(append_all)
        for _ in range(4):
            seen = len(committed.changes)
            await committed.reach(min(seen + 50, 1_600))
            server.kill()
            await server.start()
        await committed.reach(1_600)
    assert committed.changes == [change for history in histories for change in history]
    kept = {record.id: record for record in await loaded(RedisStore(server.settings(), owner=TEST_PEER))}
    assert kept == {history[-1].record.id: history[-1].record for history in histories}


@needs_redis
@pytest.mark.parametrize("later", [0, 2])
async def test_a_change_whose_answer_is_lost_is_saved_once(server: RedisServer, later: int) -> None:
    """The server has saved it and the node cannot know: it asks again, and facts do not come twice."""
    # covers REDIS-31
    history = life()
    async with losing_proxy(server.port) as proxy:
        store = RedisStore(server.settings(connection_string=f"127.0.0.1:{proxy.port}"), owner=TEST_PEER)
        async with store.running(committed := Commits()):
            store.append(history[:1])
            await committed.reach(1)
            proxy.lose_next_answer = True
            store.append(history[1:2])
            await until(lambda: not proxy.lose_next_answer)
            if later:
                store.append(history[2:])
            await committed.reach(2 + later)
        facts = [fact async for fact in store.facts(history[0].record.id)]
    assert committed.changes == history[: 2 + later]
    assert facts == [change.fact for change in history[: 2 + later]]


@needs_redis
async def test_while_the_server_is_away_the_node_knows_and_nothing_is_lost(server: RedisServer) -> None:
    """It says so once in the log, holds everything in line, refuses to read, and goes on when the server is back."""
    # covers REDIS-16, REDIS-31
    store, history = RedisStore(server.settings(connect_retry_count=1), owner=TEST_PEER), life()
    with capture_logs() as logs:
        async with store.running(committed := Commits()):
            store.append(history[:1])
            await committed.reach(1)
            assert store.failure is None
            server.kill()
            store.append(history[1:])
            failure = await failure_of(store)
            assert failure.code is ErrorCode.STORE_FAILED
            assert str(server.port) in failure.message
            assert failure.remedy
            with pytest.raises(PeertaskError, match="no connection"):
                await loaded(store)
            assert committed.changes == history[:1]
            await server.start()
            await committed.reach(len(history))
            await until(lambda: store.failure is None)
    assert committed.changes == history
    assert [entry["event"] for entry in logs] == ["nothing can be saved", "changes are saved again"]


@needs_redis
async def test_a_server_that_hangs_is_noticed_and_gone_on_with(server: RedisServer) -> None:
    """What was under way when it froze is neither lost nor done twice; operations of programs end in time."""
    # covers REDIS-12, REDIS-17
    settings = server.settings(connect_timeout_ms=SHORT_MS)
    store, history = RedisStore(settings, owner=TEST_PEER), life()
    async with store.running(committed := Commits()), open_sessions(settings) as sessions:
        store.append(history[:1])
        await committed.reach(1)
        server.send(signal.SIGSTOP)
        store.append(history[1:])
        assert "did not answer within 300 ms" in str(await failure_of(store))
        with pytest.raises(PeertaskError, match="did not answer"):
            await sessions.get_task("any")
        with trio.move_on_after(0.05) as scope:
            await sessions.get_task("any")
        assert scope.cancelled_caught
        server.send(signal.SIGCONT)
        await committed.reach(len(history))
        assert await loaded(store) == [history[-1].record]
    assert committed.changes == history


@needs_redis
async def test_a_server_that_has_lost_its_data_gets_what_comes_next(tmp_path: Path) -> None:
    """Without its own persistence it forgets; the node goes on, and its facts begin where they are known."""
    async with open_server(tmp_path, "--appendonly", "no") as server:
        store, history = RedisStore(server.settings(), owner=TEST_PEER), life()
        async with store.running(committed := Commits()):
            store.append(history[:2])
            await committed.reach(2)
            async with server.client() as client:
                await client.command("flushall")
            store.append(history[2:3])
            await committed.reach(3)
            assert await loaded(store) == [history[2].record]
            assert [fact async for fact in store.facts(history[0].record.id)] == [history[2].fact]


@needs_redis
async def test_a_full_server_says_so(tmp_path: Path) -> None:
    """Its own words are in the error, and when there is room again everything is saved."""
    async with open_server(tmp_path, "--maxmemory-policy", "noeviction") as server:
        store, change = RedisStore(server.settings(connect_retry_count=0), owner=TEST_PEER), submitted()
        async with store.running(committed := Commits()), server.client() as client:
            await client.command("config_set", {"maxmemory": "1kb"})
            store.append((change,))
            assert "maxmemory" in str(await failure_of(store))
            await client.command("config_set", {"maxmemory": "0"})
            await committed.reach(1)


@needs_redis
async def test_leaving_while_the_server_is_away_ends_and_says_what_is_not_saved(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that stops does not wait for ever."""
    monkeypatch.setattr(store_module, "LEAVE_LIMIT_S", 0.2)
    store = RedisStore(server.settings(connect_retry_count=0), owner=TEST_PEER)
    with capture_logs() as logs, trio.fail_after(30):
        async with store.running(Commits()):
            server.kill()
            store.append((submitted(),))
    assert logs[-1]["event"] == "changes are not saved"
    assert logs[-1]["changes"] == 1
    assert store.failure is not None


@needs_redis
async def test_leaving_waits_for_what_is_in_line(server: RedisServer) -> None:
    """What was appended just before the end is saved."""
    histories = [life() for _ in range(300)]
    async with RedisStore(server.settings(), owner=TEST_PEER).running(committed := Commits()):
        pass
    store = RedisStore(server.settings(), owner=TEST_PEER)
    async with store.running(committed):
        for history in histories:
            store.append(history)
    assert committed.changes == [change for history in histories for change in history]


# --- when a server counts as away -------------------------------------------------------------------------------------


def test_pauses_grow_and_are_bounded() -> None:
    """A server that is restarted is found at once, and one that is away is not bothered."""
    # covers REDIS-31
    outage = Outage(retries=3, patience_s=5.0)
    pauses = []
    for _ in range(20):
        outage.begin(0.0)
        outage.fail(RedisFailure("away"), 0.0)
        pauses.append(outage.pause_s)
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert pauses[-1] == LONGEST_PAUSE_S
    outage.end()
    assert outage.pause_s == pauses[0]


def test_a_server_counts_as_away_after_so_many_tries_or_so_much_time() -> None:
    """A blink is no failure; a hang is one when it has lasted."""
    # covers REDIS-16, REDIS-17
    away = RedisFailure("away")

    def failure_after(*tries: tuple[float, float]) -> PeertaskError | None:
        outage = Outage(retries=1, patience_s=5.0)
        for began, failed in tries:
            outage.begin(began)
            outage.fail(away, failed)
        return outage.failure

    assert failure_after((10.0, 10.0)) is None
    assert failure_after((10.0, 10.0), (10.1, 10.1)) is away
    assert failure_after((10.0, 15.0)) is away


def test_what_is_over_for_good_is_a_failure_at_once() -> None:
    """No further try would change anything."""
    outage = Outage(retries=100, patience_s=100.0)
    outage.begin(0.0)
    outage.fail(RedisFailure("fenced"), 0.0, for_good=True)
    assert outage.failure is not None
    outage.end()
    assert outage.failure is None
