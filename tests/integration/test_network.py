"""Sessions between real hosts over loopback: how they come about, how they are kept, and how they end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from node.interfaces import Channel
from node.net.host import abort_connection
from node.net.network import PeerNetwork
from node.testing import check_channels, check_network, make_task
from node.testing.network_sides import Side, connect
from protocol import (
    PROTOCOL_ID,
    Accept,
    Bye,
    ErrorCode,
    Hello,
    PeerAdvert,
    PeerId,
    PeertaskError,
    Result,
    Submit,
    TaskResult,
    encode_frame,
)
from tests.integration.foreign_peers import foreign_peer
from tests.integration.hosts import address_of, becomes_true, config, free_port, server
from tests.integration.networks import SHORT_PULSE, make_network, network_pair, port_of, side

DUELS = 20  # both dial at once


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


# --- The contract ----------------------------------------------------------------------------------------------------


async def test_the_network_keeps_the_contract_of_networks() -> None:
    """The same promises as the network in memory that other tests rely on."""
    await check_network(network_pair)


async def test_its_channels_keep_the_contract_of_channels() -> None:
    """Over real streams as over memory."""
    await check_channels(network_pair)


# --- Connecting, in words --------------------------------------------------------------------------------------------


async def test_dialling_oneself_is_refused_in_words() -> None:
    """By address with or without looking, and by id."""
    with trio.fail_after(20):
        async with side() as one:
            for address in (one.address, one.peer_id):
                error = await refused(one.network, address)
                assert error.code is ErrorCode.INVALID_ADDRESS
                assert "is this node itself" in error.message
                assert "another node" in error.remedy
            assert one.network.peers() == []


async def test_a_wrong_peer_id_is_refused_in_words() -> None:
    """Nothing is told to whoever answers there."""
    stranger = create_new_key_pair()
    with trio.fail_after(20):
        async with side() as one, side() as other:
            wrong = f"{port_of(other)}/p2p/{ID.from_pubkey(stranger.public_key)}"
            error = await refused(one.network, wrong)
            assert error.code is ErrorCode.WRONG_PEER
            assert other.peer_id in error.message
            assert other.worker.openings == []


async def test_an_unreachable_address_is_refused_in_words() -> None:
    """With the address, the reason, and what to check."""
    peer_id = ID.from_pubkey(create_new_key_pair().public_key)
    with trio.fail_after(20):
        address = f"/ip4/127.0.0.1/tcp/{await free_port()}/p2p/{peer_id}"
        async with side() as one:
            error = await refused(one.network, address)
            assert error.code is ErrorCode.PEER_UNREACHABLE
            assert address in error.message
            assert "connection refused" in error.message
            assert "firewall" in error.remedy
            (info,) = one.network.peers()
            assert (info.peer_id, info.connected) == (str(peer_id), False)
            assert "connection refused" in info.last_error


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/ip4/127.0.0.1/tcp/4001", "does not say which peer"),
        ("/nonsense", "is not a multiaddress"),
        ("/ip4/127.0.0.1/udp/1/quic-v1", "is not of a transport"),
        ("nobody", "is not a peer id"),
        ("", "is not a peer id"),
    ],
)
async def test_a_malformed_address_is_refused_in_words(address: str, words: str) -> None:
    """Before anything is dialled; `keep` refuses it as well."""
    with trio.fail_after(20):
        async with side() as one:
            error = await refused(one.network, address)
            assert error.code is ErrorCode.INVALID_ADDRESS
            assert words in error.message
            with pytest.raises(PeertaskError, match=words):
                one.network.keep(address)


async def test_a_peer_of_which_no_address_is_known_is_unreachable_in_words() -> None:
    """An id alone leads nowhere."""
    peer_id = str(ID.from_pubkey(create_new_key_pair().public_key))
    with trio.fail_after(20):
        async with side() as one:
            error = await refused(one.network, peer_id)
            assert error.code is ErrorCode.PEER_UNREACHABLE
            assert "Give an address" in error.remedy


async def test_a_libp2p_peer_that_is_no_node_is_incompatible_in_words() -> None:
    """It answers, but does not speak the protocol; no connection with it is kept."""
    with trio.fail_after(20):
        async with server() as foreign, side() as one:
            error = await refused(one.network, address_of(foreign))
            assert error.code is ErrorCode.INCOMPATIBLE_VERSION
            assert f"does not speak {PROTOCOL_ID}" in error.message
            assert "peertask node" in error.remedy
            await becomes_true(lambda: not foreign.get_network().get_connections())


async def test_a_node_of_another_major_version_is_incompatible_in_words() -> None:
    """Its Hello names the versions; the error says which of the two nodes to update."""

    async def greet(stream: object) -> None:
        for piece in encode_frame(Hello(versions=("7.0",))):
            await stream.write(piece)  # type: ignore[attr-defined]

    with trio.fail_after(20):
        async with server() as foreign, side() as one:
            foreign.set_stream_handler(TProtocol(PROTOCOL_ID), greet)
            error = await refused(one.network, address_of(foreign))
            assert error.code is ErrorCode.INCOMPATIBLE_VERSION
            assert "speaks versions 7.0" in error.message
            assert one.worker.openings == []


async def test_a_node_that_refuses_our_version_is_incompatible_in_words() -> None:
    """The reason of its Bye is the reason here."""

    async def refuse(stream: object) -> None:
        for piece in encode_frame(Bye(ErrorCode.INCOMPATIBLE_VERSION, "this node speaks 7.0")):
            await stream.write(piece)  # type: ignore[attr-defined]
        await stream.close()  # type: ignore[attr-defined]

    with trio.fail_after(20):
        async with server() as foreign, side() as one:
            foreign.set_stream_handler(TProtocol(PROTOCOL_ID), refuse)
            error = await refused(one.network, address_of(foreign))
            assert error.code is ErrorCode.INCOMPATIBLE_VERSION
            assert "this node speaks 7.0" in error.message


async def test_connecting_after_the_network_has_stopped_fails_in_words() -> None:
    """As before it runs."""
    network = make_network()
    peer_id = ID.from_pubkey(create_new_key_pair().public_key)
    with trio.fail_after(20):
        error = await refused(network, f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id}")
        assert "not running" in error.message


# --- One session for each pair ---------------------------------------------------------------------------------------


async def test_two_nodes_that_dial_each_other_at_once_keep_one_session() -> None:
    """However the dials interleave, both sides keep the same session, it works both ways, and it lasts."""
    rng = random.Random(7)
    with trio.fail_after(40):
        for _ in range(DUELS):
            async with side() as one, side() as other:
                head_start = rng.choice((0, 0, 0.001, 0.003, 0.01))

                async def dial_late(pause: float = head_start, one: Side = one, other: Side = other) -> None:
                    await trio.sleep(pause)
                    await other.network.connect(one.address)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one.network.connect, other.address)
                    nursery.start_soon(dial_late)
                await settle(one, other)
                openings = len(one.worker.openings), len(other.worker.openings)
                await exchange(one, other)
                for some_side in (one, other):
                    assert len(some_side.network.channels()) == 1
                    for handler in some_side.handlers:
                        assert len(handler.openings) - len(handler.endings) == 1
                        assert not [reason for _, reason in handler.endings if "another session" not in reason]
                assert (len(one.worker.openings), len(other.worker.openings)) == openings


async def settle(one: Side, other: Side) -> None:
    """Wait until each side has no stream but its session."""

    def streams(some_side: Side) -> int:
        assert isinstance(some_side.network, PeerNetwork)
        return int(repr(some_side.network).rpartition("streams=")[2].rstrip(">"))

    await becomes_true(lambda: streams(one) == streams(other) == 1)


async def test_two_sessions_on_one_connection_end_as_one() -> None:
    """A node that dials while the other's session comes up over the same connection does not lose both."""
    with trio.fail_after(40):
        for _ in range(DUELS):
            async with side() as one, side() as other:
                other.network.keep(one.address)
                await trio.lowlevel.checkpoint()
                await one.network.connect(other.address)
                await becomes_true(lambda one=one, other=other: has_session(other, one))  # type: ignore[misc]
                await settle(one, other)
                await exchange(one, other)
                assert not [reason for _, reason in one.worker.endings if "another session" not in reason]


