"""The list of what failed, and requests to have it done again."""

# covers COORD-29

from __future__ import annotations

from pathlib import Path

from node.gateways.http.client import ControlClient
from node.gateways.http.limits import MAX_BATCH
from node.gateways.http.response_models import TaskSummary
from node.testing import make_task
from protocol import ErrorCode, PeertaskError, new_task_id
from tests.node.gateways.http_node import PEER_ID, Served, connected, serving


async def fail(served: Served, code: ErrorCode) -> str:
    """Submit a task, let it fail, and return its id."""
    task = await ControlClient(served.folder).submit(code.value)
    served.start(task.id)
    served.fail(task.id, code)
    served.clock.advance(1)
    return task.id


async def test_what_failed_is_listed_until_it_is_retried(tmp_path: Path) -> None:
    """By code too; the retry names what it repeats, and can be found by it."""
    async with serving(tmp_path) as served, connected(served) as http:
        timeout, broken = await fail(served, ErrorCode.TIMEOUT), await fail(served, ErrorCode.EXECUTION_FAILED)
        control = ControlClient(tmp_path)
        dead = {"status": "failed", "unretried": "true"}
        assert [task.id for task in await control.list_tasks(**dead)] == [broken, timeout]
        assert [task.id for task in await control.list_tasks(**dead, code="TIMEOUT,BUSY")] == [timeout]
        assert [task.id for task in await control.list_tasks(before=served.clock.now() - 1)] == [timeout]
        answer = (await http.post("/v1/tasks:retry", json={"tasks": [timeout]})).json()["results"]
        assert answer[0]["task"]["retry_of"] == timeout
        assert [task.id for task in await control.list_tasks(**dead)] == [broken]
        (retry,) = await control.list_tasks(retry_of=timeout)
        assert (retry.id, retry.status.value) == (answer[0]["task"]["id"], "pending")
        assert (await control.get(retry.id)).metadata == {"retry_of": timeout}


async def test_each_task_is_retried_or_refused_on_its_own(tmp_path: Path) -> None:
    """Unknown, open, another peer's, and twice in one request; the order is kept."""
    async with serving(tmp_path) as served:
        failed, waits = await fail(served, ErrorCode.TIMEOUT), (await ControlClient(tmp_path).submit("waits")).id
        theirs = make_task(sender=PEER_ID)
        served.manager.submit(theirs, requester=PEER_ID, target=None)
        asked = [new_task_id(), failed, waits, theirs.id, failed]
        became = await ControlClient(tmp_path).retry_many(asked)  # type: ignore[arg-type]
        assert [one.code if isinstance(one, PeertaskError) else one.retry_of for one in became] == [
            ErrorCode.NOT_FOUND,
            failed,
            ErrorCode.ILLEGAL_TRANSITION,
            ErrorCode.FORBIDDEN,
            ErrorCode.CONFLICT,
        ]


async def test_more_than_one_request_may_have_are_retried_in_several(tmp_path: Path) -> None:
    """A node that is full refuses the rest, which stay in the list."""
    async with serving(tmp_path, open_tasks=MAX_BATCH + 1) as served:
        failed = [await fail(served, ErrorCode.TIMEOUT) for _ in range(3)]
        unknown = [new_task_id() for _ in range(MAX_BATCH)]
        became = await ControlClient(tmp_path).retry_many([*unknown, *failed])  # type: ignore[list-item]
        assert [isinstance(one, TaskSummary) for one in became] == [False] * MAX_BATCH + [True] * 3


async def test_what_is_no_task_id_is_refused_with_its_place(tmp_path: Path) -> None:
    """Nothing is taken in then."""
    async with serving(tmp_path) as served, connected(served) as http:
        answer = await http.post("/v1/tasks:retry", json={"tasks": ["not an id"]})
        assert answer.status_code == 400
        assert "tasks.0" in answer.json()["error"]["message"]
        listed = await http.get("/v1/tasks?code=NO_SUCH_CODE")
        assert (listed.status_code, "code" in listed.json()["error"]["message"]) == (400, True)
