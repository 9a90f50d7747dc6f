"""The client of a node in a data folder, over a real socket and a real manager."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.gateways.http.client import ControlClient, Patience, WatchItem
from node.gateways.http.exchange import NoAnswerError, open_exchange
from node.gateways.http.folder import SOCKET_FILE
from node.gateways.http.limits import MAX_BATCH
from node.gateways.http.node_control import Health
from node.gateways.http.response_models import EventView, LaggedView, TaskSummary, TaskView
from protocol import ErrorCode, InvalidTask, PeertaskError, new_task_id
from tests.node.gateways.http_node import OWN_ID, PEER_ADDRESS, PEER_ID, TEST_S, serving


async def test_a_task_goes_all_the_way(tmp_path: Path) -> None:
    """Submitting, looking, waiting and listing agree about one task."""
    async with serving(tmp_path) as served, trio.open_nursery() as nursery:
        control = ControlClient(tmp_path)
        task = await control.submit("hello", kind="echo", priority=7, timeout_s=60)
        assert (task.status, task.priority, task.requester) == ("pending", 7, OWN_ID)

        async def work() -> None:
            await wait_all_tasks_blocked(0.01)
            served.start(task.id)
            served.complete(task.id)

        nursery.start_soon(work)
        done = await control.finish(task.id)
        assert done.result is not None
        assert done.result.to_dict() == {"task_id": task.id, "result": "done", "duration_ms": 12}
        assert [one.id for one in await control.list_tasks(status="complete", limit=5)] == [task.id]
        assert (await control.get(task.id)) == done


async def test_waiting_for_a_task_outlasts_one_long_poll(tmp_path: Path) -> None:
    """The client asks again for as long as the task goes on."""
    async with serving(tmp_path) as served, trio.open_nursery() as nursery:
        control = ControlClient(tmp_path, Patience(poll_s=0.01))
        task = await control.submit("hello", wait_s=0.01)

        async def work() -> None:
            await trio.sleep(0.1)
            await control.cancel(task.id)

        nursery.start_soon(work)
        assert (await control.finish(task.id)).status == "cancelled"
        assert served.manager.get_task(task.id).terminal


async def test_many_tasks_are_accepted_and_refused_one_by_one(tmp_path: Path) -> None:
    """More tasks than one request may have are sent in several, and the order is kept."""
    async with serving(tmp_path, open_tasks=MAX_BATCH + 2):
        became = await ControlClient(tmp_path).submit_many([{"prompt": str(n)} for n in range(MAX_BATCH + 3)])
        tasks = [one for one in became if isinstance(one, TaskSummary)]
        assert [task.prompt for task in tasks] == [str(n) for n in range(MAX_BATCH + 2)]
        [busy] = [one for one in became if isinstance(one, PeertaskError)]
        assert (busy.code, busy.retry_after_ms) == (ErrorCode.BUSY, 100)


async def test_peers_and_the_node_can_be_asked_about(tmp_path: Path) -> None:
    """Everything that the node says about itself arrives."""
    async with serving(tmp_path) as served:
        control = ControlClient(tmp_path)
        assert await control.peers() == ()
        assert (await control.connect(PEER_ADDRESS)).peer_id == PEER_ID
        assert [(peer.peer_id, peer.connected) for peer in await control.peers()] == [(PEER_ID, True)]
        await control.disconnect(PEER_ID)
        assert await control.peers() == ()
        info = await control.info()
        assert (info.peer_id, info.advert.kinds, info.started_at_iso) == (
            OWN_ID,
            ("echo", "mock"),
            "2027-01-15T08:00:00.000Z",
        )
        served.node.status = Health("draining", ("it stops",))
        assert (await control.health()).problems == ("it stops",)
        assert "peertask_open_tasks 3.0" in await control.metrics()


async def test_the_error_of_the_node_is_raised_as_it_was(tmp_path: Path) -> None:
    """Code, message and remedy survive the way."""
    async with serving(tmp_path):
        control = ControlClient(tmp_path)
        with pytest.raises(PeertaskError, match="no answer from /nowhere") as raised:
            await control.connect("/nowhere")
        assert (raised.value.code, raised.value.remedy) == (ErrorCode.PEER_UNREACHABLE, "Check that the peer runs")
        with pytest.raises(PeertaskError) as missing:
            await control.get(new_task_id())
        assert missing.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(PeertaskError) as unknown:
            async with control.watch(new_task_id()) as items:
                await anext(items)
        assert unknown.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("value", ["\ud800", float("nan")], ids=["half a character", "not a number"])
async def test_what_json_cannot_carry_is_refused_before_it_is_sent(tmp_path: Path, value: object) -> None:
    """No node is needed to see that."""
    with pytest.raises(InvalidTask, match="cannot be written as JSON"):
        await ControlClient(tmp_path).submit("hello", params={"value": value})


async def test_a_watch_yields_facts_and_at_last_the_task(tmp_path: Path) -> None:
    """The facts come in their order, then the task with its result."""
    async with serving(tmp_path) as served:
        task_id = served.manager.create_task("hello").id
        seen: list[WatchItem] = []
        async with ControlClient(tmp_path).watch(task_id, after=1) as items:
            served.start(task_id)
            async for item in items:
                seen.append(item)
                if len(seen) == 2:
                    served.complete(task_id)
        assert [item.fact for item in seen if isinstance(item, EventView)] == ["Claimed", "Started", "Completed"]
        last = seen[-1]
        assert isinstance(last, TaskView)
        assert last.result is not None


async def test_a_watch_of_all_misses_nothing_after_it_has_begun(tmp_path: Path) -> None:
    """Once the context is entered, every task that follows is heard of."""
    async with serving(tmp_path) as served, ControlClient(tmp_path).watch_all(project="docs") as items:
        served.manager.create_task("other")
        task = served.manager.create_task("hello", project="docs")
        item = await anext(items)
        assert isinstance(item, EventView)
        assert (item.task_id, item.fact) == (task.id, "Submitted")


async def test_a_watch_goes_on_when_the_node_comes_back(tmp_path: Path) -> None:
    """A restart of the node is a pause of its watchers; the facts go on behind the last one that was seen."""
    async with serving(tmp_path) as first, trio.open_nursery() as nursery:
        task_id = first.manager.create_task("hello").id
        seen: list[WatchItem] = []

        async def watch() -> None:
            async with ControlClient(tmp_path).watch(task_id) as items:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 - the test looks at it in the meantime

        nursery.start_soon(watch)
        await _until(lambda: len(seen) == 1)
        first.stop.set()
        await _until(lambda: not (tmp_path / SOCKET_FILE).exists())
        async with serving(tmp_path) as second:
            second.manager.submit(first.manager.get_task(task_id).task, requester=OWN_ID, target=None)
            second.start(task_id)
            second.complete(task_id)
            await _until(lambda: any(isinstance(item, TaskView) for item in seen))
    assert [item.seq for item in seen if isinstance(item, EventView)] == [1, 4]
    assert [item.missed for item in seen if isinstance(item, LaggedView)] == [2]


async def test_a_watch_of_a_task_that_ended_in_the_meantime_still_yields_the_task(tmp_path: Path) -> None:
    """A client that has seen the last fact, but not the end, gets the end."""
    async with serving(tmp_path) as served:
        task_id = served.manager.create_task("hello").id
        await ControlClient(tmp_path).cancel(task_id)
        async with ControlClient(tmp_path).watch(task_id, after=2) as items:
            assert [type(item) async for item in items] == [TaskView]


async def test_a_watch_of_all_is_told_of_a_gap_when_the_node_comes_back(tmp_path: Path) -> None:
    """Nobody knows what happened between the two nodes, so the watch says just that."""
    async with serving(tmp_path) as first, ControlClient(tmp_path).watch_all() as items:
        first.manager.create_task("hello")
        await anext(items)
        first.stop.set()
        await _until(lambda: not (tmp_path / SOCKET_FILE).exists())
        async with serving(tmp_path):
            assert await anext(items) == LaggedView(missed=None)


async def test_a_watch_gives_up_on_a_node_that_stays_away(tmp_path: Path) -> None:
    """After a time without a node the watch fails in words."""
    async with serving(tmp_path) as served:
        task_id = served.manager.create_task("hello").id
        async with ControlClient(tmp_path, Patience(reconnect_s=0.2)).watch(task_id) as items:
            await anext(items)
            served.stop.set()
            with pytest.raises(PeertaskError, match="no node runs there") as raised:
                await anext(items)
        assert raised.value.code is ErrorCode.NODE_UNAVAILABLE


async def test_no_node_is_an_error_in_words(tmp_path: Path) -> None:
    """The error names the folder and how to start a node; a socket that nobody serves is the same."""
    control = ControlClient(tmp_path)
    with pytest.raises(PeertaskError, match="no node runs there") as raised:
        await control.info()
    assert raised.value.code is ErrorCode.NODE_UNAVAILABLE
    assert f"peertask node --data {tmp_path}" in raised.value.remedy
    (tmp_path / "control").write_text(f'{{"socket": "{tmp_path / SOCKET_FILE}", "url": null, "pid": 1}}')
    with pytest.raises(PeertaskError, match="No such file or directory"):
        await control.info()


@asynccontextmanager
async def _answering(folder: Path, answer: bytes, *, linger: bool = False) -> AsyncIterator[str]:
    """Answer each connection with the same bytes, then close it, or keep it open when it shall linger."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        if linger:
            await trio.sleep_forever()

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / SOCKET_FILE))
        sock.listen()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [listener])
            yield str(folder / SOCKET_FILE)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed the connection without an answer"),
        (b"nonsense\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "without sending complete message body"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "InformationalResponse"),
    ],
)
async def test_an_answer_that_is_no_answer_is_an_error_in_words(tmp_path: Path, answer: bytes, message: str) -> None:
    """Whatever answers at the socket, the client ends with a reason."""
    async with _answering(tmp_path, answer) as path:
        with pytest.raises(NoAnswerError, match=message):
            async with open_exchange(path, "GET", "/") as exchange:
                await exchange.read()