async def test_many_connects_at_once_share_one_dial() -> None:
    """Whoever waits for a dial that is under way gets its session, or its error."""
    with trio.fail_after(20):
        async with side() as one, side() as other:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(one.network.connect, other.address)
            await exchange(one, other)
            assert len(other.worker.openings) == 1


async def test_a_cancelled_connect_disturbs_nobody() -> None:
    """The dial goes on in the background, and the node with it."""
    with trio.fail_after(20):
        async with side() as one, side() as other:
            for steps in range(15):
                with trio.move_on_after(steps / 1000):
                    await one.network.connect(other.address)
            await one.network.connect(other.address)
            await exchange(one, other)


# --- Keeping sessions up ---------------------------------------------------------------------------------------------


async def test_a_restarted_peer_replaces_its_dead_session_at_once() -> None:
    """Same identity and port, another instance: nothing waits until the silence of the old one is noticed."""
    key_pair = create_new_key_pair()
    with trio.fail_after(30):
        async with side() as one:
            address = one.address
            async with side(key_pair=key_pair) as before:
                await before.network.connect(address)
                await one.wait_until(lambda: has_session(one, before))
                first = one.channel_to(before)
                # The old instance is still there, as far as this node can see; the new one dials.
                async with side(key_pair=key_pair) as after:
                    with trio.fail_after(5):
                        await after.network.connect(address)
                    await exchange(one, after)
                    assert one.channel_to(after) is not first
                    assert first.closed
                    before_ended = before.worker.endings
                    await before.worker.wait_until(lambda: bool(before_ended))
                    assert "replaces this one" in before_ended[0][1]


