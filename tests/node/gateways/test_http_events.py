"""Streams of events: their text, what they replay, and how they end."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from node.gateways.http.event_stream import Stopping
from node.gateways.http.events import MAX_EVENT_BYTES, EventDecoder, ServerEvent, encode_event
from node.gateways.http.exchange import open_exchange
from node.gateways.http.response_models import LaggedView
from node.gateways.http.server import GRACE_S
from node.manager import TaskManager
from protocol import ErrorCode, Released, TaskId
from tests.node.gateways.http_node import TEST_S, Served, check_schema, connected, serving

_SCHEMAS = {"fact": "EventView", "lagged": "LaggedView", "end": "TaskView"}


@asynccontextmanager
async def _stream(served: Served, path: str, *, last_id: str = "") -> AsyncIterator[AsyncIterator[ServerEvent]]:
    """Read the events of a path; each is checked against the description."""

    async def events() -> AsyncGenerator[ServerEvent]:
        decoder = EventDecoder()
        while part := await answer.receive():
            for event in decoder.feed(part):
                if event.name in _SCHEMAS:
                    check_schema(json.loads(event.data), {"$ref": f"#/components/schemas/{_SCHEMAS[event.name]}"})
                yield event

    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with open_exchange(served.address.socket, "GET", path, headers=headers) as answer:
        assert answer.status == 200
        async with aclosing(events()) as stream:
            yield stream


def _created(served: Served, project: str = "default") -> TaskId:
    return served.manager.create_task("hello", project=project).id


def _facts(events: list[ServerEvent]) -> list[tuple[str, str]]:
    return [(event.id, json.loads(event.data)["fact"]) for event in events if event.name == "fact"]


async def test_a_stream_tells_every_fact_of_a_task_and_ends_with_the_task(tmp_path: Path) -> None:
    """Facts are numbered from 1; after the last one comes the task with its result, and the stream ends."""
    async with serving(tmp_path) as served:
        task_id = _created(served)
        async with _stream(served, f"/v1/tasks/{task_id}/events") as events:
            seen = [await anext(events)]
            served.start(task_id)
            served.report(task_id, 0.5, "half")
            served.complete(task_id)
            seen += [event async for event in events]
        assert _facts(seen) == [
            ("1", "Submitted"),
            ("2", "Claimed"),
            ("3", "Started"),
            ("4", "Progressed"),
            ("5", "Completed"),
        ]
        half = json.loads(seen[3].data)
        assert (half["progress"], half["message"], half["status"]) == (0.5, "half", "executing")
        assert seen[-1].name == "end"
        assert json.loads(seen[-1].data)["result"]["result"] == "done"


@pytest.mark.parametrize("said_by", ["the query", "the header"])
async def test_a_client_that_comes_back_gets_what_follows_the_last_fact_it_saw(tmp_path: Path, said_by: str) -> None:
    """The number comes from the query, or from the header that a browser sends by itself."""
    async with serving(tmp_path) as served:
        task_id = _created(served)
        served.start(task_id)
        path, last_id = f"/v1/tasks/{task_id}/events", ""
        if said_by == "the query":
            path += "?after=2"
        else:
            last_id = "2"
        async with _stream(served, path, last_id=last_id) as events:
            assert (await anext(events)).id == "3"


async def test_a_gap_is_told(tmp_path: Path) -> None:
    """Facts that are no longer kept are counted, not left out silently."""
    async with serving(tmp_path) as served:
        task_id = _created(served)
        served.start(task_id)
        served.fail(task_id, ErrorCode.TIMEOUT)
        async with _stream(served, f"/v1/tasks/{task_id}/events") as events:
            seen = [event async for event in events]
        assert [event.name for event in seen] == ["lagged", "fact", "end"]
        assert json.loads(seen[0].data) == {"missed": 3}
        last = json.loads(seen[1].data)
        assert (last["code"], last["message"]) == ("TIMEOUT", "it went wrong")


async def test_a_browser_that_has_seen_everything_is_told_not_to_come_again(tmp_path: Path) -> None:
    """An EventSource reconnects after every end, except after 204."""
    async with serving(tmp_path) as served, connected(served) as client:
        task_id = _created(served)
        served.start(task_id)
        served.complete(task_id)
        response = await client.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": "4"})
        assert (response.status_code, response.content) == (204, b"")
        bad = await client.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": "x"})
        assert (bad.status_code, bad.json()["error"]["code"]) == (400, "PROTOCOL")


async def test_a_stream_of_all_tasks_tells_only_those_that_are_asked_for(tmp_path: Path) -> None:
    """It begins when it says that it is ready, and its ids name the task and the number."""
    async with serving(tmp_path) as served:
        async with _stream(served, "/v1/events?project=docs") as events:
            assert (await anext(events)).name == "ready"
            _created(served)
            task_id = _created(served, project="docs")
            served.start(task_id)
            now = served.clock.now()
            served.manager.apply(Released(task_id, now, 1, ErrorCode.LEASE_LOST, "gone", now))
            seen = [await anext(events) for _ in range(4)]
        assert [event.id for event in seen] == [f"{task_id}/{seq}" for seq in (1, 2, 3, 4)]
        assert (json.loads(seen[3].data)["code"], json.loads(seen[3].data)["message"]) == ("LEASE_LOST", "gone")
        async with _stream(served, "/v1/events", last_id=seen[3].id) as events:
            assert (await anext(events)).data == '{"missed":null}'


async def test_the_end_of_the_node_ends_streams_and_long_polls_at_once(tmp_path: Path) -> None:
    """Nobody who waits holds up a node that stops; the stream says why it ends."""
    async with serving(tmp_path) as served, connected(served) as client, trio.open_nursery() as nursery:
        task_id = _created(served)
        polled = trio.Event()

        async def poll() -> None:
            response = await client.get(f"/v1/tasks/{task_id}?wait=60")
            assert response.json()["status"] == "pending"
            polled.set()

        async with _stream(served, "/v1/events") as events:
            await anext(events)
            nursery.start_soon(poll)
            await wait_all_tasks_blocked(0.05)
            began = trio.current_time()
            served.stop.set()
            assert [event.name async for event in events] == ["stopping"]
            await polled.wait()
            assert trio.current_time() - began < GRACE_S


async def test_a_client_that_stops_reading_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A write that waits for its reader is ended by closing the connection under it."""
    async with serving(tmp_path) as served, await trio.open_unix_socket(served.address.socket) as stream:
        await stream.send_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.receive_some(100)
        for _ in range(50):
            task_id = _created(served)
            served.start(task_id)
            for step in range(100):
                served.report(task_id, step / 100, "x" * 1000)
            await wait_all_tasks_blocked()
        began = trio.current_time()
        served.stop.set()
        with trio.fail_after(TEST_S / 2):
            while Path(served.address.socket).exists():
                await trio.sleep(0.01)
        assert trio.current_time() - began < 2 * GRACE_S


