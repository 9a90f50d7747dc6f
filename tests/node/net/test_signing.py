"""Signatures of peers: made with the key of a node, and checked with nothing but a peer id."""

# covers COORD-8

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_new_rsa_key_pair

from node.net.identity import peer_id_of
from node.net.signing import signer, verify
from protocol import PeerId, receipt_faults, sign_receipt
from tests.protocol.samples import NOON, PLAIN_TASK, RECEIPT, RESULT

KEY_PAIR = create_new_key_pair(b"\x07" * 32)


def test_the_receipt_of_the_samples_is_signed_with_its_key() -> None:
    """Ed25519 draws nothing, so the same key gives the same receipt in every implementation."""
    again = sign_receipt(
        PLAIN_TASK,
        RESULT,
        executor=peer_id_of(KEY_PAIR),
        attempt=2,
        completed_at=NOON + 1_000,
        sign=signer(KEY_PAIR),
    )
    assert again == RECEIPT
    assert receipt_faults(RECEIPT, verify, task=PLAIN_TASK, result=RESULT) == []


def test_the_signature_of_another_or_of_something_else_does_not_pass() -> None:
    """Neither does one that is no signature at all."""
    peer_id, sign = peer_id_of(KEY_PAIR), signer(KEY_PAIR)
    assert verify(peer_id, b"a", sign(b"a"))
    assert not verify(peer_id, b"b", sign(b"a"))
    assert not verify(peer_id_of(create_new_key_pair()), b"a", sign(b"a"))
    assert not verify(peer_id, b"a", b"")


@pytest.mark.parametrize("peer_id", ["", "ann", "12D3KooWPeer", "0OIl", "\ud800", "1" * 128])
def test_a_text_that_is_no_peer_id_signs_nothing(peer_id: str) -> None:
    """A receipt may name anything as its executor."""
    assert not verify(PeerId(peer_id), b"a", b"b" * 64)


def test_a_peer_id_that_holds_no_key_signs_nothing() -> None:
    """The id of an RSA key is only its hash."""
    key_pair = create_new_rsa_key_pair()
    assert not verify(peer_id_of(key_pair), b"a", key_pair.private_key.sign(b"a"))