async def test_a_peer_that_comes_back_on_its_port_gets_its_session_back() -> None:
    """Dialled again and again with back-off while it is away, and soon after it is back."""
    key_pair = create_new_key_pair()
    with trio.fail_after(40):
        async with side() as one:
            async with side(key_pair=key_pair) as other:
                await connect(one, other)
                listen = port_of(other)
            await one.wait_until(lambda: not one.network.channels())
            (info,) = one.network.peers()
            assert not info.connected
            assert "goodbye: the node is stopping" in info.last_error
            with trio.fail_after(20):
                async with side(listen, key_pair=key_pair) as again:
                    await one.wait_until(lambda: has_session(one, again))
                    await becomes_true(lambda: has_session(again, one))
                    await exchange(one, again)
                    (info,) = one.network.peers()
                    assert info.connected
                    assert info.last_error == ""


async def test_a_peer_on_a_new_port_comes_back_by_itself() -> None:
    """Its own dial brings the session, and its Hello the new address, which is dialled from then on."""
    key_pair = create_new_key_pair()
    with trio.fail_after(40):
        async with side() as one:
            async with side(key_pair=key_pair) as other:
                await connect(one, other)
            async with side(key_pair=key_pair) as moved:
                await moved.network.connect(one.address)
                await one.wait_until(lambda: has_session(one, moved))
                assert moved.address in one.network.peers()[0].addresses
                await moved.network.disconnect(one.peer_id)
                await one.wait_until(lambda: not has_session(one, moved))
                await one.wait_until(lambda: has_session(one, moved))
                await exchange(one, moved)


async def test_a_start_never_fails_because_a_peer_is_away() -> None:
    """What is to be kept is dialled in the background, and found when it comes."""
    key_pair = create_new_key_pair()
    listen = f"/ip4/127.0.0.1/tcp/{await free_port()}"
    peer_id = PeerId(str(ID.from_pubkey(key_pair.public_key)))
    network = make_network()
    assert network.keep(f"{listen}/p2p/{peer_id}") == peer_id
    one = Side(network)
    with trio.fail_after(40):
        async with one.running():
            await becomes_true(lambda: bool(network.peers()[0].last_error))
            async with side(listen, key_pair=key_pair) as late:
                await one.wait_until(lambda: has_session(one, late))


async def test_disconnecting_is_final() -> None:
    """Neither the keeper nor a dial that is under way brings the session back; a new connect does."""
    with trio.fail_after(40):
        async with side() as one, side() as other:
            await connect(one, other)
            await one.network.disconnect(other.peer_id)
            assert not one.network.channels()
            await other.wait_until(lambda: not other.network.channels())
            assert other.worker.endings[0][1] == "the peer said goodbye: the operator ended the session"
            for steps in range(12):
                one.network.keep(other.address)
                for _ in range(steps * 5):
                    await trio.lowlevel.checkpoint()
                await one.network.disconnect(other.peer_id)
            await becomes_true(lambda: "streams=0" in repr(one.network))
            await trio.sleep(0.5)
            assert not one.network.channels()
            await connect(one, other)
            await exchange(one, other)


async def test_a_peer_that_ends_every_session_is_not_dialled_without_pause() -> None:
    """Sessions that last no time count as failures, so two nodes do not keep each other busy with nothing."""
    hellos = 0

    async def greet_and_go(stream: object) -> None:
        nonlocal hellos
        hellos += 1
        for frame in (Hello(), Bye(ErrorCode.FORBIDDEN, "not you")):
            for piece in encode_frame(frame):
                await stream.write(piece)  # type: ignore[attr-defined]
        await stream.close()  # type: ignore[attr-defined]

    with trio.fail_after(20):
        async with server() as foreign, side() as one:
            foreign.set_stream_handler(TProtocol(PROTOCOL_ID), greet_and_go)
            one.network.keep(address_of(foreign))
            await trio.sleep(2)
            assert 2 <= hellos <= 20
            (info,) = one.network.peers()
            assert "not you" in info.last_error


