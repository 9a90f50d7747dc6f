"""How sessions over loopback end, in good order or not, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import trio
from libp2p.peer.id import ID

from node.net.host import abort_connection
from node.net.network import PeerNetwork
from node.testing import make_task
from node.testing.network_sides import Side, connect
from protocol import PeertaskError, Submit
from tests.integration.held_resources import open_files, running_tasks
from tests.integration.hosts import becomes_true
from tests.integration.network.sessions import exchange
from tests.integration.networks import SHORT_PULSE, side


async def test_a_cut_connection_is_noticed_at_both_ends_and_replaced() -> None:
    """Without a goodbye, and without waiting for the silence."""
    with trio.fail_after(20):
        async with side() as one, side() as other:
            channel, back = await connect(one, other)
            assert isinstance(one.network, PeerNetwork)
            with trio.fail_after(5):
                await abort_connection(one.network._running_host(), ID.from_string(other.peer_id))  # noqa: SLF001
                await one.wait_until(lambda: one.network.channel(other.peer_id) not in (None, channel))
                await other.wait_until(lambda: other.network.channel(one.peer_id) not in (None, back))
            await exchange(one, other)


async def test_stopping_says_goodbye_and_leaves_no_task_and_no_socket() -> None:
    """To every peer, also to those that only came; nothing of it is left behind."""
    with trio.fail_after(30):
        tasks, files = running_tasks(), open_files()
        async with side() as one, side() as dialled, side() as came:
            async with side() as stops:
                await connect(stops, dialled)
                await connect(came, stops)
                await stops.network.connect(one.address)
            for peer in (dialled, came, one):
                await peer.worker.wait_until(lambda peer=peer: bool(peer.worker.endings))  # type: ignore[misc]
                assert peer.worker.endings[0][1] == "the peer said goodbye: the node is stopping"
            assert [reason for _, reason in stops.worker.endings] == ["the node is stopping"] * 3
        await becomes_true(lambda: running_tasks() == tasks)
        assert open_files() == files


async def test_a_network_that_is_cancelled_says_goodbye_all_the_same() -> None:
    """Cancellation from outside is an orderly end: peers need not find out by silence."""
    with trio.fail_after(30):
        async with side() as one, side() as other:
            with trio.CancelScope() as scope:
                async with side() as stops:
                    await connect(stops, one)
                    await connect(other, stops)
                    scope.cancel()
                    await trio.sleep_forever()
            for peer in (one, other):
                await peer.worker.wait_until(lambda peer=peer: bool(peer.worker.endings))  # type: ignore[misc]
                assert peer.worker.endings[0][1] == "the peer said goodbye: the node is stopping"


async def fail_while_connected(peer: Side) -> None:
    """Raise inside the block of a network that has a session."""
    async with side() as stops:
        await connect(stops, peer)
        raise KeyError("mine")


async def test_an_exception_in_the_block_comes_out_as_it_is() -> None:
    """Not in a group, and after everybody was told goodbye."""
    with trio.fail_after(20):
        async with side() as one:
            with pytest.raises(KeyError, match="mine"):
                await fail_while_connected(one)
            await one.worker.wait_until(lambda: bool(one.worker.endings))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="freezes a process")
async def test_a_frozen_peer_is_found_and_found_again_when_it_goes_on() -> None:
    """A process that is stopped keeps its sockets, so only its silence tells; afterwards a new session comes about."""
    with trio.fail_after(60):
        async with side(pulse=SHORT_PULSE) as one:
            command = [sys.executable, "-m", "tests.integration.network_process", one.address]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    await one.wait_until(lambda: len(one.network.channels()) == 1)
                    (channel,) = one.network.channels()
                    os.kill(process.pid, signal.SIGSTOP)
                    for _ in range(40):  # more than the sockets take in, so a write is stuck
                        with suppress(PeertaskError):
                            channel.send(Submit(make_task("x" * 1_000_000)))
                    frozen_at = trio.current_time()
                    await one.wait_until(lambda: not one.network.channels())
                    assert trio.current_time() - frozen_at < SHORT_PULSE.silence_s + 2
                    assert "nothing was heard from the peer for 1 s" in one.requester.endings[0][1]
                    os.kill(process.pid, signal.SIGCONT)
                    await one.wait_until(lambda: len(one.network.channels()) == 1)
                finally:
                    process.kill()
