"""Nodes that work for one which cannot dial them, over real hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node import Node, NodeConfig, open_node
from node.coordination.explain import Verdict
from node.net.identity import load_or_create_identity, peer_id_of
from node.testing import ScriptedExecutor, Until
from protocol import ErrorCode, PeerId, TaskStatus
from tests.integration.hosts import becomes_true
from tests.integration.nodes import cut

TEST_S = 30.0


@asynccontextmanager
async def pulling(folder: Path, executor: ScriptedExecutor, **offer: Any) -> AsyncIterator[tuple[Node, Node]]:
    """An owner that may give a worker tasks, and the worker, which listens nowhere and dials it."""
    worker_id = peer_id_of(load_or_create_identity(folder))
    with trio.fail_after(TEST_S):
        async with open_node(NodeConfig(workers=(worker_id,))) as owner:
            config = NodeConfig(data=folder, listen=(), work_for=owner.addresses[0], **offer)
            async with open_node(config, [executor], control=False) as worker:
                await becomes_true(lambda: executor.kind in kinds_of(owner, worker_id))
                yield owner, worker


def kinds_of(node: Node, peer_id: PeerId) -> tuple[str, ...]:
    """What a node knows that a peer can do."""
    adverts = [peer.advert for peer in node.peers() if peer.peer_id == peer_id and peer.connected]
    return () if not adverts or adverts[0] is None else adverts[0].kinds


def slots_of(node: Node, peer_id: PeerId) -> int | None:
    """How many slots a node knows that a peer has."""
    adverts = [peer.advert for peer in node.peers() if peer.peer_id == peer_id]
    return None if not adverts or adverts[0] is None else adverts[0].slots


async def test_a_node_without_an_address_does_the_tasks_of_the_one_that_it_works_for(tmp_path: Path) -> None:
    """Closed kinds too, with its personas, and never more at once than its slots."""
    executor = ScriptedExecutor("work", slots=10)
    async with pulling(tmp_path, executor, work_slots=2, kinds=("work",), personas=("reviewer",)) as (owner, worker):
        assert worker.addresses == ()
        assert worker.kinds == ("work",)
        prompts = [str(number) for number in range(20)]
        ended = [done async for done in owner.map(prompts, kind="work", persona="reviewer")]
        assert {done.result.result for done in ended if done.result is not None} == set(prompts)
        assert executor.most_at_once <= 2
        wanted = await owner.enqueue("x", kind="work", persona="writer")
        found = {one.peer_id: one.verdict for one in (await owner.explain(wanted)).candidates}
        assert found[worker.peer_id] is Verdict.OTHER_PERSONA


async def test_a_worker_whose_connection_breaks_comes_back_and_goes_on(tmp_path: Path) -> None:
    """It dials and offers itself again, and the task that it has is not executed twice."""
    executor, go_on = ScriptedExecutor("work"), trio.Event()
    executor.then((Until(go_on),))
    async with pulling(tmp_path, executor, work_slots=1) as (owner, worker):
        task_id = await owner.enqueue("x", kind="work")
        await executor.wait_until_begun(1)
        await cut(worker, owner.peer_id)
        await becomes_true(lambda: owner.get_task(task_id).lost_leases == 1)
        await becomes_true(lambda: owner.get_task(task_id).status is TaskStatus.EXECUTING)
        go_on.set()
        assert (await owner.result(task_id)).result == "x"
        assert (await owner.submit("y", kind="work")).result == "y"
        assert [seen.task.prompt for seen in executor.seen] == ["x", "y"]


async def test_a_worker_that_drains_gets_nothing_more_and_hands_in_its_last_result(tmp_path: Path) -> None:
    """The other task waits at the owner, and starts when a worker is there again."""
    executor, go_on = ScriptedExecutor("work"), trio.Event()
    executor.then((Until(go_on),))
    async with pulling(tmp_path, executor, work_slots=2) as (owner, worker):
        last = await owner.enqueue("last", kind="work")
        await executor.wait_until_begun(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.drain)
            await becomes_true(lambda: slots_of(owner, worker.peer_id) == 0)
            next_one = await owner.enqueue("next", kind="work")
            go_on.set()
        assert (await owner.result(last)).result == "last"
        assert owner.get_task(next_one).attempt == 0


async def test_a_strangers_offer_is_declined_and_the_session_goes_on(tmp_path: Path) -> None:
    """It can still ask for what is open to anybody."""
    with trio.fail_after(TEST_S):
        async with (
            open_node() as owner,
            open_node(NodeConfig(listen=(), work_for=owner.addresses[0])) as stranger,
        ):
            assert stranger.offering is not None
            await stranger.offering.declined()
            assert stranger.offering.refusal is not None
            assert stranger.offering.refusal.code is ErrorCode.FORBIDDEN
            assert stranger.peer_id in str(stranger.offering.refusal)
            assert (await stranger.submit("hi", to=owner.peer_id, kind="echo")).result == "hi"


@pytest.mark.parametrize("kind", ["echo", "work"])
async def test_a_worker_refuses_whoever_it_does_not_work_for(tmp_path: Path, kind: str) -> None:
    """Also a peer that it is connected to otherwise."""
    async with pulling(tmp_path, ScriptedExecutor("work")) as (_, worker), open_node() as other:
        await worker.connect(other.addresses[0])
        task_id = await other.enqueue("x", to=worker.peer_id, kind=kind)
        record = await other.manager.wait(task_id)
        assert record.failure is not None
        assert record.failure.code is ErrorCode.FORBIDDEN
