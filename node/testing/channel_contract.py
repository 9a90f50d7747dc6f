"""What every channel must do, seen from two nodes."""

from __future__ import annotations

from collections.abc import Sequence

from node.interfaces import Channel
from node.testing.contract import promise
from node.testing.executions import make_task
from node.testing.handlers import RecordingHandler
from node.testing.network_sides import MakePair, Side, connect, run_checks
from protocol import (
    Accept,
    Artifact,
    Attach,
    Cancel,
    ErrorCode,
    Failure,
    Frame,
    LocalProtocolError,
    Progress,
    Reject,
    Result,
    Submit,
    TaskResult,
    TooLarge,
    new_task_id,
)

# Below what a peer may have in flight, and more than fits into one write.
MANY_TASKS = 200
# More than a chunk and less than a frame, with the default limits; and more than a frame.
LARGE_SIZES = (300_000, 3_000_000)
# In UTF-8 18 MB: more than the default limit of a payload. In characters less than what a prompt may have.
TOO_LARGE_PROMPT = "é" * 9_000_000


async def check_channels(make_pair: MakePair) -> None:
    """Check that the channels between two nodes keep the contract of `Channel` and `ChannelHandler`.

    Args:
        make_pair: makes two networks that can reach each other, fresh ones each time; the checker runs them.

    Raises:
        ContractViolation: names the promise that is broken.
        trio.TooSlowError: what was to happen did not within 30 s.
    """
    checks = (
        _check_requests,
        _check_answers,
        _check_both_ways,
        _check_burst,
        _check_large,
        _check_too_large,
        _check_illegal,
    )
    await run_checks(make_pair, checks)


async def _check_requests(one: Side, other: Side) -> None:
    channel, _ = await connect(one, other)
    promise(channel.peer_id == other.peer_id, "a channel says who is at the other end")
    promise(channel.in_flight > 0 and channel.local_in_flight > 0, "a channel says how much each side takes")
    task = make_task(sender=one.peer_id, params={"depth": [1, None, "é"]})
    requests: list[Frame] = [Submit(task, 5_000), Attach(new_task_id(), 7), Cancel(task.id)]
    await _exchange(channel, requests, other.worker)
    promise(other.requester.frames == [], "what a peer asks goes to the worker handler only")


async def _check_answers(one: Side, other: Side) -> None:
    channel, back = await connect(one, other)
    complete, failed, refused = make_task(), make_task(), make_task()
    await _exchange(channel, [Submit(task) for task in (complete, failed, refused)], other.worker)
    artifact = Artifact(name="a", content="b")
    answers: list[Frame] = [
        Accept(complete.id, 1),
        Accept(failed.id, 1),
        Reject(task_id=refused.id, code=ErrorCode.BUSY, message="full", retry_after_ms=100),
        Progress(task_id=complete.id, seq=4, fraction=0.5, message="half"),
        Result(task_id=complete.id, seq=5, result=TaskResult(complete.id, "done", 3, (artifact,))),
        Result(task_id=failed.id, seq=5, failure=Failure.of(ErrorCode.EXECUTION_FAILED, "no")),
    ]
    await _exchange(back, answers, one.requester)
    promise(one.worker.frames == [], "what a peer answers goes to the requester handler only")


async def _check_both_ways(one: Side, other: Side) -> None:
    channel, back = await connect(one, other)
    task = make_task()
    await _exchange(channel, [Submit(task)], other.worker)
    await _exchange(back, [Submit(task)], one.worker)
    await _exchange(back, [Accept(task.id)], one.requester)
    await _exchange(channel, [Accept(task.id)], other.requester)


async def _check_burst(one: Side, other: Side) -> None:
    channel, _ = await connect(one, other)
    await _exchange(channel, [Submit(make_task(f"prompt {number}")) for number in range(MANY_TASKS)], other.worker)


async def _check_large(one: Side, other: Side) -> None:
    channel, back = await connect(one, other)
    tasks = [make_task("x" * size) for size in LARGE_SIZES]
    for task in tasks:
        channel.send(Submit(task))
    small = make_task("small")
    channel.send(Submit(small))
    arrived = await other.worker.wait_for_frames(len(tasks) + 1)
    sent = {task.id: Submit(task) for task in (*tasks, small)}
    promise(
        {frame.task_id: frame for frame in arrived if isinstance(frame, Submit)} == sent, "large frames arrive whole"
    )
    answers: list[Frame] = [
        Accept(tasks[0].id),
        Progress(task_id=tasks[0].id, seq=2, fraction=1.0),
        Result(task_id=tasks[0].id, seq=3, result=TaskResult(tasks[0].id, "y" * LARGE_SIZES[0], 1)),
    ]
    await _exchange(back, answers, one.requester)


async def _check_too_large(one: Side, other: Side) -> None:
    channel, _ = await connect(one, other)
    refused = _refusal(channel, Submit(make_task(TOO_LARGE_PROMPT)))
    promise(isinstance(refused, TooLarge), "a frame that the peer does not take is refused with TooLarge")
    await _check_goes_on(channel, other)


async def _check_illegal(one: Side, other: Side) -> None:
    channel, _ = await connect(one, other)
    refused = _refusal(channel, Accept(new_task_id()))
    promise(
        isinstance(refused, LocalProtocolError), "a frame that is not allowed now is refused with LocalProtocolError"
    )
    await _check_goes_on(channel, other)


async def _check_goes_on(channel: Channel, other: Side) -> None:
    promise(not channel.closed, "a frame that was refused does not end the session")
    await _exchange(channel, [Submit(make_task("after a refusal"))], other.worker)


async def _exchange(channel: Channel, frames: Sequence[Frame], receiver: RecordingHandler) -> None:
    before = len(receiver.frames)
    for frame in frames:
        channel.send(frame)
    arrived = (await receiver.wait_for_frames(before + len(frames)))[before:]
    promise(arrived == list(frames), "frames arrive without loss, each once, in the order of sending")


def _refusal(channel: Channel, frame: Frame) -> Exception | None:
    try:
        channel.send(frame)
    except (TooLarge, LocalProtocolError) as error:
        return error
    return None
