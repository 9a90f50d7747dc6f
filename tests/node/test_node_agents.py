"""Agents of a real node, over its control socket."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from node import NodeConfig, open_node
from node.gateways.http.work_client import WorkClient
from node.testing import FakeAgentSession
from node.work_service import AgentRegistration
from protocol import MAX_ADVERTISED, ErrorCode, PeerId, PeertaskError, TaskFailed

# Bounds every test; a session opens in some 50 ms.
TEST_S = 60.0


async def test_an_agent_goes_on_with_its_task_over_a_restart_of_the_node(tmp_path: Path) -> None:
    """It registers, gets what nobody else can do, and delivers to its next process: one attempt, one record."""
    # covers COORD-4, COORD-6, COORD-21
    config = NodeConfig(data=tmp_path, store="sqlite")
    with trio.fail_after(TEST_S):
        async with open_node(config) as node:
            with pytest.raises(PeertaskError) as refused:
                await node.enqueue("draw", kind="draw")
            assert refused.value.code is ErrorCode.NO_EXECUTOR
            agent = await WorkClient.register(tmp_path, ("draw",), agent_id="agent-1")
            task_id = await node.enqueue("draw", kind="draw")
            claim = await agent.claim(wait_s=10)
            assert claim is not None
            await agent.start(claim)
            assert "peertask_agents 1.0" in node.metrics()
        async with open_node(config) as node:
            assert [held.task_id for held in (await agent.heartbeat()).tasks] == [task_id]
            assert (await node.work.cleanup_expired()) == []
            done = await agent.complete(claim, "a coast")
            assert (done.attempt, done.lost_leases, done.holder) == (1, 0, "agent-1")
            assert (await node.result(task_id)).result == "a coast"


async def test_a_worker_that_was_stopped_and_goes_on_overwrites_nothing(tmp_path: Path) -> None:
    """SIGSTOP for longer than a lease: somebody else does the task, and what the first one delivers is refused."""
    # covers COORD-6, COORD-24, COORD-58
    config = NodeConfig(data=tmp_path, heartbeat_ms=300, lease_ms=1_000, store="sqlite")
    with trio.fail_after(TEST_S):
        async with open_node(config) as node:
            command = [sys.executable, str(Path(__file__).with_name("stopped_worker.py")), str(tmp_path)]
            worker = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
            try:
                while "draw" not in node.work.kinds:
                    await trio.sleep(0.01)
                task_id = await node.enqueue("draw", kind="draw")
                assert await _line(worker) == b"working\n"
                worker.send_signal(signal.SIGSTOP)
                async with FakeAgentSession(node.work, ("draw",)) as other:
                    await other.claim(wait_s=30)
                    record = await other.complete("in time")
                    assert record.result is not None
                    assert (record.result.result, record.holder) == ("in time", other.agent_id)
                    assert (record.failures, record.lost_leases >= 1) == (0, True)
                    worker.send_signal(signal.SIGCONT)
                    assert await _line(worker) == b"STALE_ATTEMPT\n"
                    assert node.get_task(task_id) == record
            finally:
                worker.kill()
                await worker.wait()


async def _line(worker: trio.Process) -> bytes:
    """Return the next thing that a worker prints."""
    assert worker.stdout is not None
    return bytes(await worker.stdout.receive_some())


async def test_peers_hear_of_what_an_agent_does(tmp_path: Path) -> None:
    """Those whom the operator allowed, as soon as it registers, and not any more when it has left."""
    with trio.fail_after(TEST_S):
        async with open_node() as ann:
            config = NodeConfig(data=tmp_path, allow={"draw": (PeerId(ann.peer_id),)})
            async with open_node(config) as node:
                await ann.connect(node.addresses[0])
                agent = await WorkClient.register(tmp_path, ("draw",))
                async with trio.open_nursery() as nursery:

                    async def work() -> None:
                        claim = await agent.claim(wait_s=30)
                        assert claim is not None
                        await agent.complete(claim, claim.task.prompt.upper())
                        await agent.deregister()

                    nursery.start_soon(work)
                    assert (await ann.submit("draw", kind="draw", timeout=30)).result == "DRAW"
                while "draw" in _kinds(ann.peers()[0].advert):
                    await trio.sleep(0.01)


async def test_a_task_of_a_peer_goes_to_the_agent_that_acts_as_its_persona(tmp_path: Path) -> None:
    """The node has declared nobody itself, so it refuses what no agent of the kind acts as."""
    # covers COORD-2
    with trio.fail_after(TEST_S):
        async with open_node() as ann:
            config = NodeConfig(data=tmp_path, allow={"draw": (PeerId(ann.peer_id),)})
            async with open_node(config) as node, FakeAgentSession(node.work, ("draw",), persona="painter") as agent:
                await ann.connect(node.addresses[0])
                (peer,) = ann.peers()
                assert peer.advert is not None
                assert peer.advert.personas == ("painter",)
                task_id = await ann.enqueue("a coast", kind="draw", persona="painter")
                await agent.claim(wait_s=30)
                await agent.complete("drawn")
                assert (await ann.result(task_id)).result == "drawn"
                for refused in ({"kind": "draw", "persona": "writer"}, {"kind": "echo", "persona": "painter"}):
                    with pytest.raises(TaskFailed, match="does not act as persona") as caught:
                        await ann.submit("x", to=node.peer_id, **refused)
                    assert caught.value.code is ErrorCode.NO_EXECUTOR


async def test_agents_with_more_names_than_an_advert_holds_leave_the_node_as_it_is(tmp_path: Path) -> None:
    """Its own kinds and personas are told first, and as many of the others as there is room for."""
    with trio.fail_after(TEST_S):
        async with open_node(NodeConfig(listen=())) as ann:
            config = NodeConfig(data=tmp_path, personas=("writer",), allow={"*": (PeerId(ann.peer_id),)})
            async with open_node(config) as node:
                for number in range(MAX_ADVERTISED):
                    kinds = (f"a{number}", f"b{number}")
                    await node.work.register(AgentRegistration.of(kinds=kinds, persona=f"a{number}"))
                await ann.connect(node.addresses[0])
                (peer,) = ann.peers()
                assert peer.advert is not None
                assert {"echo", "mock"} < set(peer.advert.kinds)
                assert "writer" in peer.advert.personas
                assert len(peer.advert.kinds) == len(peer.advert.personas) == MAX_ADVERTISED


def _kinds(advert: object) -> tuple[str, ...]:
    return getattr(advert, "kinds", ())