async def test_an_answer_without_end_is_refused(tmp_path: Path) -> None:
    """What is larger than any node's answer is not read to its end."""
    async with _answering(tmp_path, b"HTTP/1.1 200 OK\r\n\r\nlarge") as path:
        with pytest.raises(NoAnswerError, match="larger than 4 bytes"):
            async with open_exchange(path, "GET", "/") as exchange:
                await exchange.read(max_bytes=4)


async def test_another_program_at_the_socket_is_an_error_in_words(tmp_path: Path) -> None:
    """A newer node whose answers this program cannot read is a reason to upgrade, not a traceback."""
    async with _answering(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as path:
        (tmp_path / "control").write_text(f'{{"socket": "{path}", "url": null, "pid": 1}}')
        with pytest.raises(PeertaskError, match="cannot read") as raised:
            await ControlClient(tmp_path).info()
        assert raised.value.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>\n\n", "no events"),
        (b"event: fact\ndata: \xff\n\n", "no events"),
        (b"event: fact\ndata: {}\n\n", "an event fact"),
    ],
)
async def test_events_that_are_none_are_an_error_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    """Whatever streams at the socket, the watch ends with a reason."""
    async with _answering(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n" + content) as path:
        (tmp_path / "control").write_text(f'{{"socket": "{path}", "url": null, "pid": 1}}')
        async with ControlClient(tmp_path).watch(new_task_id()) as items:
            with pytest.raises(PeertaskError, match=f"cannot read: {words}") as raised:
                await anext(items)
        assert raised.value.code is ErrorCode.PROTOCOL


async def test_news_of_a_newer_node_is_left_out(tmp_path: Path) -> None:
    """An event that this program does not know is no reason to stop."""
    answer = b'HTTP/1.1 200 OK\r\n\r\nevent: news\ndata: {}\n\nevent: lagged\ndata: {"missed": 3}\n\n'
    async with _answering(tmp_path, answer) as path:
        (tmp_path / "control").write_text(f'{{"socket": "{path}", "url": null, "pid": 1}}')
        async with ControlClient(tmp_path).watch(new_task_id()) as items:
            assert await anext(items) == LaggedView(missed=3)


async def test_a_frozen_node_is_given_up(tmp_path: Path) -> None:
    """A node that accepts and never answers does not hold its client for ever."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / SOCKET_FILE))
        sock.listen()
        (tmp_path / "control").write_text(f'{{"socket": "{tmp_path / SOCKET_FILE}", "url": null, "pid": 1}}')
        with pytest.raises(PeertaskError, match=r"no answer within 0\.05 s"):
            await ControlClient(tmp_path, Patience(answer_s=0.05)).info()


async def test_a_stream_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """Not even a comment for a while: the node is frozen, and the watch does not wait for ever."""
    async with _answering(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n", linger=True) as path:
        (tmp_path / "control").write_text(f'{{"socket": "{path}", "url": null, "pid": 1}}')
        with pytest.raises(PeertaskError, match=r"nothing came for 0\.06 s"):
            async with ControlClient(tmp_path, Patience(silence_s=0.06)).watch(new_task_id()) as items:
                await anext(items)


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(TEST_S / 2):
        while not condition():
            await trio.sleep(0.01)