async def test_a_node_that_only_dials_works_both_ways() -> None:
    """It listens nowhere; the peer finds it by its id while it is connected, and says so when it is not."""
    key_pair = create_new_key_pair()
    only_dials = Side(PeerNetwork(config(key_pair=key_pair)))
    with trio.fail_after(20):
        async with side() as one:
            async with only_dials.running():
                assert only_dials.network.addresses == ()
                await only_dials.network.connect(one.address)
                await one.wait_until(lambda: has_session(one, only_dials))
                await exchange(one, only_dials)
                assert await one.network.connect(only_dials.peer_id) == only_dials.peer_id
                (info,) = one.network.peers()
                assert (info.connected, info.addresses) == (True, ())
            await one.wait_until(lambda: not one.network.channels())
            (info,) = one.network.peers()
            assert not info.connected


# --- What is known about peers ---------------------------------------------------------------------------------------


async def test_peers_tells_what_is_known_the_connected_ones_first() -> None:
    """Agent, advert, addresses and latency of whoever is connected; the last error of whoever is not."""
    absent = ID.from_pubkey(create_new_key_pair().public_key)
    with trio.fail_after(30):
        nowhere = f"/ip4/127.0.0.1/tcp/{await free_port()}/p2p/{absent}"
        async with side(pulse=SHORT_PULSE) as one, side(pulse=SHORT_PULSE) as other:
            await refused(one.network, nowhere)
            await connect(one, other)
            await becomes_true(lambda: one.network.peers()[0].latency_ms is not None)
            connected, away = one.network.peers()
            assert connected.peer_id == other.peer_id
            assert connected.advert == other.advert
            assert connected.addresses == (other.address,)
            assert connected.agent.startswith("peertask/")
            assert connected.latency_ms is not None
            assert 0 < connected.latency_ms < 1_000
            assert (away.peer_id, away.connected, away.advert, away.agent) == (str(absent), False, None, "")


async def test_listeners_hear_of_every_change() -> None:
    """A session that comes, an advert that changes, a load in a heartbeat, a session that goes."""
    with trio.fail_after(30):
        async with side(pulse=SHORT_PULSE) as one, side(pulse=SHORT_PULSE) as other:
            changes = [one.changes]

            def note_change() -> None:
                assert one.changes > changes[-1]
                changes.append(one.changes)

            _, back = await connect(one, other)
            channel = one.channel_to(other)
            note_change()
            other.advert = PeerAdvert(kinds=("new",), slots=2, load=3)
            other.network.announce()
            await one.wait_until(lambda: advert_of(channel).kinds == ("new",))
            note_change()
            other.advert = PeerAdvert(kinds=("new",), slots=2, load=8)
            await one.wait_until(lambda: advert_of(channel).load == 8)
            note_change()
            await other.network.disconnect(one.peer_id)
            await one.wait_until(lambda: one.network.channel(other.peer_id) is not channel)
            note_change()
            assert back.closed


def advert_of(channel: Channel) -> PeerAdvert:
    """What the peer last said about itself."""
    assert channel.advert is not None
    return channel.advert


async def test_an_announcement_that_a_peer_does_not_take_is_its_own_loss() -> None:
    """A peer with tiny limits cannot make `announce` fail for everybody else."""
    from protocol import Limits  # noqa: PLC0415

    with trio.fail_after(20):
        async with side() as one, side() as other, foreign_peer(one.address) as tiny:
            stream = await tiny.open(TProtocol(PROTOCOL_ID))
            await stream.write(encode_frame(Hello(limits=Limits(frame=1024, chunk=1024, payload=1024)))[0])
            await one.wait_until(lambda: len(one.network.channels()) == 1)
            await connect(one, other)
            one.advert = PeerAdvert(kinds=tuple(f"a-kind-with-a-long-name-{number:03}" for number in range(120)))
            one.network.announce()
            await other.wait_until(lambda: len(advert_of(other.channel_to(one)).kinds) == 120)
            assert len(one.network.channels()) == 2


# --- Ending ----------------------------------------------------------------------------------------------------------


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


def running_tasks() -> int:
    """Tasks of the whole program."""
    number, waiting = 0, [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            number += 1
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return number


def open_files() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
