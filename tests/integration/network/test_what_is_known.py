"""What is known about peers, and who hears that it has changed."""

from __future__ import annotations

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from node.interfaces import Channel
from node.testing.network_sides import connect
from protocol import PROTOCOL_ID, Hello, PeerAdvert, encode_frame
from tests.integration.foreign_peers import foreign_peer
from tests.integration.hosts import becomes_true, free_port
from tests.integration.network.sessions import refused
from tests.integration.networks import SHORT_PULSE, side


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
