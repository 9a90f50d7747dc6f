"""What is asked of two sides and the session between them."""

from __future__ import annotations

import pytest

from node.net.network import PeerNetwork
from node.testing import make_task
from node.testing.network_sides import Side
from protocol import Accept, PeertaskError, Result, Submit, TaskResult


async def refused(network: PeerNetwork | object, address: str) -> PeertaskError:
    """The error of a connect that must fail."""
    assert isinstance(network, PeerNetwork)
    with pytest.raises(PeertaskError) as caught:
        await network.connect(address)
    return caught.value


async def exchange(one: Side, other: Side) -> None:
    """Let a task go each way between two sides that have a session, and its result come back."""
    for asks, works in ((one, other), (other, one)):
        submit = Submit(make_task(sender=asks.peer_id))
        asks.channel_to(works).send(submit)
        await works.worker.wait_until(lambda works=works, submit=submit: submit in works.worker.frames)  # type: ignore[misc]
        back = works.channel_to(asks)
        result = Result(task_id=submit.task_id, seq=2, result=TaskResult(submit.task_id, "done", 1))
        back.send(Accept(submit.task_id))
        back.send(result)
        await asks.requester.wait_until(lambda asks=asks, result=result: result in asks.requester.frames)  # type: ignore[misc]


def has_session(one: Side, other: Side) -> bool:
    """Whether a side has a session with the other."""
    return one.network.channel(other.peer_id) is not None
