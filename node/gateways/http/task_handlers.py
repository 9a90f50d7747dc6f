"""Requests about tasks."""

from __future__ import annotations

from functools import partial

import trio
from starlette.responses import Response

from node.gateways.http.errors import RequestRefused
from node.gateways.http.event_stream import Emit, EventStream
from node.gateways.http.events import END, encode_event
from node.gateways.http.gateway import Call, Gateway, Reply
from node.gateways.http.request_models import FeedQuery, Submission
from node.gateways.http.response_models import (
    BatchItem,
    BatchView,
    ErrorBody,
    EventView,
    ExplanationView,
    GraphView,
    LaggedView,
    ReceiptView,
    TaskList,
    TaskSummary,
    TaskView,
)
from node.interfaces import Change, Lagged
from node.retrying import submit_again
from protocol import PeertaskError, TaskFailed, TaskId, TaskRecord

_OK, _ACCEPTED, _NO_CONTENT = 200, 202, 204
_LAST_EVENT_ID = "last-event-id"


async def submit(gateway: Gateway, call: Call) -> Reply:
    """Take a task in, and wait for its end when asked to."""
    await gateway.check_persona(call.body.persona)
    target = await gateway.target(call.body.to)
    record = await gateway.saved(gateway.submit(call.body, target, call.headers.get("traceparent")))
    return _reply(gateway, await gateway.ended(record.id, call.query.wait))


async def submit_batch(gateway: Gateway, call: Call) -> Reply:
    """Take several tasks in, each on its own."""
    accepted = [await _try_submit(gateway, one, call.headers.get("traceparent")) for one in call.body.tasks]
    return Reply(BatchView(results=tuple([await _item(gateway, one) for one in accepted])))


async def retry_tasks(gateway: Gateway, call: Call) -> Reply:
    """Have tasks done again, each on its own."""
    own_id = gateway.node.info().peer_id
    again = submit_again(gateway.service, call.body.tasks, own_id=own_id, now=gateway.clock.now())
    return Reply(BatchView(results=tuple([await _item(gateway, one) for one in again])))


async def submit_graph(gateway: Gateway, call: Call) -> Reply:
    """Take tasks that depend on each other in, all or none."""
    records = await gateway.submit_graph(call.body.tasks, call.headers.get("traceparent"))
    await gateway.saved(records[-1])  # they are saved together
    return Reply(GraphView(task_ids=tuple(record.id for record in records)), _ACCEPTED)


async def list_tasks(gateway: Gateway, call: Call) -> Reply:
    """Return summaries of the tasks that match."""
    records = gateway.service.list_tasks(call.query.task_filter())
    return Reply(TaskList(tasks=tuple([await _summary(gateway, record) for record in records])))


async def get_task(gateway: Gateway, call: Call) -> Reply:
    """Return a task, after its end when asked to wait."""
    return _reply(gateway, await gateway.ended(call.task_id, call.query.wait), unfinished=_OK)


async def get_result(gateway: Gateway, call: Call) -> Reply:
    """Return the result of a task that is complete; its failure is the error of this request."""
    record = await gateway.ended(call.task_id, call.query.wait)
    if record.failure is not None:
        raise TaskFailed(record.failure)
    return Reply(await _summary(gateway, record), _ACCEPTED) if record.result is None else Reply(record.result)


async def get_receipt(gateway: Gateway, call: Call) -> Reply:
    """Return the receipt of a task that is complete."""
    return Reply(ReceiptView.of(await gateway.node.receipt(call.task_id)))


async def explain(gateway: Gateway, call: Call) -> Reply:
    """Tell why a task is where it is."""
    return Reply(ExplanationView.of(await gateway.node.explain(call.task_id)))


async def cancel(gateway: Gateway, call: Call) -> Reply:
    """Ask for a task to be stopped."""
    return _reply(gateway, await gateway.saved(gateway.service.cancel_task(call.task_id)))


async def watch_task(gateway: Gateway, call: Call) -> Response:
    """Stream the facts of a task."""
    record = gateway.service.get_task(call.task_id)
    last_id = call.headers.get(_LAST_EVENT_ID)
    after = call.query.after if last_id is None else _seq(last_id)
    if last_id is not None and record.terminal and after >= record.seq:
        return Response(status_code=_NO_CONTENT)  # tells an EventSource not to come again
    return EventStream(partial(_tell_one, gateway, record.id, after), gateway.stopping, gateway.keep_alive_s)


async def watch_all(gateway: Gateway, call: Call) -> Response:
    """Stream the facts of all tasks, from now on."""
    missed = _LAST_EVENT_ID in call.headers
    return EventStream(partial(_tell_all, gateway, call.query, missed=missed), gateway.stopping, gateway.keep_alive_s)


async def _try_submit(gateway: Gateway, submission: Submission, traceparent: str | None) -> TaskRecord | PeertaskError:
    await trio.lowlevel.checkpoint()
    try:
        await gateway.check_persona(submission.persona)
        return gateway.submit(submission, await gateway.target(submission.to), traceparent)
    except PeertaskError as error:
        return error


async def _item(gateway: Gateway, accepted: TaskRecord | PeertaskError) -> BatchItem:
    if isinstance(accepted, PeertaskError):
        return BatchItem(error=ErrorBody.of(accepted))
    return BatchItem(task=await _summary(gateway, await gateway.saved(accepted)))


async def _summary(gateway: Gateway, record: TaskRecord) -> TaskSummary:
    await trio.lowlevel.checkpoint()  # a thousand of them would hold the node up for a tenth of a second
    return TaskSummary.of(record, blocked=gateway.service.is_blocked(record))


def _view(gateway: Gateway, record: TaskRecord) -> TaskView:
    service = gateway.service
    return TaskView.of(
        record,
        blocked=service.is_blocked(record),
        waits_for=service.awaited(record),
        children=service.children(record.id),
    )


def _reply(gateway: Gateway, record: TaskRecord, unfinished: int = _ACCEPTED) -> Reply:
    return Reply(_view(gateway, record), _OK if record.terminal else unfinished)


def _seq(text: str) -> int:
    if not text.isdecimal():
        raise RequestRefused(
            f"header Last-Event-ID: {text[:80]!r} is not the number of a fact", remedy="Repeat the id of the last event"
        )
    return int(text)


async def _tell_one(gateway: Gateway, task_id: TaskId, after: int, emit: Emit) -> None:
    async with gateway.service.watch(task_id, after) as changes:
        async for change in changes:
            await emit(_event(change, str(change.record.seq) if isinstance(change, Change) else ""))
    await emit(encode_event(END, _view(gateway, gateway.service.get_task(task_id))))


async def _tell_all(gateway: Gateway, wanted: FeedQuery, emit: Emit, *, missed: bool) -> None:
    async with gateway.service.watch() as changes:
        # What an earlier stream of this client has missed, nobody has counted.
        await emit(encode_event("lagged", LaggedView(missed=None)) if missed else encode_event("ready"))
        async for change in changes:
            if isinstance(change, Lagged) or wanted.matches(change.record):
                await emit(
                    _event(change, f"{change.record.id}/{change.record.seq}" if isinstance(change, Change) else "")
                )


def _event(change: Change | Lagged, event_id: str) -> bytes:
    if isinstance(change, Lagged):
        return encode_event("lagged", LaggedView(missed=change.missed))
    return encode_event("fact", EventView.of(change), event_id)
