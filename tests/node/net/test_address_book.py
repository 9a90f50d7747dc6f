"""What a node knows about where its peers are."""

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair

from node.net.address_book import MAX_ADDRESSES_PER_PEER, MAX_PEERS, AddressBook
from node.net.errors import InvalidAddress
from node.net.identity import peer_id_of
from protocol import PeerId

# Fixed, because the names of parametrized tests must be the same in every worker of pytest-xdist.
PEER = peer_id_of(create_new_key_pair(b"1" * 32))
OTHER = peer_id_of(create_new_key_pair(b"2" * 32))


def at(port: int, peer_id: PeerId = PEER) -> str:
    """An address of a peer."""
    return f"/ip4/192.0.2.7/tcp/{port}/p2p/{peer_id}"


def test_an_address_tells_whose_it_is() -> None:
    """What the operator says is kept under the peer that is named in it."""
    book = AddressBook()
    assert book.learn(at(1)) == PEER
    assert book.entry(PEER).addresses == (at(1),)
    assert [peer_id for peer_id, _ in book] == [PEER]


def test_the_latest_word_of_the_operator_comes_first() -> None:
    """An address that is given again moves to the front, and stands there once."""
    book = AddressBook()
    for port in (1, 2, 1):
        book.learn(at(port))
    assert book.entry(PEER).addresses == (at(1), at(2))


@pytest.mark.parametrize("address", ["/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/tcp/4001/ws"])
def test_an_address_that_names_nobody_is_refused_in_words(address: str) -> None:
    """Without the id, whoever answers there would be trusted."""
    with pytest.raises(InvalidAddress, match="does not say which peer") as caught:
        AddressBook().learn(address)
    assert "Add /p2p/" in caught.value.remedy


@pytest.mark.parametrize("address", ["", "/", "/ip4/1.2.3/tcp/1", "/udp/1", f"/ip4/192.0.2.7/udp/1/p2p/{PEER}"])
def test_a_malformed_address_is_refused_and_leaves_no_entry(address: str) -> None:
    """Nothing is kept of what cannot be dialled."""
    book = AddressBook()
    with pytest.raises(InvalidAddress):
        book.learn(address)
    assert list(book) == []


def test_what_a_peer_says_of_itself_comes_after_what_the_operator_says() -> None:
    """The operator knows which way leads to the peer from here."""
    book = AddressBook()
    book.hear(PEER, (at(2), at(3)))
    book.learn(at(1))
    assert book.entry(PEER).addresses == (at(1), at(2), at(3))


def test_what_a_peer_says_replaces_what_it_said_before() -> None:
    """A peer that listens on a new port after each restart is found at the last one, and the book stays short."""
    book = AddressBook()
    for port in range(1, 100):
        book.hear(PEER, (at(port),))
    assert book.entry(PEER).addresses == (at(99),)


def test_what_a_peer_says_is_completed_with_its_id() -> None:
    """An address without an id is meant to be its own."""
    book = AddressBook()
    book.hear(PEER, ("/dns4/node.example/tcp/4002/ws",))
    assert book.entry(PEER).addresses == (f"/dns4/node.example/tcp/4002/ws/p2p/{PEER}",)


@pytest.mark.parametrize(
    "address",
    [
        at(1, OTHER),
        "/ip4/192.0.2.7/tcp/0",
        "/ip4/0.0.0.0/tcp/4001",
        "/ip6/::/tcp/4001",
        "/ip4/192.0.2.7/udp/4001/quic-v1",
        "nonsense",
        "",
        "/" * 500,
    ],
)
def test_what_a_peer_cannot_be_dialled_at_is_left_out(address: str) -> None:
    """Another peer's address, port 0, "every interface", a foreign transport and nonsense; the rest is taken."""
    book = AddressBook()
    book.hear(PEER, (address, at(5)))
    assert book.entry(PEER).addresses == (at(5),)
    assert [peer_id for peer_id, _ in book] == [PEER]


def test_the_addresses_of_a_peer_are_bounded() -> None:
    """A peer cannot make a node dial the whole world for it; the latest of the operator's stay."""
    book = AddressBook()
    book.hear(PEER, tuple(at(port) for port in range(1, 100)))
    assert book.entry(PEER).addresses == tuple(at(port) for port in range(1, MAX_ADDRESSES_PER_PEER + 1))
    for port in range(1_000, 1_100):
        book.learn(at(port))
    told = book.entry(PEER).told
    assert len(told) == MAX_ADDRESSES_PER_PEER
    assert told[0] == at(1_099)


def test_strangers_cannot_fill_the_book_or_push_out_who_is_to_be_kept() -> None:
    """Above the limit the oldest entry that nothing holds is dropped."""
    book = AddressBook()
    book.learn(at(1))
    book.entry(PEER).kept = True
    for number in range(MAX_PEERS + 100):
        book.entry(PeerId(f"stranger {number}"))
    assert len(list(book)) == MAX_PEERS
    assert book.entry(PEER).addresses == (at(1),)


def test_a_change_to_an_entry_stays() -> None:
    """The book hands out what it keeps, and may be walked through while it changes."""
    book = AddressBook()
    book.entry(PEER).last_error = "refused"
    for _, entry in book:
        assert entry.last_error == "refused"
        book.entry(OTHER)