async def test_a_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    """The watch behind a stream ends with its connection."""
    async with serving(tmp_path) as served:
        async with _stream(served, "/v1/events") as events:
            await anext(events)
            assert _watchers(served.manager) == 1
        with trio.fail_after(TEST_S / 2):
            while _watchers(served.manager):
                await trio.sleep(0.01)


def _watchers(manager: TaskManager) -> int:
    return len(manager._feed._listeners)  # noqa: SLF001 - the feed has no other way to be asked


def test_what_begins_while_the_node_stops_ends_at_once() -> None:
    """A request that slips in during the end does not wait either."""
    stopping = Stopping()
    stopping.begin()

    async def wait() -> None:
        with stopping.ends():
            await trio.sleep_forever()

    trio.run(wait)


async def test_a_head_request_gets_no_stream(tmp_path: Path) -> None:
    """HEAD is answered like GET without its content, and must not hang on a stream that never ends."""
    async with serving(tmp_path) as served, connected(served) as client:
        response = await client.head("/v1/events")
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_a_silent_stream_is_kept_alive(tmp_path: Path) -> None:
    """Comments pass proxies that end silent connections; clients do not see them as events."""
    async with serving(tmp_path, keep_alive_s=0.01) as served:
        async with open_exchange(served.address.socket, "GET", "/v1/events") as answer:
            text = b""
            while text.count(b": still here\n\n") < 2:
                text += await answer.receive()
        assert [event.name for event in EventDecoder().feed(text)] == ["ready"]


@given(st.data())
def test_events_survive_being_cut_anywhere(data: st.DataObject) -> None:
    """What is written can be read back, whatever the pieces that the network makes of it."""
    views = data.draw(st.lists(st.integers(0, 10**6), max_size=5))
    text = b": still here\n\n".join(encode_event("lagged", LaggedView(missed=n), f"{n}") for n in views)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    decoder = EventDecoder()
    seen = [
        event
        for first, last in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for event in decoder.feed(text[first:last])
    ]
    assert seen == [ServerEvent("lagged", f'{{"missed":{n}}}', f"{n}") for n in views]


def test_an_event_without_end_is_refused() -> None:
    """A server that is not a node cannot fill the memory of its client."""
    with pytest.raises(ValueError, match="longer than"):
        list(EventDecoder().feed(b"x" * (MAX_EVENT_BYTES + 1)))
