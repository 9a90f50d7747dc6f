"""What every network must do, seen from two nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import trio

from node.testing.contract import promise
from node.testing.executions import make_task
from node.testing.network_sides import CHECK_LIMIT_S, MakePair, Side, connect, run_checks
from protocol import Decline, ErrorCode, Offer, PeertaskError, Submit

# A peer that nobody is, with an id that libp2p can read.
NOBODY = "12D3KooWFvJFUuS4JQ2meSbpCa7PE3cyRh51EfUoQh5JEXi6UH8H"
# How long to look whether something happens that must not; a first dial comes within a few milliseconds.
QUIET_S = 0.3


async def check_network(make_pair: MakePair) -> None:
    """Check that a network keeps the contract of `Network`; `check_channels` checks what its channels do.

    Args:
        make_pair: makes two networks that can reach each other, fresh ones each time; the checker runs them.

    Raises:
        ContractViolation: names the promise that is broken.
        trio.TooSlowError: what was to happen did not within 30 s.
    """
    checks = (
        _check_connect,
        _check_connect_at_once,
        _check_bad_addresses,
        _check_disconnect,
        _check_kept_up,
        _check_adverts,
        _check_offers,
        _check_peers,
    )
    await run_checks(make_pair, checks)
    await _check_leaving(make_pair)
    await _check_absent_peer(make_pair)


async def _check_connect(one: Side, other: Side) -> None:
    promise(one.network.channel(other.peer_id) is None, "there is no channel before there is a session")
    promise(f"/p2p/{other.peer_id}" in other.address, "an address ends with /p2p/ID")
    promise(await one.network.connect(other.address) == other.peer_id, "connect returns who answers")
    channel, back = await connect(one, other)
    promise(channel.peer_id == other.peer_id, "a channel knows who is at the other end")
    promise(back.peer_id == one.peer_id, "the peer that was dialled knows who dials")
    await one.network.connect(other.peer_id)
    promise(one.channel_to(other) is channel, "connecting again, by address or by id, keeps the session")
    for side, end in ((one, channel), (other, back)):
        promise(list(side.network.channels()) == [end], "one session is one channel")
        promise(not end.closed, "an open channel is not closed")
        for handler in side.handlers:
            promise(handler.openings == [end], "both handlers are told once of a session")
            promise(handler.endings == [], "an open session has no end")


async def _check_connect_at_once(one: Side, other: Side) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one.network.connect, other.address)
            nursery.start_soon(other.network.connect, one.address)
    await trio.sleep(QUIET_S)
    for side, peer in ((one, other), (other, one)):
        promise(len(side.network.channels()) == 1, "two nodes that dial each other at once get one session")
        for handler in side.handlers:
            still_open = len(handler.openings) - len(handler.endings)
            promise(still_open == 1, "handlers are told of one end for each session that does not go on")
        side.channel_to(peer).send(Submit(make_task()))
        await peer.worker.wait_for_frames(1)


async def _check_bad_addresses(one: Side, other: Side) -> None:
    stranger = other.address.replace(f"/p2p/{other.peer_id}", f"/p2p/{NOBODY}")
    cases = {
        "/what/is/this": ErrorCode.INVALID_ADDRESS,
        one.address: ErrorCode.INVALID_ADDRESS,
        stranger: ErrorCode.WRONG_PEER,
    }
    for address, code in cases.items():
        error = await _connect_error(one, address)
        promise(error is not None and error.code is code, f"connecting to {address} fails with {code}, not {error!r}")
    promise(len(one.network.channels()) == 0, "a failed connect leaves no session")


async def _check_disconnect(one: Side, other: Side) -> None:
    channel, back = await connect(one, other)
    await one.network.disconnect(other.peer_id)
    await other.wait_until(lambda: not other.network.channels())
    await one.wait_until(lambda: not one.network.channels())
    for side, peer, end in ((one, other, channel), (other, one, back)):
        promise(end.closed, "a channel is closed when its session is over")
        for handler in side.handlers:
            promise(
                [peer_id for peer_id, _ in handler.endings] == [peer.peer_id], "both handlers are told once of the end"
            )
            promise(handler.endings[0][1] != "", "handlers are told of the reason, in words")
    code = _error_code(lambda: channel.send(Submit(make_task())))
    promise(code is ErrorCode.PEER_LOST, "sending on a closed channel fails with PEER_LOST")
    await one.network.disconnect(other.peer_id)
    await trio.sleep(QUIET_S)
    promise(not one.network.channels(), "a node that has disconnected does not dial again by itself")


async def _check_kept_up(one: Side, other: Side) -> None:
    channel, _ = await connect(one, other)
    await other.network.disconnect(one.peer_id)
    await one.wait_until(lambda: one.network.channel(other.peer_id) not in (None, channel))
    promise(channel.closed, "the session that was lost stays closed")


async def _check_adverts(one: Side, other: Side) -> None:
    _, back = await connect(one, other)
    promise(back.advert == one.advert, "a channel has the advert of the peer's Hello")
    changes = other.changes
    one.advert = replace(one.advert, kinds=("echo", "summarise"), slots=2)
    one.network.announce()
    await other.wait_until(lambda: back.advert is not None and back.advert.kinds == one.advert.kinds)
    promise(back.advert is not None and back.advert.slots == one.advert.slots, "announce tells peers the new advert")
    promise(other.changes > changes, "listeners are told when an advert has changed")


async def _check_offers(one: Side, other: Side) -> None:
    channel, back = await connect(one, other)
    promise(back.offered is None, "a peer that has not asked for work offers none")
    for slots in (2, 0):
        channel.send(Offer(slots=slots, kinds=("summarise",), pull=True))
        await other.wait_until(lambda: back.offered == slots)  # noqa: B023 - it is waited for here
        promise(back.advert is not None and back.advert.kinds == ("summarise",), "an offer says what the peer can do")
    one.network.announce()
    await other.wait_until(lambda: back.advert == one.advert)
    promise(back.offered == 0, "an announcement leaves the offer as it is")
    await other.requester.wait_for_frames(2)
    asked = [frame for frame in other.requester.frames if isinstance(frame, Offer)]
    promise([offer.slots for offer in asked] == [2, 0], "each offer that asks for work reaches whoever has some")
    back.send(Decline(ErrorCode.FORBIDDEN, "none for you"))
    await one.worker.wait_for_frames(1)
    promise(isinstance(one.worker.frames[0], Decline), "a decline reaches whoever asked for work")


async def _check_peers(one: Side, other: Side) -> None:
    await connect(one, other)
    (info,) = one.network.peers()
    promise(info.peer_id == other.peer_id and info.connected, "peers has who is connected")
    ids = [one.network.is_peer_id(each) for each in (one.peer_id, other.peer_id, "agent-7", "")]
    promise(ids == [True, True, False, False], "the id of a peer is told from that of an agent")
    promise(info.advert == other.advert, "peers has the advert of who is connected")
    promise(
        any(f"/p2p/{other.peer_id}" in address for address in info.addresses), "peers has where a peer can be dialled"
    )
    await one.network.disconnect(other.peer_id)
    await one.wait_until(lambda: not one.network.channels())
    (info,) = one.network.peers()
    promise(not info.connected, "peers tells a known peer from a connected one")


async def _check_leaving(make_pair: MakePair) -> None:
    async with make_pair() as (network, other_network):
        one, other = Side(network), Side(other_network)
        with trio.fail_after(CHECK_LIMIT_S):
            async with one.running():
                async with other.running():
                    channel, back = await connect(one, other)
                await one.requester.wait_until(lambda: bool(one.requester.endings))
                promise(channel.closed and back.closed, "leaving ends every session, at both ends")
                for handler in (*one.handlers, *other.handlers):
                    promise(len(handler.endings) == 1, "leaving tells all handlers of the end, once")


async def _check_absent_peer(make_pair: MakePair) -> None:
    async with make_pair() as (network, other_network):
        one, other = Side(network), Side(other_network)
        with trio.fail_after(CHECK_LIMIT_S):
            async with other.running():
                address = other.address
            async with one.running():
                error = await _connect_error(one, address)
                unreachable = error is not None and error.code is ErrorCode.PEER_UNREACHABLE
                promise(unreachable, f"a peer that is away is PEER_UNREACHABLE, not {error!r}")
                promise(one.network.keep(address) == other.peer_id, "keep does not fail because the peer is away")
                code = _error_code(lambda: one.network.keep("/what/is/this"))
                promise(code is ErrorCode.INVALID_ADDRESS, "keep refuses what is no address")


async def _connect_error(side: Side, address: str) -> PeertaskError | None:
    try:
        await side.network.connect(address)
    except PeertaskError as error:
        return error
    return None


def _error_code(call: Callable[[], object]) -> ErrorCode | None:
    try:
        call()
    except PeertaskError as error:
        return error.code
    return None
