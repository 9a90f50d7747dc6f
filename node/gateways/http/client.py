"""A client of the node that runs in a data folder; what the command line uses."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import trio
from pydantic import BaseModel, ValidationError

from node.gateways.http.events import END, KEEP_ALIVE_S, EventDecoder, ServerEvent
from node.gateways.http.exchange import Answer, NoAnswerError, open_exchange
from node.gateways.http.folder import find_control, node_unavailable
from node.gateways.http.limits import MAX_BATCH, MAX_WAIT_S
from node.gateways.http.persona_models import PersonaList, PersonaView
from node.gateways.http.response_models import (
    BatchView,
    ErrorView,
    EventView,
    ExplanationView,
    GraphView,
    HealthView,
    LaggedView,
    NodeView,
    PeerList,
    PeerView,
    ReceiptView,
    TaskList,
    TaskSummary,
    TaskView,
)
from node.gateways.http.work_models import AgentList, AgentView
from protocol import ErrorCode, InvalidTask, JsonObject, PeertaskError, TaskId, new_task_id

# A node answers a request that does not wait within milliseconds; this long, it is frozen or swapping.
ANSWER_S: Final = 30.0
# A node that is restarted by a service manager is back in less.
RECONNECT_S: Final = 30.0
# Two signs of life were lost.
SILENCE_S: Final = 3 * KEEP_ALIVE_S
# Quick at first, for a node that is back at once; doubled up to the maximum.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_ERRORS_FROM = 400

WatchItem = EventView | LaggedView | TaskView
"""What a watch yields: facts, gaps, and at the end of a task the task."""

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client waits for its node, in seconds.

    Attributes:
        answer_s: for an answer that the node need not wait for.
        poll_s: in one request for the end of a task; 60 at most.
        silence_s: for a sign of life in a stream of events.
        reconnect_s: for a node that was there to come back.
    """

    answer_s: float = ANSWER_S
    poll_s: float = MAX_WAIT_S
    silence_s: float = SILENCE_S
    reconnect_s: float = RECONNECT_S


