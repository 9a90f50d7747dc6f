"""Connects that fail, and the words in which they do."""

from __future__ import annotations

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from protocol import PROTOCOL_ID, Bye, ErrorCode, Hello, PeertaskError, encode_frame
from tests.integration.hosts import address_of, becomes_true, free_port, server
from tests.integration.network.sessions import refused
from tests.integration.networks import make_network, port_of, side


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
