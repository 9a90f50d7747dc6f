"""What is an address, and what is not."""

import pytest

from node.net.addresses import (
    Endpoint,
    circuit_through,
    dialable_endpoints,
    listening_endpoints,
    parse_endpoint,
    parse_peer_id,
)
from node.net.errors import InvalidAddress

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
RELAY = "12D3KooWS2LpLCLmnx1uMHRymdbfKn1ER85eRPwmFVY9qcJ7gKxs"
AT_RELAY = f"/ip4/192.0.2.7/tcp/4001/p2p/{RELAY}"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("/ip4/192.0.2.7/tcp/4001", Endpoint("ip4", "192.0.2.7", 4001)),
        (f"/ip4/192.0.2.7/tcp/4001/p2p/{PEER}", Endpoint("ip4", "192.0.2.7", 4001, peer_id=PEER)),
        ("/ip6/2001:db8::1/tcp/1/ws", Endpoint("ip6", "2001:db8::1", 1, websocket=True)),
        (f"/dns4/node.example/tcp/4002/ws/p2p/{PEER}", Endpoint("dns4", "node.example", 4002, True, PEER)),
        (f"{AT_RELAY}/p2p-circuit", Endpoint("ip4", "192.0.2.7", 4001, relay_id=RELAY)),
        (f"{AT_RELAY}/p2p-circuit/p2p/{PEER}", Endpoint("ip4", "192.0.2.7", 4001, False, PEER, RELAY)),
    ],
)
def test_an_address_is_read_and_written_without_loss(text: str, endpoint: Endpoint) -> None:
    """What is read prints as what was written."""
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "192.0.2.7:4001",
        "/ip4/999.0.2.7/tcp/4001",
        "/ip4/192.0.2.7/tcp/99999",
        "/ip4/192.0.2.7",
        "/tcp/4001",
        f"/p2p/{PEER}",
        "/ip4/192.0.2.7/udp/4001/quic-v1",
        "/ip4/192.0.2.7/tcp/4001/wss",
        "/ip4/192.0.2.7/tcp/4001/p2p/xyz",
        f"{AT_RELAY}/p2p-circuit/p2p/{PEER}/p2p-circuit/p2p/{RELAY}",
        f"{AT_RELAY}/p2p-circuit/tcp/4001",
        f"{AT_RELAY}/p2p-circuit/p2p/",
        "/dnsaddr/node.example",
        "/unix/tmp/socket",
    ],
)
def test_what_a_node_cannot_use_is_refused_with_an_example(text: str) -> None:
    """The message repeats the text and shows what an address looks like."""
    with pytest.raises(InvalidAddress) as caught:
        parse_endpoint(text)
    assert repr(text) in caught.value.message
    assert "/ip4/" in caught.value.remedy


def test_a_peer_id_is_read_in_both_of_its_forms() -> None:
    """Base58, and the CID that some programs print."""
    cid = "bafzaajaiaejcb4gmn2h7i3ttp3jfvlg5bcgtwqyvnxkjpqk3bnfbtpkrhvqgdvai"
    assert parse_peer_id(PEER) == PEER
    assert parse_peer_id(cid) == "12D3KooWS2LpLCLmnx1uMHRymdbfKn1ER85eRPwmFVY9qcJ7gKxs"


@pytest.mark.parametrize("text", ["", "xyz", PEER[:20], f"{PEER}/tcp/1", f"/p2p/{PEER}"])
def test_a_malformed_peer_id_is_refused(text: str) -> None:
    """Also one that was cut off while copying."""
    with pytest.raises(InvalidAddress, match="is not a peer id"):
        parse_peer_id(text)


def test_the_addresses_of_a_peer_keep_their_order_and_lose_their_doubles() -> None:
    """The order is the order of the attempts."""
    first, second = "/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.8/tcp/4001"
    assert [str(endpoint) for endpoint in dialable_endpoints([second, first, second])] == [second, first]


@pytest.mark.parametrize("addresses", [[], ["/ip4/192.0.2.7/tcp/0"]])
def test_nowhere_is_not_an_address_to_dial(addresses: list[str]) -> None:
    """No address at all, and port 0."""
    with pytest.raises(InvalidAddress):
        dialable_endpoints(addresses)


@pytest.mark.parametrize("address", ["/dns4/node.example/tcp/1", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"])
def test_only_an_ip_address_can_be_listened_on(address: str) -> None:
    """A name may mean anything, and a peer id says nothing that the node does not know."""
    with pytest.raises(InvalidAddress, match="cannot be listened on"):
        listening_endpoints([address])


@pytest.mark.parametrize(("first", "second"), [("", "/ws"), ("/ws", ""), ("", "")])
def test_two_listeners_cannot_share_a_port(first: str, second: str) -> None:
    """Not even TCP and WebSocket."""
    with pytest.raises(InvalidAddress, match="want the same port") as caught:
        listening_endpoints([f"/ip4/127.0.0.1/tcp/4001{first}", f"/ip4/127.0.0.1/tcp/4001{second}"])
    assert "a port of its own" in caught.value.remedy


def test_free_ports_and_other_interfaces_are_not_shared() -> None:
    """Port 0 is another one every time, and the same number elsewhere is another port."""
    addresses = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1/ws"]
    assert [str(endpoint) for endpoint in listening_endpoints(addresses)] == addresses


def test_an_address_through_a_relay_tells_where_the_relay_is() -> None:
    """And that of the relay, which of its peers is meant."""
    through = parse_endpoint(f"{AT_RELAY}/p2p-circuit/p2p/{PEER}")
    assert through.relay == parse_endpoint(AT_RELAY)
    assert circuit_through(through.relay, PEER) == through


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/p2p-circuit", "not of a transport"),
        (f"/ip4/192.0.2.7/tcp/4001/p2p-circuit/p2p/{PEER}", "does not say who the relay is"),
        (f"{AT_RELAY}/p2p-circuit/p2p/{RELAY}", "names one peer as the relay and as who is behind it"),
        (f"{AT_RELAY}/p2p-circuit/p2p/xyz", "not a peer id"),
    ],
)
def test_what_leads_through_no_relay_or_to_nobody_is_refused(text: str, said: str) -> None:
    """In words that say which part is wrong."""
    with pytest.raises(InvalidAddress, match=said):
        parse_endpoint(text)


def test_what_leads_through_a_relay_is_dialled_last_and_never_listened_on() -> None:
    """A straight way is shorter; and a relay listens, not who is behind it."""
    through, straight = f"{AT_RELAY}/p2p-circuit/p2p/{PEER}", f"/ip4/192.0.2.9/tcp/1/p2p/{PEER}"
    assert [str(one) for one in dialable_endpoints([through, straight])] == [straight, through]
    with pytest.raises(InvalidAddress, match="cannot be listened on"):
        listening_endpoints([f"{AT_RELAY}/p2p-circuit"])