class ControlClient:
    """Asks the node of a data folder.

    Every method raises the `PeertaskError` that the node answers with, and one with code NODE_UNAVAILABLE when no node
    answers. A method that was cancelled may have been carried out.

    Args:
        folder: the data folder; the node there is looked for with each request, so it may be restarted in between.
        patience: how long it waits.
    """

    def __init__(self, folder: Path, patience: Patience | None = None) -> None:
        self._folder = folder
        self._patience = patience or Patience()

    async def submit(
        self,
        prompt: str,
        *,
        to: str | None = None,
        timeout_s: float | None = None,
        wait_s: float = 0.0,
        **fields: Any,
    ) -> TaskView:
        """Have a task taken in.

        Args:
            prompt: what to do.
            to: the address or id of the peer that shall do it; None lets the node choose.
            timeout_s: when the requester stops caring, in seconds from now.
            wait_s: how long to wait for the end of the task, in seconds, 60 at most.
            fields: any other field of the task by name; an absent ``id`` is drawn.
        """
        body = {"id": new_task_id(), "prompt": prompt, "to": to, "timeout_s": timeout_s, **fields}
        return await self._ask(TaskView, "POST", "/v1/tasks", body=body, wait_s=wait_s)

    async def submit_many(self, tasks: Sequence[JsonObject]) -> list[TaskSummary | PeertaskError]:
        """Have many tasks taken in; each is a body as for one, and each is accepted or refused on its own.

        Returns:
            For each task, in their order, its summary or the error that refused it.
        """
        return await self._ask_for_each("/v1/tasks:batch", [{"id": new_task_id(), **task} for task in tasks])

    async def retry_many(self, task_ids: Sequence[TaskId]) -> list[TaskSummary | PeertaskError]:
        """Have tasks done again that failed or were cancelled; each is taken or refused on its own.

        Returns:
            For each task, in their order, the summary of the new task or the error that refused it.
        """
        return await self._ask_for_each("/v1/tasks:retry", task_ids)

    async def _ask_for_each(self, path: str, tasks: Sequence[Any]) -> list[TaskSummary | PeertaskError]:
        became: list[TaskSummary | PeertaskError] = []
        for first in range(0, len(tasks), MAX_BATCH):
            answer = await self._ask(BatchView, "POST", path, body={"tasks": tasks[first : first + MAX_BATCH]})
            for item in answer.results:
                if item.task is not None:
                    became.append(item.task)
                elif item.error is not None:
                    became.append(item.error.to_error())
        return became

    async def submit_graph(self, tasks: Sequence[JsonObject]) -> tuple[TaskId, ...]:
        """Have tasks that depend on each other taken in, all or none; each is a body as for one.

        Returns:
            Their ids, in their order.
        """
        return (await self._ask(GraphView, "POST", "/v1/tasks:graph", body={"tasks": [*tasks]})).task_ids

    async def get(self, task_id: TaskId, wait_s: float = 0.0) -> TaskView:
        """Return a task, after its end when it comes within `wait_s` seconds, 60 at most."""
        return await self._ask(TaskView, "GET", f"/v1/tasks/{task_id}", wait_s=wait_s)

    async def receipt(self, task_id: TaskId) -> ReceiptView:
        """Return the receipt of a task that is complete; the node may have to ask the peer that carried it out."""
        return await self._ask(ReceiptView, "GET", f"/v1/tasks/{task_id}/receipt")

    async def finish(self, task_id: TaskId) -> TaskView:
        """Return a task once it has ended, however long that takes."""
        while not (task := await self.get(task_id, self._patience.poll_s)).status.terminal:
            pass
        return task

    async def list_tasks(self, **query: str | float) -> tuple[TaskSummary, ...]:
        """Return summaries, the newest first.

        Args:
            query: which ones: status, project, session_id, requester, before, code, retry_of, unretried, limit.
        """
        return (await self._ask(TaskList, "GET", "/v1/tasks", query=query)).tasks

    async def explain(self, task_id: TaskId) -> ExplanationView:
        """Return why a task is where it is."""
        return await self._ask(ExplanationView, "GET", f"/v1/tasks/{task_id}/explanation")

    async def cancel(self, task_id: TaskId) -> TaskView:
        """Ask for a task to be stopped."""
        return await self._ask(TaskView, "POST", f"/v1/tasks/{task_id}/cancel")

    @asynccontextmanager
    async def watch(self, task_id: TaskId, after: int = 0) -> AsyncIterator[AsyncIterator[WatchItem]]:
        """Watch a task until it has ended: the facts after a number, then the task itself.

        A lost connection is made again, and the watch goes on where it was, for up to `RECONNECT_S` seconds.
        """
        events = self._events(f"/v1/tasks/{task_id}/events", {"after": after})
        async with aclosing(events), aclosing(self._items(events)) as items:
            yield items

    @asynccontextmanager
    async def watch_all(self, **query: str) -> AsyncIterator[AsyncIterator[WatchItem]]:
        """Watch all tasks, from when the context is entered.

        A lost connection is made again as for one task; a `LaggedView` stands where facts may be missing.

        Args:
            query: only those of a ``project``, ``session_id`` or ``requester``.
        """
        async with aclosing(self._events("/v1/events", query)) as events:
            await anext(events)  # the node says so when it listens
            async with aclosing(self._items(events)) as items:
                yield items

    async def peers(self) -> tuple[PeerView, ...]:
        """Return every peer that the node knows, the connected ones first."""
        return (await self._ask(PeerList, "GET", "/v1/peers")).peers

    async def connect(self, address: str) -> PeerView:
        """Have the node connect to a peer, and stay connected."""
        return await self._ask(PeerView, "POST", "/v1/peers", body={"address": address})

    async def disconnect(self, peer_id: str) -> None:
        """Have the node end the session with a peer, and not dial it again."""
        await self._succeed("DELETE", f"/v1/peers/{quote(peer_id)}")

    async def personas(self) -> PersonaList:
        """Return the personas that have a definition at the node, or that it or a peer acts as."""
        return await self._ask(PersonaList, "GET", "/v1/personas")

    async def persona(self, persona_id: str) -> PersonaView:
        """Return one persona."""
        return await self._ask(PersonaView, "GET", f"/v1/personas/{quote(persona_id, safe='')}")

    async def save_persona(self, persona_id: str, definition: str, name: str | None = None) -> PersonaView:
        """Define a persona, or define it anew."""
        body = {"name": name, "definition": definition}
        return await self._ask(PersonaView, "PUT", f"/v1/personas/{quote(persona_id, safe='')}", body=body)

    async def remove_persona(self, persona_id: str) -> None:
        """Forget the definition of a persona."""
        await self._succeed("DELETE", f"/v1/personas/{quote(persona_id, safe='')}")

    async def agents(self) -> tuple[AgentView, ...]:
        """Return the outside workers that are there, in the order of their registration."""
        return (await self._ask(AgentList, "GET", "/v1/agents")).agents

    async def remove_agent(self, agent_id: str) -> None:
        """Let an agent go; what it holds is given to others."""
        await self._succeed("DELETE", f"/v1/agents/{quote(agent_id, safe='')}")

    async def info(self) -> NodeView:
        """Return what the node says about itself."""
        return await self._ask(NodeView, "GET", "/v1/node")

    async def health(self) -> HealthView:
        """Return whether the node does its work."""
        status, content = await self._send("GET", "/v1/health")
        return self._parse(HealthView, status, content)

    async def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        _, content = await self._send("GET", "/metrics")
        return content.decode()

    async def _ask(
        self,
        model: type[_Model],
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: Query | None = None,
        wait_s: float = 0.0,
    ) -> _Model:
        return self._parse(model, *await self._succeed(method, path, body=body, query=query, wait_s=wait_s))

    async def _succeed(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: Query | None = None,
        wait_s: float = 0.0,
    ) -> tuple[int, bytes]:
        """Return the status and the content of an answer, unless that is an error."""
        query = {**(query or {}), **({"wait": wait_s} if wait_s else {})}
        status, content = await self._send(method, path, body=body, query=query, wait_s=wait_s)
        if status >= _ERRORS_FROM:
            raise self._parse(ErrorView, status, content).error.to_error()
        return status, content

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        query: Query | None = None,
        wait_s: float = 0.0,
    ) -> tuple[int, bytes]:
        content = b"" if body is None else _encode(body)
        socket = find_control(self._folder).socket
        answer_s = self._patience.answer_s + wait_s
        try:
            with trio.fail_after(answer_s):
                async with open_exchange(socket, method, _target(path, query), body=content) as answer:
                    return answer.status, await answer.read()
        except NoAnswerError as error:
            raise node_unavailable(self._folder, str(error)) from error
        except trio.TooSlowError as error:
            raise node_unavailable(self._folder, f"no answer within {answer_s:g} s") from error

    def _parse(self, model: type[_Model], status: int, content: bytes) -> _Model:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise self._unreadable(f"status {status}") from error

    def _unreadable(self, what: str) -> PeertaskError:
        return PeertaskError(
            f"the node of {self._folder} answered what this program cannot read: {what}",
            code=ErrorCode.PROTOCOL,
            remedy="Use the same version of peertask for the node and the client",
        )

    async def _items(self, events: AsyncIterator[ServerEvent]) -> AsyncGenerator[WatchItem]:
        """Yield what events say; names that this program does not know are news of a newer node, and left out."""
        async for event in events:
            model = _MODELS.get(event.name)
            if model is not None:
                try:
                    item = model.model_validate_json(event.data)
                except ValidationError as error:
                    raise self._unreadable(f"an event {event.name}") from error
                yield item

    async def _events(self, path: str, query: Query) -> AsyncGenerator[ServerEvent]:
        """Yield the events of a stream up to its `end`, over as many connections as it takes."""
        last_id = ""
        pauses = _Pauses(self._patience.reconnect_s)
        while True:
            try:
                async with aclosing(self._one_stream(path, query, last_id)) as events:
                    async for event in events:
                        pauses.begin_anew()
                        last_id = event.id or last_id
                        yield event
                        if event.name == END:
                            return
            except PeertaskError as error:
                if error.code is not ErrorCode.NODE_UNAVAILABLE or not await pauses.one_more():
                    raise

    async def _one_stream(self, path: str, query: Query, last_id: str) -> AsyncGenerator[ServerEvent]:
        """Yield the events of one connection; ends with an error, because streams that are done are left before."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        if last_id.isdecimal():  # of one task, whose end is still wanted when all its facts were seen
            query, headers = {**query, "after": last_id}, {}
        socket = find_control(self._folder).socket
        try:
            async with open_exchange(socket, "GET", _target(path, query), headers=headers) as answer:
                if answer.status >= _ERRORS_FROM:
                    raise self._parse(ErrorView, answer.status, await answer.read()).error.to_error()
                decoder = EventDecoder()
                while piece := await _receive(answer, self._patience.silence_s):
                    for event in decoder.feed(piece):
                        yield event
        except NoAnswerError as error:
            raise node_unavailable(self._folder, str(error)) from error
        except ValueError as error:
            raise self._unreadable(f"no events: {error}") from error
        raise node_unavailable(self._folder, "it has stopped")


Query = Mapping[str, str | float]


def _target(path: str, query: Query | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


async def _receive(answer: Answer, silence_s: float) -> bytes:
    with trio.move_on_after(silence_s):
        return await answer.receive()
    raise NoAnswerError(f"nothing came for {silence_s:g} s")


def _encode(body: JsonObject) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # a number or a text that JSON cannot carry
        raise InvalidTask(f"the request cannot be written as JSON: {error}") from error


class _Pauses:
    """The waits between attempts to reach a node again."""

    def __init__(self, reconnect_s: float) -> None:
        self._reconnect_s = reconnect_s
        self._deadline = 0.0
        self._next_s = _FIRST_PAUSE_S

    def begin_anew(self) -> None:
        """Take the connection for good: it has brought an event."""
        self._deadline = trio.current_time() + self._reconnect_s
        self._next_s = _FIRST_PAUSE_S

    async def one_more(self) -> bool:
        """Wait before another attempt; false at once when there was no connection for too long, or never."""
        if trio.current_time() + self._next_s > self._deadline:
            return False
        await trio.sleep(self._next_s)
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)
        return True


_MODELS: Final[dict[str, type[WatchItem]]] = {"fact": EventView, "lagged": LaggedView, END: TaskView}
